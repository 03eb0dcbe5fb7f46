"""What a scenario file may say, as frozen pydantic models: shape, types, ranges and defaults of every field.

Owns the field names and their documentation (`simroute schema` prints them for editors). What needs the catalogue
or another field (does the model fit, is the policy known) is in `check`. Imports pydantic, `parts` and `fleet_models`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from simroute.scenario.fleet_models import (
    AutoscaleSpec,
    ClientsSpec,
    ExternalSpec,
    FailuresSpec,
    RouterSpec,
    StartupSpec,
)
from simroute.scenario.parts import Count, Name, NonNegative, Part, Positive, Rate, Share, Switch, Whole

NO_CALIBRATION = "none"
"""Said in the place of a calibration's path: use the estimate."""
KvCacheDtype = Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"]


class TraceSource(Part):
    """One trace file, and how its requests are tagged when several are merged."""

    path: Name
    """The trace file; a relative path starts at the scenario file."""
    format: Name | None = None
    """Reader to use; left out, the file's content decides."""
    request_class: Name | None = None
    """Class given to every request of this file (left out: the file's own)."""
    tier: Name | None = None
    """Tier given to every request of this file (left out: the file's own)."""
    tenant: Name | None = None
    """Tenant given to every request of this file (left out: the file's own)."""
    priority: Annotated[int, Field(strict=True)] | None = None
    """vLLM priority given to every request of this file; lower is sooner."""
    rate_scale: Rate = 1.0
    """Multiplies this file's arrival rate: 2 replays it in half the time."""
    head: Count | None = None
    """Keep only the first so many requests."""
    window_s: tuple[NonNegative, Positive] | None = None
    """Keep only arrivals between [from, to) seconds of the file, before `rate_scale`; the window starts at 0."""
    seed: Whole = 0
    """Seed of the requests of a file that holds rates and distributions in place of them (servegen)."""


class Traffic(Part):
    """What arrives: one or several traces, merged by arrival time."""

    traces: Annotated[tuple[TraceSource, ...], Field(min_length=1)]
    """The trace files."""
    rate_scale: Rate = 1.0
    """Multiplies the arrival rate of the merged traffic."""


class SloSpec(Part):
    """Latency targets; a request meets its SLO when it completes within every target given."""

    ttft_s: Positive | None = None
    """Time to first token, seconds."""
    tpot_s: Positive | None = None
    """Mean time per output token after the first, seconds."""
    e2e_s: Positive | None = None
    """End-to-end latency, seconds."""


class ClassSpec(Part):
    """What one request class asks for."""

    slo: SloSpec | None = None
    """Latency targets (left out: those of `default`)."""
    quality_floor: Share | None = None
    """Least mean quality (0..1) of a variant that may serve this class (left out: that of `default`)."""


class PriceSpec(Part):
    """What a GPU costs: a price of the catalogue, or your own."""

    provider: Name | None = None
    """Provider in the price catalogue (left out: the catalogue's first row of the GPU)."""
    term: Name = "on_demand"
    """Price term in the catalogue."""
    usd_per_gpu_hour: NonNegative | None = None
    """Your own price; then provider and term are not looked up."""

    @model_validator(mode="after")
    def _one_of(self) -> PriceSpec:
        if self.provider is not None and self.usd_per_gpu_hour is not None:
            raise ValueError("give provider and term, or usd_per_gpu_hour, not both")
        return self


class EngineSpec(Part):
    """Settings of every replica's engine, in vLLM's own names; what is left out is vLLM's default for the GPU."""

    max_num_seqs: Count | None = None
    """Most requests running at once (vLLM's default for the GPU)."""
    max_num_active_seqs: Count | None = None
    """Most requests running at once, in place of `max_num_seqs` (left out: `max_num_seqs`)."""
    max_num_batched_tokens: Count | None = None
    """Token budget of one step (vLLM's default for the GPU)."""
    max_model_len: Count | None = None
    """Longest prompt plus answer, tokens (the model's context, or less where the KV cache is smaller)."""
    block_size: Count = 16
    """Tokens in a KV block."""
    enable_prefix_caching: Switch = True
    """Reuse the KV blocks of equal prefixes."""
    enable_chunked_prefill: Switch = True
    """Split long prompts over steps."""
    policy: Literal["fcfs", "priority"] = "fcfs"
    """Order of the waiting queue."""
    async_scheduling: Switch = True
    """Schedule step k+1 before the output of step k is known."""
    long_prefill_token_threshold: Whole = 0
    """Largest chunk of a prompt in one step; 0 for no limit."""
    long_prefill_token_threshold_adaptive: Switch = False
    """While several requests are in the engine, let a chunk be at least an even share of the token budget."""
    scheduler_reserve_full_isl: Switch = True
    """Admit a request only when its whole prompt would fit in the free KV blocks."""
    watermark: Share = 0.0
    """Share of KV blocks kept free at admission."""


class PoolSpec(Part):
    """Identical replicas of one variant: a model, quantized in one way, on one kind of GPU."""

    name: Name
    """Name of the pool, unique in the scenario."""
    model: Name
    """Model of the catalogue, or the path of a Hugging Face config.json."""
    quantization: Name = "bf16"
    """Quantization scheme of the catalogue."""
    gpu: Name
    """GPU of the catalogue."""
    tensor_parallel: Count = 1
    """GPUs a replica is split over."""
    replicas: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 1
    """Replicas in the pool."""
    num_gpu_blocks: Annotated[int, Field(ge=2, strict=True)] | None = None
    """KV blocks as vLLM reported them; measured wins over the formula."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.92
    """Share of GPU memory the engine may use."""
    kv_cache_dtype: KvCacheDtype | None = None
    """Type of the KV cache, in vLLM's names; auto is 16-bit (left out: the scheme's own)."""
    calibration: Name | None = None
    """Calibration file that gives the step times, relative to the scenario file; `none` for the estimate (left out:
    the one that `calibrations` holds for this pool, else the estimate)."""
    price: PriceSpec = PriceSpec()
    """Price of the pool's GPUs."""
    engine: EngineSpec = EngineSpec()
    """Engine settings."""
    zones: Annotated[tuple[Name, ...], Field(min_length=1)] = ("zone-a",)
    """Zones that its replicas are spread over, in turn."""
    startup: StartupSpec = StartupSpec()
    """How long a replica takes that is started during the run."""
    autoscale: AutoscaleSpec | None = None
    """Who decides how many replicas there are (left out: nobody, `replicas` stay)."""

    @model_validator(mode="after")
    def _within_limits(self) -> PoolSpec:
        scale = self.autoscale
        if scale is not None and not scale.min_replicas <= self.replicas <= scale.max_replicas:
            raise ValueError(
                f"replicas {self.replicas} must be within autoscale's {scale.min_replicas} to {scale.max_replicas}"
            )
        return self


class PolicySpec(Part):
    """One routing policy to replay the traffic under; a bare name stands for a policy without options."""

    name: Name
    """Policy name."""
    label: Name | None = None
    """Name in the results, to compare one policy under several options (left out: the policy's name)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the policy."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def shown(self) -> str:
        """The name in the results."""
        return self.label or self.name


class QualityAssumption(Part):
    """A quality that no published evaluation gives: stated here, shown in the report."""

    model: Name
    """Model it is about."""
    quantization: Name
    """Quantization scheme it is about."""
    request_class: Name
    """Request class it is about."""
    mean: Share
    """Expected quality, 0..1."""
    low: Share | None = None
    """Lower end of the plausible range (left out: the mean)."""
    high: Share | None = None
    """Upper end of the plausible range (left out: the mean)."""
    note: Name
    """Why this number."""

    @model_validator(mode="after")
    def _ordered(self) -> QualityAssumption:
        check_order(
            self.mean if self.low is None else self.low, self.mean, self.mean if self.high is None else self.high
        )
        return self


def check_order(low: float, mean: float, high: float) -> None:
    """Raises ValueError, as pydantic's validators do, unless low ≤ mean ≤ high."""
    if not low <= mean <= high:
        raise ValueError(f"low ≤ mean ≤ high must hold, got {low:g}, {mean:g}, {high:g}")


class QualitySpec(Part):
    """What is known of answer quality beyond published evaluations; a bare list stands for `assumed`."""

    matrix: Name | None = None
    """Capability matrix (.json) or table of accuracies (.csv); a relative path starts at the scenario file."""
    assumed: tuple[QualityAssumption, ...] = ()
    """Assumptions where nothing was measured or published."""

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: Any) -> Any:
        return {"assumed": value} if isinstance(value, list | tuple) else value


class Scenario(Part):
    """A question to simroute: this traffic, on these pools, under each of these policies."""

    name: Name
    """Name of the scenario, shown on every report."""
    description: str = ""
    """What the scenario is about."""
    seed: Whole = 0
    """Seed of every random stream: the same seed gives the same results."""
    traffic: Traffic
    """What arrives."""
    classes: dict[str, ClassSpec] = Field(default_factory=dict)
    """Targets by request class; `default` holds for classes not named."""
    pools: Annotated[tuple[PoolSpec, ...], Field(min_length=1)]
    """The fleet."""
    calibrations: Name | None = None
    """Folder of calibrations, <gpu>/<model>/<scheme>[-tpN].yaml, relative to the scenario file; `none` for estimates
    alone (left out: those that come with simroute)."""
    policies: Annotated[tuple[PolicySpec, ...], Field(min_length=1)] = (PolicySpec(name="least_requests"),)
    """Routing policies to compare on the same traffic: names, or mappings with options."""
    router: RouterSpec = RouterSpec()
    """The router."""
    external: tuple[ExternalSpec, ...] = ()
    """Endpoints of others that a policy may send requests to."""
    clients: ClientsSpec = ClientsSpec()
    """How clients behave."""
    failures: FailuresSpec = FailuresSpec()
    """What goes wrong in the fleet."""
    horizon_s: Positive | None = None
    """Stop the clock here, simulated seconds (left out: run until every request is done)."""
    samples: Annotated[int, Field(ge=10, le=100_000, strict=True)] = 1000
    """Samples in the load timeline of the report."""
    replicates: Annotated[int, Field(ge=0, le=10_000, strict=True)] = 0
    """Times that each policy is replayed again with step times drawn anew within their error; 0 for no intervals."""
    quality: QualitySpec = QualitySpec()
    """What is known of answer quality where nothing is published: a list of assumptions, or a mapping."""
