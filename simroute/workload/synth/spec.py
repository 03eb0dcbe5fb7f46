"""What a synthetic trace is made of, as frozen pydantic models: streams of arrivals, lengths, sessions, prompts.

Owns the field names and their documentation (docs/traces.md shows a whole file). Imports only pydantic.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]
RequestClass = Literal["chat", "coding", "reasoning", "extraction", "classification"]


class Part(BaseModel):
    """Base of every part: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Poisson(Part):
    """Memoryless arrivals at a constant rate."""

    kind: Literal["poisson"]
    rate_per_s: Positive
    """Arrivals a second, on average."""


class Gamma(Part):
    """Gamma-distributed gaps: `cv` above 1 is burstier than Poisson, below 1 more regular."""

    kind: Literal["gamma"]
    rate_per_s: Positive
    """Arrivals a second, on average."""
    cv: Positive
    """Coefficient of variation of the gaps."""


class Weibull(Part):
    """Weibull-distributed gaps: `shape` below 1 is burstier than Poisson, above 1 more regular."""

    kind: Literal["weibull"]
    rate_per_s: Positive
    """Arrivals a second, on average."""
    shape: Positive
    """Shape of the Weibull distribution."""


class Diurnal(Part):
    """A rate that follows the hour of day as a (sharpened) cosine and the weekday as a factor."""

    kind: Literal["diurnal"]
    peak_per_s: Positive
    """Arrivals a second at the peak hour, before the weekday's factor."""
    trough_per_s: NonNegative
    """Arrivals a second twelve hours later."""
    peak_hour: Annotated[float, Field(ge=0, lt=24)] = 15.0
    """Hour of day of the peak."""
    sharpness: Annotated[float, Field(ge=1)] = 1.0
    """Power of the cosine: 1 is a plain one, more narrows the peak and widens the night."""
    weekday_factors: Annotated[tuple[NonNegative, ...], Field(min_length=7, max_length=7)] | None = None
    """Factor on the rate for Monday to Sunday (left out: 1 every day)."""
    cv: Positive = 1.0
    """Burstiness: coefficient of variation of the gaps, were the rate constant; 1 is a Poisson process."""

    @model_validator(mode="after")
    def _ordered(self) -> Diurnal:
        if self.trough_per_s > self.peak_per_s:
            raise ValueError(f"trough_per_s {self.trough_per_s:g} must not exceed peak_per_s {self.peak_per_s:g}")
        if self.weekday_factors is not None and not any(self.weekday_factors):
            raise ValueError("weekday_factors: at least one day must have a factor above 0")
        return self


Arrivals = Annotated[Poisson | Gamma | Weibull | Diurnal, Field(discriminator="kind")]


class Bounded(Part):
    """A distribution whose draws are moved into [min, max]."""

    min: NonNegative = 0.0
    """Draws below are raised to this."""
    max: Positive | None = None
    """Draws above are lowered to this (left out: no limit)."""

    @model_validator(mode="after")
    def _wide(self) -> Bounded:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max {self.max:g} must not be below min {self.min:g}")
        return self


class Constant(Part):
    """Always the same."""

    kind: Literal["constant"]
    value: Positive
    """The value."""


class Lognormal(Bounded):
    """exp of a normal distribution, given by its median or its mean (of what is drawn before min and max apply)."""

    kind: Literal["lognormal"]
    median: Positive | None = None
    """Median; give this or `mean`."""
    mean: Positive | None = None
    """Mean; give this or `median`."""
    sigma: NonNegative
    """Standard deviation of the logarithm."""

    @model_validator(mode="after")
    def _one_of(self) -> Lognormal:
        if (self.median is None) == (self.mean is None):
            raise ValueError("give either median or mean")
        return self

    @property
    def mu(self) -> float:
        """Mean of the logarithm: ln median, or ln mean - sigma^2 / 2."""
        if self.median is not None:
            return math.log(self.median)
        return math.log(self.mean or 1.0) - self.sigma**2 / 2


class Geometric(Bounded):
    """1, 2, 3, ... with a constant chance to stop after each: turns of a conversation."""

    kind: Literal["geometric"]
    mean: Annotated[float, Field(ge=1)]
    """Mean before min and max apply."""


class Empirical(Part):
    """Values from a list, each as likely as its weight says."""

    kind: Literal["empirical"]
    values: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """The values."""
    weights: tuple[NonNegative, ...] | None = None
    """One weight a value (left out: all alike)."""

    @model_validator(mode="after")
    def _weighted(self) -> Empirical:
        _check_weights(self.weights, len(self.values))
        return self


class Histogram(Part):
    """Values spread evenly inside bins, each bin as likely as its weight says."""

    kind: Literal["histogram"]
    edges: Annotated[tuple[NonNegative, ...], Field(min_length=2)]
    """Rising bounds of the bins, one more than there are bins."""
    weights: tuple[NonNegative, ...]
    """One weight a bin."""

    @model_validator(mode="after")
    def _rising(self) -> Histogram:
        if any(right <= left for left, right in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges must rise")
        _check_weights(self.weights, len(self.edges) - 1)
        return self


def _check_weights(weights: tuple[float, ...] | None, wanted: int) -> None:
    if weights is None:
        return
    if len(weights) != wanted:
        raise ValueError(f"weights: {wanted} needed, got {len(weights)}")
    if not any(weights):
        raise ValueError("weights: at least one must be above 0")


Distribution = Annotated[Constant | Lognormal | Geometric | Empirical | Histogram, Field(discriminator="kind")]


class Sessions(Part):
    """Conversations: each turn's prompt repeats everything said before and adds new text."""

    turns: Distribution
    """Turns of a session, rounded to at least 1."""
    think_time_s: Distribution
    """Seconds between the end of an answer and the next turn."""
    answer_s_per_token: NonNegative = 0.02
    """How long an answer takes, a token: puts the next turn after the answer (a trace knows no server)."""


class SystemPrompts(Part):
    """Prompts that requests of a stream begin with, shared between sessions."""

    count: Count = 1
    """How many there are."""
    tokens: Distribution
    """Length of each. Only whole blocks of `prefix_block_tokens` count as shared: give multiples of it."""
    zipf: NonNegative = 1.0
    """Popularity: the k-th is chosen in proportion to k^-zipf; 0 makes all alike."""


class Stream(Part):
    """Requests of one kind, from one population of users."""

    name: Name
    """Name, unique in the file; each stream has its own random numbers."""
    request_class: RequestClass
    """What is asked for."""
    tenant: Name = "default"
    """Who asks."""
    tier: Name = "default"
    """Tier of the tenant."""
    priority: Annotated[int, Field(strict=True)] = 0
    """vLLM priority; lower is sooner."""
    arrivals: Arrivals
    """Arrivals of sessions (of requests, where there are no sessions)."""
    input_tokens: Distribution
    """New text in each prompt, tokens; the system prompt and the conversation so far come on top."""
    output_tokens: Distribution
    """Answer, tokens."""
    sessions: Sessions | None = None
    """Conversations (left out: every request stands alone)."""
    system_prompts: SystemPrompts | None = None
    """Shared system prompts (left out: none)."""


class MixSpec(Part):
    """A synthetic trace: several streams over one stretch of time."""

    name: Name
    """Name of the trace."""
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    """Seed of every random stream: the same seed gives the same trace."""
    duration_s: Positive
    """Length of the trace; what would arrive later is left out."""
    start_hour: Annotated[float, Field(ge=0, lt=24)] = 0.0
    """Hour of day at the start."""
    start_weekday: Annotated[int, Field(ge=0, le=6, strict=True)] = 0
    """Weekday at the start, 0 for Monday."""
    max_context_tokens: Annotated[int, Field(ge=16, strict=True)] = 8192
    """Longest prompt and answer together: a conversation ends before it would pass this, a first turn is cut to fit."""
    prefix_block_tokens: Annotated[int, Field(ge=16, multiple_of=16, strict=True)] = 128
    """Tokens behind one prefix id: a multiple of an engine's block size of 16."""
    streams: Annotated[tuple[Stream, ...], Field(min_length=1)]
    """The streams."""

    @model_validator(mode="after")
    def _distinct(self) -> MixSpec:
        names = [stream.name for stream in self.streams]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"streams: name '{repeated[0]}' is used more than once")
        return self
