"""Whatever goes wrong, nothing is lost: requests, KV blocks and the bill, in exact and in fast mode alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fleet.living import a_pool, live, some
from hypothesis import given, settings
from hypothesis import strategies as st

from simroute.fleet.options import (
    ClientOptions,
    Crashes,
    Failures,
    FleetOptions,
    Outage,
    Retries,
    RouterOptions,
    RouterRestart,
    Scaling,
    Spot,
    Straggler,
)
from simroute.policy.autoscaling import make_autoscaler
from simroute.policy.gateway_queue import GatewayQueue, GatewayQueueOptions

few = st.integers(0, 2)
moments = st.floats(0.0, 15.0)
lengths = st.floats(0.1, 10.0)


@st.composite
def failures(draw: st.DrawFn, places: int) -> Failures:
    """Up to two faults of each kind."""
    return Failures(
        crashes=[Crashes(draw(st.floats(1.0, 20.0)))] * draw(st.integers(0, 1)),
        outages=[Outage(draw(moments), draw(lengths), draw(st.sampled_from([None, "east"]))) for _ in range(draw(few))],
        spot=[Spot("pool", draw(st.floats(2.0, 20.0)), draw(st.floats(0.0, 2.0)), draw(st.floats(0.0, 2.0)))]
        * draw(st.integers(0, 1)),
        stragglers=[
            Straggler(
                draw(moments),
                draw(st.floats(0.1, 10.0)),
                "pool",
                draw(st.integers(0, places - 1)),
                draw(st.floats(0.5, 8.0)),
            )
            for _ in range(draw(few))
        ],
        router=[RouterRestart(draw(moments), draw(st.floats(0.0, 2.0))) for _ in range(draw(st.integers(0, 1)))],
    )


@st.composite
def clients(draw: st.DrawFn) -> ClientOptions:
    """Patient or not, stubborn or not, in an open or a closed loop."""
    loop = draw(st.sampled_from(["open", "users", "sessions"]))
    return ClientOptions(
        timeout_s=draw(st.sampled_from([{}, {"default": 0.5}, {"default": 3.0}])),
        cancel_share=draw(st.sampled_from([0.0, 0.3])),
        cancel_after_s=0.4,
        retries=Retries(most=draw(few), backoff_s=0.3, jitter=0.5),
        users=draw(st.integers(1, 20)) if loop == "users" else None,
        wait_in_session=loop == "sessions",
        think_s=draw(st.sampled_from([0.0, 0.2])),
    )


@st.composite
def fleets(draw: st.DrawFn) -> tuple[FleetOptions, int, int]:
    """Options (with a queue and an autoscaler or without), replicas and places."""
    replicas = draw(st.integers(1, 3))
    places = replicas + draw(st.integers(0, 3))
    scaled = draw(st.booleans())
    limits = {"min_replicas": draw(st.integers(0, 1)), "max_replicas": places, "targets": {"concurrency": 4}}
    options = FleetOptions(
        router=RouterOptions(
            latency_s=draw(st.sampled_from([0.0, 0.05])),
            throughput_rps=draw(st.sampled_from([None, 30.0])),
            on_loss=draw(st.sampled_from(["fail", "retry", "resume"])),
            most_resends=draw(few),
        ),
        queue=draw(st.sampled_from([None, {}, {"max_held": 5, "max_wait_s": 1.0, "order": "fair"}])),
        clients=draw(clients()),
        scaling={"pool": Scaling(limits, draw(st.floats(0.5, 5.0)), draw(st.floats(0.1, 5.0)))} if scaled else {},  # type: ignore[arg-type]
        failures=draw(failures(places)),
    )
    return options, replicas, places


def fresh(options: FleetOptions) -> FleetOptions:
    """The same, with a queue and autoscalers that have seen nothing yet."""
    queue = None if options.queue is None else GatewayQueue(GatewayQueueOptions(**options.queue))  # type: ignore[arg-type]
    scaling = {
        name: replace(each, autoscaler=make_autoscaler("hpa", each.autoscaler))  # type: ignore[arg-type]
        for name, each in options.scaling.items()
    }
    return replace(options, queue=queue, scaling=scaling)


@settings(max_examples=60, deadline=None)
@given(fleet=fleets(), seed=st.integers(0, 1000), tight=st.booleans(), asynchronous=st.booleans())
def test_nothing_is_lost_whatever_happens(fleet, seed, tight, asynchronous):
    options, replicas, places = fleet
    pool = a_pool(replicas, places, num_gpu_blocks=70 if tight else 400, async_scheduling=asynchronous)
    trace = some(80, 15.0, seed, sessions=12)
    # A fleet that may be gone for good (every place lost, nobody to replace it) leaves requests held: hence a horizon.
    fast, exact = (live(trace, [pool], fresh(options), seed=seed, horizon_s=120.0, exact=e) for e in (False, True))
    assert (fast.status == exact.status).all()
    assert (fast.replica == exact.replica).all()
    np.testing.assert_allclose(fast.finish_s, exact.finish_s, rtol=1e-9)
    np.testing.assert_allclose(fast.first_token_s, exact.first_token_s, rtol=1e-9)
    assert [e[1:] for e in fast.events] == [e[1:] for e in exact.events]
    assert [t.output_tokens for t in fast.replicas] == [t.output_tokens for t in exact.replicas]
