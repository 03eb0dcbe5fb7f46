"""A fleet's life from the scenario file to the summary: each section arrives and shows in the numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

import simroute
from simroute.engine.sequence import EngineRequest
from simroute.fleet import options as fleet
from simroute.fleet.pool import External
from simroute.fleet.scrape import Signal
from simroute.results.run import Status
from simroute.scenario.build import build
from simroute.scenario.loader import load
from simroute.scenario.run import PolicyResult, run

WHOLE = """
name: all of it
traffic:
  traces: [{path: trace.csv}]
classes:
  default: {slo: {ttft_s: 1.0, tpot_s: 0.05}}
pools:
  - name: own
    model: Qwen3-8B
    quantization: fp8
    gpu: L40S
    replicas: 2
    zones: [east, west]
    startup: {node_s: 2.0, image_s: 1.0, weights_gb_per_s: 4.0, engine_s: 0.5}
    autoscale:
      min_replicas: 1
      max_replicas: 4
      interval_s: 2.0
      drain_s: 7.0
      options: {targets: {concurrency: 1}}
  - {name: spot, model: Qwen3-8B, quantization: fp8, gpu: L40S, startup: {weights_s: 3.0}}
external:
  - name: api
    model: somebody's
    usd_per_1m_input_tokens: 0.5
    usd_per_1m_output_tokens: 1.5
    ttft_s: 0.4
    tpot_s: 0.02
    spread: 0.3
    requests_per_minute: 600
    max_model_len: 32000
    quality: {default: 0.9}
router:
  scrape_interval_s: 5.0
  scrape_delay_s: 0.1
  scrape_jitter_s: 0.2
  scrape_loss: 0.05
  signals:
    waiting: {interval_s: 1.0, delay_s: 0.01, jitter_s: 0.02, loss: 0.5}
    kv_cache_usage: {}
  latency_s: 0.003
  throughput_rps: 500
  kv_event_delay_s: 0.25
  on_loss: resume
  most_resends: 2
  admission:
    - always
    - {name: token_bucket, options: {rate_per_s: 100, burst: 100}}
    - deadline
  queue: {order: priority_fair, max_wait_s: 30, weights: {acme: 2}}
clients:
  timeout_s: {default: 60, chat: 20}
  retries: {most: 2, backoff_s: 0.5, factor: 3, longest_s: 9, jitter: 0.2, on: [failed, timeout]}
  cancel: {share: 0.1, mean_after_s: 5}
  wait_in_session: true
  think_s: 4.0
  tools: [coding]
  tool_s: 1.5
failures:
  crashes: [{mtbf_s: 3600}, {mtbf_s: 600, pool: spot}]
  outages: [{at_s: 4, duration_s: 3, zone: west, replicas: 1}]
  spot: [{pool: spot, mean_life_s: 1800, notice_s: 30, gap_s: 5}]
  stragglers: [{at_s: 5, duration_s: 2, pool: own, replica: 1, factor: 3}]
  router: [{at_s: 6, down_s: 0.5}]
policies: [least_requests, {name: spillover, options: {to: api}}]
"""


@pytest.fixture
def whole(tmp_path, data):
    """The scenario above; `data` has written its trace."""
    (tmp_path / "whole.yaml").write_text(WHOLE)
    return load(tmp_path / "whole.yaml")


def test_everything_that_is_said_reaches_the_fleet(whole):
    built = build(whole)
    found = built.options(whole.policies[0], 0, built.members())
    assert found.signals == {
        "running": Signal(5.0, 0.1, 0.2, 0.05),
        "waiting": Signal(1.0, 0.01, 0.02, 0.5),
        "kv_cache_usage": Signal(),
    }
    assert found.router == fleet.RouterOptions(0.003, 500, 0.25, "resume", 2)
    assert found.clients == fleet.ClientOptions(
        timeout_s={"default": 60, "chat": 20},
        cancel_share=0.1,
        cancel_after_s=5,
        retries=fleet.Retries(2, 0.5, 3, 9, 0.2, frozenset({"failed", "timeout"})),
        wait_in_session=True,
        think_s=4.0,
        tools=frozenset({"coding"}),
        tool_s=1.5,
    )
    assert found.failures == fleet.Failures(
        crashes=(fleet.Crashes(3600, None), fleet.Crashes(600, "spot")),
        outages=(fleet.Outage(4, 3, "west", None, 1),),
        spot=(fleet.Spot("spot", 1800, 30, 5),),
        stragglers=(fleet.Straggler(5, 2, "own", 1, 3),),
        router=(fleet.RouterRestart(6, 0.5),),
    )
    assert [type(rule).__name__ for rule in found.admission] == ["Always", "TokenBucket", "Deadline"]
    assert found.queue is not None
    assert found.queue.push(EngineRequest(0, 1.0, 5, 5), 1.0) is None
    assert found.queue.next_expiry_s == 31.0
    assert list(found.scaling) == ["own"]
    assert (found.scaling["own"].interval_s, found.scaling["own"].drain_s) == (2.0, 7.0)
    assert found.remake is not None
    assert type(found.remake()).__name__ == "LeastRequests"


def test_pools_have_places_zones_and_starts(whole):
    built = build(whole)
    own, spot, api = built.fleet
    assert (own.replicas, own.places, own.zones) == (2, 4, ("east", "west"))
    assert (spot.replicas, spot.places, spot.zones) == (1, 1, ("zone-a",))
    weights_gb = built.variants[0].capacity.weight_bytes / 1e9
    assert 8.0 < weights_gb < 10.0
    assert own.startup.weights_s == pytest.approx(weights_gb / 4.0)
    assert (own.startup.node_s, own.startup.image_s, own.startup.engine_s) == (2.0, 1.0, 0.5)
    assert (spot.startup.weights_s, spot.startup.cold_s) == (3.0, 180.0 + 60.0 + 3.0 + 60.0)
    assert api.external == External(0.5, 1.5, 0.4, 0.02, 0.3, 600)
    assert (api.places, api.gpus_per_replica, api.engine.max_model_len) == (1, 0, 32000)
    assert api.variant.external
    assert api.variant.quality == dict.fromkeys(("coding", "chat", "default"), (0.9, 0.9, 0.9))
    assert [built.members()[r] for r in range(6)] == [True, True, False, False, True, True]


def test_fresh_rules_for_every_replay(whole):
    built = build(whole)
    one, other = (built.options(whole.policies[0], 0, built.members()) for _ in range(2))
    assert one.queue is not other.queue
    assert one.admission[1] is not other.admission[1]
    assert one.scaling["own"].autoscaler is not other.scaling["own"].autoscaler


def test_all_of_it_runs_and_repeats_itself(whole):
    one, other = (json.dumps(run(whole, jobs=jobs).summary()) for jobs in (1, 2))
    assert one == other
    exact = run(whole, jobs=1, exact=True).summary()["policies"]
    fast = json.loads(one)["policies"]
    for label, summary in fast.items():
        assert exact[label]["requests"] == summary["requests"]
        assert sum(list(summary["requests"].values())[1:]) == summary["requests"]["arrived"] == 20
        assert exact[label]["fleet"] == summary["fleet"]


# -- each part, by what it does to the numbers -------------------------------------------------------------------------


@pytest.fixture
def result(reading, data):
    """`result(pool={...}, router={...})`: what the scenario with these changes gives under its first policy."""

    def found(pool=None, **changes) -> PolicyResult:
        data["pools"][0] |= pool or {}
        return run(reading(data | changes).scenario, jobs=1).results[0]

    return found


def test_the_router_s_latency_is_in_every_ttft(result):
    plain, slow = result(), result(router={"latency_s": 0.25})
    np.testing.assert_allclose(slow.fleet.first_token_s, plain.fleet.first_token_s + 0.25, atol=0.05)
    assert slow.summary["ttft_s"]["mean"] > plain.summary["ttft_s"]["mean"] + 0.2


def test_admission_refuses_by_name(result):
    """Two at first and then one in five seconds: of twenty, one a second, five get in."""
    bucket = {"name": "token_bucket", "options": {"rate_per_s": 0.2, "burst": 2}}
    found = result(router={"admission": [bucket]}).summary
    assert found["requests"]["rejected"] == found["reject_reasons"]["over the rate limit"] == 15
    assert found["attempts"] == 5


def test_the_queue_holds_what_one_seat_cannot_take(result):
    found = result({"engine": {"max_num_seqs": 1}}, router={"queue": {}}, traffic=traffic(100)).summary
    assert found["fleet"]["most_held"] > 10
    assert found["requests"]["completed"] == 20


def traffic(rate_scale: float) -> dict:
    return {"traces": [{"path": "trace.csv"}], "rate_scale": rate_scale}


def test_users_send_one_after_another(result):
    fleet_run = result(clients={"users": 1}, traffic=traffic(100)).fleet
    assert (fleet_run.sent_s[1:] >= fleet_run.finish_s[:-1]).all()
    assert fleet_run.sent_s[0] == 0.0


def test_impatience_shows_in_the_summary(result):
    found = result(clients={"timeout_s": 0.01, "retries": {"most": 2, "backoff_s": 0.1}}).summary
    assert found["cancel_reasons"] == {"its client timed out": 20}
    assert found["attempts"] == 60
    assert found["slo_attainment"] == 0.0


def test_sessions_wait(result, tmp_path):
    rows = "".join(f"{i},100,200,{i % 2}\n" for i in range(10))
    (tmp_path / "sessions.csv").write_text("arrival_s,input_tokens,output_tokens,session\n" + rows)
    fleet_run = result(
        clients={"wait_in_session": True}, traffic={"traces": [{"path": "sessions.csv"}], "rate_scale": 50}
    ).fleet
    assert (fleet_run.sent_s[2:] >= fleet_run.finish_s[:-2] - 1e-9).all()


def test_a_pool_that_grows_pays_for_what_it_orders(result):
    """Twenty at once: three more are ordered at 0.1 s, up 1.2 s later."""
    pool = {
        "engine": {"max_num_seqs": 2},
        "startup": {"node_s": 0.5, "image_s": 0.25, "weights_s": 0.25, "engine_s": 0.25},
        "autoscale": {"max_replicas": 4, "interval_s": 0.125, "options": {"targets": {"concurrency": 2}}},
    }
    found = result(pool, traffic=traffic(1000))
    assert found.fleet.events[:4] == ((0.0, 0, "ready"), *((0.125, place, "order") for place in (1, 2, 3)))
    assert found.fleet.events[4] == (1.375, 1, "ready")
    assert found.summary["fleet"]["starts"] == 4
    billed_s = found.fleet.end_s + 3 * (found.fleet.end_s - 0.125)
    assert found.summary["gpus"] == pytest.approx(billed_s / found.fleet.end_s)
    usd_per_hour = found.fleet.replicas[0].usd_per_hour
    expected = usd_per_hour * billed_s / 3600 / (found.fleet.end_s / 3600) * 730
    assert found.summary["cost_usd_per_month"] == pytest.approx(expected)


def test_a_zone_that_is_lost_takes_its_replicas_with_it(result):
    pool = {"replicas": 2, "zones": ["east", "west"]}
    outage = {"at_s": 5.01, "duration_s": 3, "zone": "east"}
    found = result(pool, failures={"outages": [outage]}, router={"on_loss": "fail"}).summary
    assert found["failure_reasons"] == {"its machine was lost": 1}
    assert (found["fleet"]["crashes"], found["requests"]["failed"]) == (1, 1)


def test_what_finds_no_room_is_paid_by_the_token(result):
    api = {
        "name": "api",
        "model": "somebody's",
        "usd_per_1m_input_tokens": 0.5,
        "usd_per_1m_output_tokens": 1.5,
        "ttft_s": 0.4,
        "tpot_s": 0.02,
    }
    found = result({"engine": {"max_num_seqs": 1}}, external=[api], policies=["spillover"], traffic=traffic(100))
    outside = found.fleet.replica == 1
    assert 10 < outside.sum() < 20
    tokens = found.fleet.trace.input_tokens[outside].sum() * 0.5 + found.fleet.trace.output_tokens[outside].sum() * 1.5
    assert found.summary["fleet"]["token_usd"] == pytest.approx(tokens * 1e-6)
    assert found.summary["by_pool"]["api"]["output_tokens"] == found.fleet.trace.output_tokens[outside].sum()
    np.testing.assert_allclose((found.fleet.first_token_s - found.fleet.arrival_s)[outside], 0.4)


def test_a_cascade_to_an_endpoint(result):
    api = {
        "name": "api",
        "model": "somebody's",
        "usd_per_1m_input_tokens": 5.0,
        "usd_per_1m_output_tokens": 15.0,
        "ttft_s": 0.4,
        "tpot_s": 0.02,
    }
    policy = {"name": "cascade", "options": {"chain": ["only", "api"], "accept_rate": {"default": 0.0}}}
    found = result(external=[api], policies=[policy])
    assert found.summary["attempts"] == 40
    assert (found.fleet.first_token_s == found.fleet.finish_s).all()
    assert found.summary["by_pool"]["api"]["requests_share"] == 1.0


def test_a_crash_is_survived_by_what_is_sent_again(result):
    found = result(
        {"replicas": 2, "startup": {"weights_s": 0.5, "engine_s": 0.5}},
        failures={"crashes": [{"mtbf_s": 4}]},
        router={"on_loss": "resume", "queue": {}},
        traffic=traffic(2),
    )
    assert found.summary["fleet"]["crashes"] > 2
    assert found.summary["requests"]["completed"] == 20


def test_a_horizon_before_the_last_answer_counts_what_was_left(result):
    found = result(clients={"users": 1}, horizon_s=3.0)
    left = found.fleet.status == Status.UNFINISHED
    assert found.summary["requests"]["unfinished"] == 1
    assert left.sum() > 1, "the others were never sent"


def test_the_public_compare_takes_a_living_fleet(reading, data):
    """Paired on the same crashes: seeds change the luck, policies do not."""
    data["pools"][0] |= {"replicas": 2}
    data |= {"failures": {"crashes": [{"mtbf_s": 10}]}, "policies": ["round_robin", "least_requests"]}
    outcome = simroute.compare(reading(data).scenario, seeds=3, jobs=1)
    assert outcome
