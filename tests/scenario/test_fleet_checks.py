"""What is wrong with how a scenario's fleet lives: one line for each mistake, with its place in the file."""

from __future__ import annotations

import pytest

from simroute.errors import ScenarioError, UsageError
from simroute.scenario.build import build

API = {
    "name": "api",
    "model": "somebody's",
    "usd_per_1m_input_tokens": 0.5,
    "usd_per_1m_output_tokens": 1.5,
    "ttft_s": 0.4,
    "tpot_s": 0.02,
}
HPA = {"max_replicas": 4, "options": {"targets": {"concurrency": 8}}}


@pytest.fixture
def problems(reading, data):
    """What is said of the scenario with these changes, without the name of the file; `pool` changes its pool."""

    def found(pool=None, **changes):
        data["pools"][0] |= pool or {}
        with pytest.raises(ScenarioError) as error:
            reading(data | changes)
        lines = str(error.value).splitlines()
        assert all(line.split(" ")[0].count(":") == 2 for line in lines), "every line has file, line and column"
        return [line.split(" ", 1)[1] for line in lines]

    return found


@pytest.fixture
def warnings(reading, data):
    def found(pool=None, **changes):
        data["pools"][0] |= pool or {}
        return [warning.split(" ", 1)[1] for warning in reading(data | changes).warnings]

    return found


@pytest.mark.parametrize(
    ("router", "said"),
    [
        (
            {"admission": ["tokenbucket"]},
            "router.admission[0]: unknown admission rule 'tokenbucket': did you mean token_bucket?",
        ),
        (
            {"admission": ["always", {"name": "token_bucket", "options": {"rate_per_s": 1, "burst": 2, "unitt": "x"}}]},
            "router.admission[1].options.unitt: unknown option 'unitt': did you mean unit?",
        ),
        (
            {"admission": [{"name": "token_bucket", "options": {"rate_per_s": -1, "burst": 2}}]},
            "router.admission[0].options.rate_per_s: Input should be greater than 0, got -1",
        ),
        (
            {"admission": ["deadline"]},
            "router.admission[0]: deadline: no class has a deadline: give deadline_s, or give a class a target for",
        ),
        ({"queue": {"ordr": "fair"}}, "router.queue.ordr: unknown option 'ordr': did you mean order?"),
        ({"queue": {"order": "lifo"}}, "router.queue.order: Input should be 'fifo', 'priority', 'fair' or"),
        ({"queue": {"weights": {"acme": 0}}}, "router.queue.weights.acme: Input should be greater than 0, got 0"),
        ({"on_loss": "forget"}, "router.on_loss: must be fail, retry or resume, got forget"),
        ({"most_resends": -1}, "router.most_resends: must be ≥ 0, got -1"),
        ({"throughput_rps": 0}, "router.throughput_rps: must be > 0, got 0"),
        ({"scrape_delay_s": 1}, "router: scrape_delay_s, scrape_jitter_s and scrape_loss need a scrape_interval_s"),
        (
            {"scrape_interval_s": 5, "signals": {"running": {"loss": 0.5}}},
            "router.signals.running: delay_s, jitter_s and loss need an interval_s above 0",
        ),
        (
            {"signals": {"kv_usage": {"interval_s": 5}}},
            "router.signals.kv_usage: unknown field 'kv_usage': did you mean kv_cache_usage?",
        ),
    ],
)
def test_the_router(problems, router, said):
    (found,) = problems(router=router)
    assert found.startswith(said)


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (
            {"autoscale": HPA | {"min_replicas": 5}},
            "pools[0].autoscale: min_replicas 5 is above max_replicas 4",
        ),
        (
            {"replicas": 5, "autoscale": HPA},
            "pools[0]: replicas 5 must be within autoscale's 1 to 4",
        ),
        (
            {"replicas": 1, "autoscale": HPA | {"min_replicas": 2}},
            "pools[0]: replicas 1 must be within autoscale's 2 to 4",
        ),
        ({"autoscale": {"max_replicas": 4}}, "pools[0].autoscale.options.targets: Field required"),
        (
            {"autoscale": HPA | {"name": "hpaa"}},
            "pools[0].autoscale.name: unknown autoscaler 'hpaa': did you mean hpa?",
        ),
        (
            {"autoscale": {"max_replicas": 4, "options": {"targets": {"concurency": 4}}}},
            "pools[0].autoscale.options.targets.concurency: unknown option 'concurency': did you mean concurrency?",
        ),
        (
            {"autoscale": {"max_replicas": 4, "options": {"targets": {"concurrency": 4}, "max_replicas": 9}}},
            "pools[0].autoscale.options.max_replicas: give it as autoscale.max_replicas",
        ),
        ({"autoscale": {"options": {}}}, "pools[0].autoscale.max_replicas: missing: Most replicas"),
        ({"startup": {"node_s": -1}}, "pools[0].startup.node_s: must be ≥ 0, got -1"),
        ({"startup": {"weights_gb_per_s": 0}}, "pools[0].startup.weights_gb_per_s: must be > 0, got 0"),
        ({"zones": []}, "pools[0].zones: must not be empty"),
    ],
)
def test_pools_that_grow(problems, pool, said):
    (found,) = problems(pool)
    assert found.startswith(said)


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        (
            {"crashes": [{"mtbf_s": 60, "pool": "onli"}]},
            "failures.crashes[0].pool: unknown pool 'onli': did you mean only?",
        ),
        ({"crashes": [{"mtbf_s": 0}]}, "failures.crashes[0].mtbf_s: must be > 0, got 0"),
        (
            {"outages": [{"at_s": 1, "duration_s": 1, "zone": "eest"}]},
            "failures.outages[0].zone: unknown zone 'eest': did you mean east, west?",
        ),
        (
            {"outages": [{"at_s": 1, "duration_s": 1, "pool": "x"}]},
            "failures.outages[0].pool: unknown pool 'x': known are only, other",
        ),
        (
            {"outages": [{"at_s": 1, "duration_s": 1, "pool": "other", "zone": "west"}]},
            "failures.outages[0].zone: pool other has no replicas in zone west: its zones are north",
        ),
        (
            {"spot": [{"pool": "x", "mean_life_s": 60}]},
            "failures.spot[0].pool: unknown pool 'x': known are only, other",
        ),
        (
            {"stragglers": [{"pool": "only", "replica": 2, "at_s": 1, "duration_s": 1, "factor": 2}]},
            "failures.stragglers[0].replica: must be in 0..1, the replicas of pool only, got 2",
        ),
        (
            {"stragglers": [{"pool": "only", "at_s": 1, "duration_s": 1, "factor": 0}]},
            "failures.stragglers[0].factor: must be > 0, got 0",
        ),
        ({"router": [{"down_s": 3}]}, "failures.router[0].at_s: missing: When"),
        ({"floods": []}, "failures.floods: unknown field 'floods': known are crashes, outages, router, spot"),
        ({"spot": [{"pool": "api", "mean_life_s": 60}]}, "failures.spot[0].pool: unknown pool 'api': known are only"),
    ],
)
def test_failures(problems, data, failures, said):
    data["pools"].append(data["pools"][0] | {"name": "other", "zones": ["north"]})
    (found,) = problems({"replicas": 2, "zones": ["east", "west"]}, failures=failures, external=[API])
    assert found.startswith(said)


def test_a_mistake_in_a_pool_is_no_mistake_of_what_fails_there(problems):
    """The pool exists, though it cannot be read."""
    failures = {"crashes": [{"mtbf_s": 60, "pool": "only"}], "outages": [{"at_s": 1, "duration_s": 1, "zone": "east"}]}
    assert problems({"replicas": 0, "zones": ["east"]}, failures=failures) == ["pools[0].replicas: must be ≥ 1, got 0"]


@pytest.mark.parametrize(
    "kind",
    [
        {"outages": [{"at_s": 19.5, "duration_s": 1}]},
        {"stragglers": [{"pool": "only", "at_s": 19.5, "duration_s": 1, "factor": 2}]},
        {"router": [{"at_s": 5}, {"at_s": 19.5}]},
    ],
    ids=lambda kind: next(iter(kind)),
)
def test_nothing_fails_when_nobody_is_there_any_more(reading, data, kind):
    """The last request arrives at 19 s, or the horizon comes first."""
    (what,) = kind
    scenario = reading(data | {"failures": kind}).scenario
    where = rf"failures.{what}\[{len(kind[what]) - 1}\].at_s"
    with pytest.raises(UsageError, match=rf"^{where}: 19.5 s is after the last arrival \(19 s\): give a time within"):
        build(scenario)
    kind[what][-1]["at_s"] = 12.0
    build(reading(data | {"failures": kind}).scenario)
    with pytest.raises(UsageError, match=rf"^{where}: 12 s is after the horizon \(10 s\): give a time within"):
        build(reading(data | {"failures": kind, "horizon_s": 10.0}).scenario)


def test_clients_that_wait_send_at_times_of_their_own(reading, data):
    """How long a closed loop takes nobody knows before it has run: only the horizon bounds it."""
    changes = {"failures": {"router": [{"at_s": 500}]}, "clients": {"users": 1, "think_s": 60}}
    build(reading(data | changes).scenario)
    with pytest.raises(UsageError, match=r"500 s is after the horizon \(100 s\)"):
        build(reading(data | changes | {"horizon_s": 100.0}).scenario)


@pytest.mark.parametrize(
    ("clients", "said"),
    [
        ({"users": 0}, "clients.users: must be ≥ 1, got 0"),
        ({"users": 2, "wait_in_session": True}, "clients: give users or wait_in_session, not both"),
        ({"think_s": 2}, "clients: think_s needs users or wait_in_session: others send at the trace's times"),
        ({"tools": ["agent"], "tool_s": 2}, "clients: tools and tool_s need users or wait_in_session: others send at"),
        ({"users": 2, "tool_s": 2}, "clients: tool_s needs tools, the request classes whose answers are tool calls"),
        ({"timeout_s": 0}, "clients.timeout_s.default: must be > 0, got 0"),
        ({"timeout_s": {"chat": -1}}, "clients.timeout_s.chat: must be > 0, got -1"),
        ({"retries": {"on": ["rejected", "refused"]}}, "clients.retries.on[1]: must be rejected, failed or timeout"),
        ({"retries": {"jitter": 2}}, "clients.retries.jitter: must be ≤ 1, got 2"),
        ({"cancel": {"share": 0.1}}, "clients.cancel.mean_after_s: missing: After a time drawn from"),
    ],
)
def test_clients(problems, clients, said):
    (found,) = problems(clients=clients)
    assert found.startswith(said)


@pytest.mark.parametrize("price", ["usd_per_1m_input_tokens", "usd_per_1m_output_tokens"])
def test_an_endpoint_without_a_price(problems, price):
    (found,) = problems(external=[{key: value for key, value in API.items() if key != price}])
    assert found.startswith(f"external[0].{price}: missing: Price of a million")


def test_endpoints_have_names_of_their_own(problems):
    assert problems(external=[API | {"name": "only"}]) == ["external[0].name: 'only' is already the name of pools[0]"]
    assert problems(external=[API, API]) == ["external[1].name: 'api' is already the name of external[0]"]


def test_spillover_needs_somewhere_to_go(problems):
    (found,) = problems(policies=[{"name": "spillover", "options": {"to": "apy"}}], external=[API])
    assert found == "policies[0].options: spillover: to: unknown pool 'apy': did you mean api?"


def test_spilling_to_nobody_is_doubtful(warnings):
    spilling = {"name": "spillover"}
    within = {"name": "two_level", "options": {"variant": spilling}}
    for policy in ("spillover", spilling, within):
        (found,) = warnings(policies=[policy])
        assert found.endswith(
            "what finds no room goes to endpoints of others, and there are none: "
            "list them in external, or name a pool of ours in its option to"
        )
    assert found.startswith("policies[0]: two_level: ")
    assert warnings(policies=[spilling | {"options": {"to": "only"}}, "least_requests"]) == []
    assert warnings(policies=[spilling, within], external=[API]) == []


def test_an_endpoint_with_a_fault_exists_none_the_less(problems):
    """Its own fault is told, and not that the cascade does not know it."""
    chained = [{"name": "cascade", "options": {"chain": ["only", "api"]}}]
    (found,) = problems(external=[API | {"ttft_s": -1}], policies=chained)
    assert found == "external[0].ttft_s: must be > 0, got -1"


def test_a_floor_that_no_variant_meets_is_said_with_the_best_there_is(warnings):
    classes = {"coding": {"quality_floor": 0.99}}
    (found,) = warnings(classes=classes)
    assert found.startswith("classes.coding.quality_floor: no pool reaches 0.99: the best, Qwen3-8B fp8, has 0.")


def test_an_endpoint_may_be_the_one_that_meets_it(warnings):
    classes = {"coding": {"quality_floor": 0.9}}
    assert warnings(classes=classes, external=[API | {"quality": {"default": 0.95}}]) == []
    (found,) = warnings(classes=classes, external=[API | {"quality": {"coding": 0.85}}])
    assert found.startswith("classes.coding.quality_floor: no pool reaches 0.9: the best, somebody's at api, has 0.85")
    (unknown,) = warnings(classes={"coding": {"quality_floor": 0.1}}, external=[API])
    assert unknown.endswith("quality of pool api for coding is unknown and counts as 0: add it to external[0].quality")


def test_a_pool_at_zero_that_nothing_would_wake_is_doubtful(warnings):
    asleep = {"autoscale": HPA | {"min_replicas": 0}}
    (found,) = warnings(asleep)
    assert found.startswith(
        "pools[0].autoscale.min_replicas: at 0 replicas nothing wakes the pool: give router a queue"
    )
    assert warnings(asleep, router={"queue": {}}) == []


def test_what_would_never_finish_is_refused(reading, data):
    """Each look at a metric or a pool costs time."""
    changes = [
        ({"router": {"scrape_interval_s": 1e-7}}, "router.scrape_interval_s"),
        ({"router": {"signals": {"waiting": {"interval_s": 1e-7}}}}, "router.signals.waiting.interval_s"),
    ]
    for change, where in changes:
        with pytest.raises(UsageError, match=rf"^{where}: 1e-07 s means 190,000,000 scrapes in 19 s of traffic"):
            build(reading(data | change).scenario)
    data["pools"][0]["autoscale"] = HPA | {"interval_s": 0.1}
    data["traffic"] = data["traffic"] | {"rate_scale": 1e-6}
    with pytest.raises(UsageError, match=r"^pools\[0\].autoscale.interval_s: 0.1 s means 190,000,000 decisions in"):
        build(reading(data).scenario)


def test_no_autoscaler_is_asked_more_often_than_ten_times_a_second(problems):
    (found,) = problems({"autoscale": HPA | {"interval_s": 1e-5}})
    assert found == "pools[0].autoscale.interval_s: must be ≥ 0.1, got 1e-05"


def test_sessions_that_the_traffic_does_not_have_are_noted(reading, data):
    notes = build(reading(data | {"clients": {"wait_in_session": True}}).scenario).notes
    assert any(note.startswith("clients.wait_in_session changes nothing: no request of the traffic") for note in notes)
