"""Steps of one second and arrivals, horizons and readers on the same grid: both modes order what coincides alike."""

from __future__ import annotations

import numpy as np
import pytest
from fleet.fleets import make_pool

from simroute.fleet.cluster import simulate
from simroute.policy.snapshot import Decision
from simroute.workload.trace import Trace


class Watcher:
    """Replicas in turn; writes down everything it is shown."""

    def __init__(self) -> None:
        self.seen: list[list[tuple[int, int, int, int]]] = []

    def choose(self, request, snapshots):
        self.seen.append(
            [
                (s.in_flight, s.num_requests_running, s.num_requests_waiting, round(s.kv_cache_usage * 1e6))
                for s in snapshots
            ]
        )
        return Decision(request.index % len(snapshots))


def replay_on_grid(seed: int, horizon_s: float | None, *, exact: bool):
    draw = np.random.default_rng(seed)
    n = 25
    trace = Trace.build(
        arrival_s=np.sort(draw.integers(0, 60, n)).astype(float),
        input_tokens=draw.integers(1, 30, n),
        output_tokens=draw.integers(1, 25, n),
        priority=draw.integers(0, 2, n),
    )
    pool = make_pool(
        2,
        num_gpu_blocks=int(draw.integers(20, 60)),
        block_size=4,
        max_num_seqs=8,
        max_num_batched_tokens=int(draw.choice([16, 64])),
        max_model_len=64,
        async_scheduling=bool(draw.integers(0, 2)),
        policy=str(draw.choice(["fcfs", "priority"])),
    )
    watcher = Watcher()
    run = simulate(trace, [pool], watcher, policy_name="watcher", seed=0, exact=exact, horizon_s=horizon_s)
    sums = [(r.steps, r.output_tokens, round(r.busy_s, 9)) for r in run.replicas]
    times = (run.first_token_s.tolist(), run.finish_s.tolist())
    return watcher.seen, sums, run.itl.count, run.preemptions.tolist(), times


@pytest.mark.parametrize("horizon_s", [None, 7.0, 12.0, 33.5])
def test_both_modes_show_and_count_the_same_on_a_grid(horizon_s):
    for seed in range(40):
        exact = replay_on_grid(seed, horizon_s, exact=True)
        fast = replay_on_grid(seed, horizon_s, exact=False)
        assert exact[:-1] == fast[:-1], f"seed {seed}"
        for a, b in zip(exact[-1], fast[-1], strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"seed {seed}")
