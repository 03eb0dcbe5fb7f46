"""What a busy replica's output tokens cost at one fixed load: how variants are ranked by efficiency.

Imports only errors, units and this room's memory and steptime.
"""

from __future__ import annotations

from simroute.errors import UsageError
from simroute.hardware.memory import KvCapacity
from simroute.hardware.steptime import Batch, StepTimeModel
from simroute.units import SECONDS_PER_HOUR

REFERENCE_INPUT_TOKENS = 1024
REFERENCE_OUTPUT_TOKENS = 256
_MILLION = 1e6


def reference_tokens_per_s(
    step_time: StepTimeModel,
    capacity: KvCapacity,
    *,
    max_num_seqs: int,
    input_tokens: int = REFERENCE_INPUT_TOKENS,
    output_tokens: int = REFERENCE_OUTPUT_TOKENS,
) -> float:
    """Output tokens a second of a replica that always runs as many requests as its KV memory and limits allow.

    In the time a request decodes `output_tokens` steps, every running request is replaced once, so one cycle is
    `output_tokens` decode steps at the mean context plus one prefill a sequence on top of a decoding batch.
    Raises UsageError when not even one request fits.
    """
    fitting = capacity.usable_tokens // (input_tokens + output_tokens)
    seqs = min(max_num_seqs, fitting)
    if seqs < 1:
        raise UsageError(
            f"the reference load of {input_tokens} input and {output_tokens} output tokens does not fit in a KV cache "
            f"of {capacity.usable_tokens} tokens: give the replica more KV memory or a smaller load"
        )
    context = seqs * (input_tokens + output_tokens // 2)
    intercept_s, slope_s = step_time.decode_line(seqs)
    decode_s = intercept_s + slope_s * context
    pairs = input_tokens * (input_tokens + 1) // 2
    mixed_s = step_time.duration_s(Batch(1, input_tokens, pairs, seqs, context, seqs + 1))
    cycle_s = output_tokens * decode_s + seqs * (mixed_s - decode_s)
    return seqs * output_tokens / cycle_s


def reference_cost(
    step_time: StepTimeModel,
    capacity: KvCapacity,
    usd_per_hour: float,
    *,
    max_num_seqs: int,
    input_tokens: int = REFERENCE_INPUT_TOKENS,
    output_tokens: int = REFERENCE_OUTPUT_TOKENS,
) -> float:
    """USD per million output tokens of such a replica, all of whose GPUs together cost `usd_per_hour`."""
    rate = reference_tokens_per_s(
        step_time, capacity, max_num_seqs=max_num_seqs, input_tokens=input_tokens, output_tokens=output_tokens
    )
    return usd_per_hour / SECONDS_PER_HOUR / rate * _MILLION
