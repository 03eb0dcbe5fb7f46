"""What each pool's step times rest on, and where a run left the range they were measured in.

May import hardware's seams and, of results, run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simroute.hardware.calibration import MeasuredRange
from simroute.hardware.steptime import Basis
from simroute.results.run import FleetRun, Status

_REASONS = {
    "decode_seqs": "{got:,} requests decoding at once, measured up to {limit:,}",
    "decode_context_tokens": "{got:,} tokens of context in a batch, measured up to {limit:,}",
    "tokens": "{got:,} tokens in a batch, measured up to {limit:,}",
    "prefill_pairs": "{got:,} pairs of prefill attention in a batch, measured up to {limit:,}",
}


@dataclass(frozen=True, slots=True)
class StepTimes:
    """A pool's step times: their basis, the range they were measured in (None: an estimate), and two engine settings.

    The settings say how large a batch can be and how much context a KV block holds. `output_token_weight` is how many
    prompt tokens an output token is worth in a replica's time: what the bill is shared out by.
    """

    basis: Basis
    measured: MeasuredRange | None
    block_size: int
    max_num_batched_tokens: int
    output_token_weight: float = 1.0


def extrapolated(run: FleetRun, step_times: Mapping[str, StepTimes]) -> dict[str, list[str]]:
    """Why predictions for a pool rest on more than was measured, a sentence each; empty where they do not."""
    return {
        name: [
            _REASONS[what].format(got=got, limit=known.measured and getattr(known.measured, what)[1])
            for what, got in _largest(run, name, known).items()
            if known.measured is not None and known.measured.outside(**{what: got})
        ]
        for name, known in step_times.items()
    }


def _largest(run: FleetRun, pool: str, known: StepTimes) -> dict[str, int]:
    """The largest inputs of a step that the pool saw, by name of the measured range.

    Running requests and KV use are read from the timeline's samples; KV blocks that requests share count once. A
    batch is as large as the longest prompt that was not cached, up to the token budget, and its attention pairs are
    those of that prompt's last chunk.
    """
    members = [totals.replica for totals in run.replicas if totals.pool == pool]
    blocks = np.array([run.replicas[i].num_gpu_blocks for i in members])
    context = run.timeline.kv_usage[:, members] * (blocks * known.block_size)
    served = np.isin(run.replica, members) & (run.status != Status.REJECTED)
    prompts = run.trace.input_tokens[served]
    uncached = prompts - run.cached_tokens[served]
    chunk = np.minimum(uncached, known.max_num_batched_tokens)
    pairs = chunk * (prompts - chunk) + chunk * (chunk + 1) // 2
    return {
        "decode_seqs": int(run.timeline.running[:, members].max(initial=0)),
        "decode_context_tokens": int(context.max(initial=0)),
        "tokens": int(chunk.max(initial=0)),
        "prefill_pairs": int(pairs.max(initial=0)),
    }
