"""A calibration: what was fitted to measurements of one (model, scheme, GPU, TP), where it holds, how wrong it may be.

Owns the models, whose field names carry the units of the file; `calibration_file` reads and writes them, `fitted`
turns them into step times. Imports only pydantic and numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Percent = Annotated[int, Field(ge=0, le=100)]
Span = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
"""Least and largest value measured, both included."""


class Part(BaseModel):
    """Base of every part of a calibration: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class StepTerms(Part):
    """What one step costs, term by term; none is negative.

        duration = launch + gemm(tokens) + prefill_seq * prefill_seqs + decode_seq * decode_seqs
                 + prefill_pair * prefill_pairs + decode_context_token * decode_context_tokens
                 + sampled_seq * sampled_seqs

    The inputs are those of `steptime.Batch`; tokens = prefill_tokens + decode_seqs.
    """

    launch_ms: NonNegative
    """What a step costs however small it is: launch, and the CPU time between steps that nothing hides."""
    gemm_ms: Annotated[dict[Count, NonNegative], Field(min_length=1)]
    """Tokens in the batch to ms: monotone, linear between these knots, constant below the first, and beyond the last
    with the slope of the last piece."""
    prefill_seq_us: NonNegative = 0.0
    """A request that computes part of its prompt, whatever the length of that part."""
    decode_seq_us: NonNegative = 0.0
    """A request that decodes one token, whatever its context."""
    prefill_pair_ns: NonNegative = 0.0
    """One (query, key) pair of prefill attention."""
    decode_context_token_ns: NonNegative = 0.0
    """One token of context that decode attention reads."""
    sampled_seq_us: NonNegative = 0.0
    """A request for which a token is sampled."""
    graph_sizes: tuple[Count, ...] = ()
    """CUDA-graph sizes: a batch that only decodes costs the GEMMs of the next of them (empty: of its own size)."""

    @field_validator("gemm_ms")
    @classmethod
    def _monotone(cls, gemm_ms: dict[int, float]) -> dict[int, float]:
        knots = dict(sorted(gemm_ms.items()))
        for (left, low), (right, high) in pairwise(knots.items()):
            if high < low:
                raise ValueError(f"must not fall with the tokens, but {left}: {low:g} is above {right}: {high:g}")
        return knots

    @field_validator("graph_sizes")
    @classmethod
    def _rising(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if any(right <= left for left, right in pairwise(sizes)):
            raise ValueError("must rise from one size to the next")
        return sizes

    def values(self) -> dict[str, float]:
        """Every fitted number under the name that `Covariance` has for it, in the units of its field."""
        knots = {gemm_name(tokens): value for tokens, value in self.gemm_ms.items()}
        return {"launch_ms": self.launch_ms} | knots | {name: getattr(self, name) for name in SLOPES}

    def with_values(self, values: Mapping[str, float]) -> StepTerms:
        """These terms with other numbers, raised to 0 and to monotone GEMMs where they break the rules."""
        gemm = np.maximum.accumulate([max(values[gemm_name(tokens)], 0.0) for tokens in self.gemm_ms])
        numbers = {name: max(values[name], 0.0) for name in ("launch_ms", *SLOPES)}
        return self.model_copy(update=numbers | {"gemm_ms": dict(zip(self.gemm_ms, gemm.tolist(), strict=True))})


SLOPES = ("prefill_seq_us", "decode_seq_us", "prefill_pair_ns", "decode_context_token_ns", "sampled_seq_us")
"""The fields of `StepTerms` that multiply an input of the batch."""


def gemm_name(tokens: int) -> str:
    """The name of a GEMM knot among a calibration's parameters, such as `gemm_ms[16]`."""
    return f"gemm_ms[{tokens}]"


class RequestTerms(Part):
    """What a client sees on top of the engine: HTTP, tokenizing and detokenizing; added to TTFT and to E2E."""

    overhead_ms: NonNegative = 0.0
    """For every request."""
    per_input_token_us: NonNegative = 0.0
    """For every token of the prompt."""
    overhead_error_ms: NonNegative | None = None
    """Standard error of `overhead_ms`; left out: not known, and taken as 0."""
    per_input_token_error_us: NonNegative | None = None
    """Standard error of `per_input_token_us`; left out: not known, and taken as 0."""
    error_correlation: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Correlation of the two errors (left out: 0)."""

    @property
    def token_s(self) -> float:
        """Seconds for every token of the prompt."""
        return self.per_input_token_us * 1e-6

    def overhead_s(self, input_tokens: int) -> float:
        """Seconds that a request of `input_tokens` waits outside the engine before its first token."""
        return self.overhead_ms * 1e-3 + self.token_s * input_tokens

    def drawn(self, rng: np.random.Generator) -> RequestTerms:
        """Terms that the measurements allow: both errors drawn together, normal, as far as neither falls below 0."""
        first, second = rng.standard_normal(2).tolist()
        together = self.error_correlation or 0.0
        errors = (
            (self.overhead_error_ms or 0.0) * first,
            (self.per_input_token_error_us or 0.0) * (together * first + (1.0 - together**2) ** 0.5 * second),
        )
        values = (self.overhead_ms, self.per_input_token_us)
        within = min([1.0, *(value / -error for value, error in zip(values, errors, strict=True) if value < -error)])
        overhead_ms, token_us = (value + within * error for value, error in zip(values, errors, strict=True))
        return self.model_copy(update={"overhead_ms": max(overhead_ms, 0.0), "per_input_token_us": max(token_us, 0.0)})


class MeasuredRange(Part):
    """What the measured steps covered, [least, largest] both included; beyond it a prediction is extrapolated."""

    tokens: Span
    """Tokens in a batch."""
    decode_seqs: Span
    """Decoding requests in a batch."""
    decode_context_tokens: Span
    """Summed context of the decoding requests of a batch."""
    prefill_pairs: Span
    """(Query, key) pairs of prefill attention in a batch."""

    def outside(self, **largest: float) -> tuple[str, ...]:
        """Names of those inputs whose `largest` value is beyond what was measured, such as `tokens=8192`."""
        return tuple(name for name, value in largest.items() if value > getattr(self, name)[1])


class FitError(Part):
    """Relative errors of a step, on steps the fit did not see (k-fold)."""

    median: NonNegative
    """Median of |predicted / measured - 1|."""
    p90: NonNegative
    """90th percentile of the same."""
    bias_sd: NonNegative
    """Relative standard deviation of the error that a whole run has in common: what intervals rest on."""
    percentiles: dict[Percent, float] | None = None
    """Distribution of predicted / measured - 1: percentile to its value."""


class Covariance(Part):
    """How far the fitted numbers may be off, together, each relative to its value."""

    parameters: tuple[str, ...]
    """Names as in the fields of `step`; GEMM knots as `gemm_ms[16]`."""
    relative: tuple[tuple[float, ...], ...]
    """Covariance of value / fitted value, one row a parameter."""

    @model_validator(mode="after")
    def _square(self) -> Covariance:
        rows = len(self.parameters)
        if len(self.relative) != rows or any(len(row) != rows for row in self.relative):
            raise ValueError(f"relative must be a square of {rows} rows, one for each parameter")
        return self


class Memory(Part):
    """The KV cache that the measured engine reported, and the settings under which it did."""

    num_gpu_blocks: Annotated[int, Field(ge=2)]
    block_size: Count
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)]
    max_model_len: Count
    max_num_batched_tokens: Count
    max_num_seqs: Count | None = None


class Provenance(Part):
    """One thing the calibration rests on."""

    what: str
    """What it is: a run directory, a table of kernels, a published figure."""
    source: str
    """Where it is from."""
    rows: int | None = None
    """Rows of it that were used."""
    sha256: str | None = None
    """Fingerprint of the file."""
    retrieved: str | None = None
    """Day on which it was read or measured."""


class Calibration(Part):
    """Step time, request overhead and memory of one replica, with range, error and provenance."""

    model: str
    """Name of the model, as in the catalogue where it is there."""
    scheme: str
    """Quantization scheme of the catalogue."""
    gpu: str
    """GPU of the catalogue, or the processor that it was measured on."""
    tensor_parallel: Count = 1
    """GPUs that the replica is split over."""
    kv_cache_dtype: str = "auto"
    """Type of the KV cache, in vLLM's names."""
    vllm: str
    """Version of vLLM that was measured, or whose kernels the tables time."""
    async_scheduling: bool = True
    """Whether vLLM scheduled the next step while one was running."""
    basis: Literal["measured", "composed", "proxy"]
    """measured: steps of a real vLLM | composed: kernel tables added up | proxy: some kernels borrowed from another
    framework's ratios."""
    step: StepTerms
    """What a step costs."""
    request: RequestTerms = RequestTerms()
    """What a request costs on top."""
    memory: Memory | None = None
    """The KV cache, where an engine reported it."""
    range: MeasuredRange
    """Where it was measured."""
    error: FitError
    """How wrong it was on steps it had not seen."""
    covariance: Covariance | None = None
    """How far its numbers may be off."""
    provenance: tuple[Provenance, ...] = ()
    """What it rests on."""
    notes: tuple[str, ...] = ()
    """What a reader must know."""

    @model_validator(mode="after")
    def _known_parameters(self) -> Calibration:
        if self.covariance is not None:
            stray = set(self.covariance.parameters) - self.step.values().keys()
            if stray:
                raise ValueError(f"covariance.parameters: not among the terms of step: {', '.join(sorted(stray))}")
        return self

    def drawn(self, rng: np.random.Generator) -> Calibration:
        """One calibration that the measurements allow: step terms from their covariance, all times one factor, and what
        a request costs outside the engine within its error.

        The factor, exp(N(0, bias_sd)), is the error that a whole run shares. A draw that goes below 0 is taken as far
        as 0, all terms of a step alike: what one term gives, another takes, so a term that is cut off by itself would
        leave the others too large. GEMMs stay monotone.
        """
        values = self.step.values()
        if self.covariance is not None:
            names = self.covariance.parameters
            relative = np.asarray(self.covariance.relative)
            errors = rng.multivariate_normal(np.zeros(len(names)), relative, check_valid="ignore", method="eigh")
            errors /= max(1.0, -float(errors.min()))
            values |= {name: values[name] * (1 + error) for name, error in zip(names, errors.tolist(), strict=True)}
        factor = float(np.exp(rng.normal(0.0, self.error.bias_sd)))
        step = self.step.with_values({name: value * factor for name, value in values.items()})
        return self.model_copy(update={"step": step, "request": self.request.drawn(rng)})
