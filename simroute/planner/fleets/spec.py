"""What a plan file may say, as frozen pydantic models: shape, types, ranges and defaults of every field.

Owns `PlanSpec`; what needs the catalogue or another field is in `loading`. Imports pydantic and scenario's models.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from simroute.results.compare import TARGET_ATTAINMENT
from simroute.scenario.fleet_models import RouterSpec
from simroute.scenario.models import (
    ClassSpec,
    EngineSpec,
    KvCacheDtype,
    PolicySpec,
    PriceSpec,
    QualitySpec,
    SloSpec,
    Traffic,
)
from simroute.scenario.parts import Count, Name, Part, Positive, Rate, Share, Switch, Whole
from simroute.workload.columns import DEFAULT_NAME

MOST_REPLICAS = 10_000
Replicas = Annotated[int, Field(ge=1, le=MOST_REPLICAS, strict=True)]


def listed(value: Any, fields: tuple[str, ...]) -> Any:
    """`value`, a mapping, with a list of one in place of each bare value of these fields."""
    if not isinstance(value, dict):
        return value
    return {k: [v] if k in fields and not isinstance(v, list | tuple) else v for k, v in value.items()}


class PlanTraffic(Traffic):
    """What arrives, and how much more of it the fleet is to be bought for."""

    growth: Rate = 1.0
    """Multiplies the arrival rate on top of `rate_scale`: 1.5 plans for half as much again."""


class PlanClass(ClassSpec):
    """What one request class asks for: of each request (`slo`), of the class as a whole (`p99`, `attainment`)."""

    attainment: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    """Least share of the requests within their `slo` (left out: that of `default`, else 0.99)."""
    p99: SloSpec | None = None
    """Limits of the class's 99th percentiles (left out: those of `default`)."""


class ReplicaRange(Part):
    """How many replicas of one variant a fleet may have."""

    min: Replicas = 1
    """Fewest, where the variant is used at all."""
    max: Replicas = 32
    """Most."""

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaRange:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class EngineGrid(Part):
    """Engine settings to try, every combination; a bare value stands for a list of one."""

    max_num_seqs: tuple[Count, ...] = ()
    """Most requests running at once."""
    max_num_batched_tokens: tuple[Count, ...] = ()
    """Token budget of one step."""
    enable_prefix_caching: tuple[Switch, ...] = ()
    """Whether KV blocks of equal prefixes are reused."""

    @model_validator(mode="before")
    @classmethod
    def _bare_values(cls, value: Any) -> Any:
        return listed(value, tuple(cls.model_fields))


class CandidateSpec(Part):
    """Variants to choose from: every combination of what is listed; a bare value stands for a list of one."""

    name: Name | None = None
    """What policies' options may call the variant that a fleet has of these (left out: each has only its own name)."""
    model: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Models of the catalogue, or paths of Hugging Face config.json files."""
    quantization: Annotated[tuple[Name, ...], Field(min_length=1)] = ("bf16",)
    """Quantization schemes of the catalogue."""
    gpu: Annotated[tuple[Name, ...], Field(min_length=1)]
    """GPUs of the catalogue."""
    tensor_parallel: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    """GPUs a replica is split over."""
    kv_cache_dtype: Annotated[tuple[KvCacheDtype | None, ...], Field(min_length=1)] = (None,)
    """Types of the KV cache, in vLLM's names (left out: each scheme's own)."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.92
    """Share of GPU memory the engine may use."""
    replicas: ReplicaRange = ReplicaRange()
    """How many of each."""
    engine: EngineSpec = EngineSpec()
    """Engine settings that all of them share."""
    grid: EngineGrid = EngineGrid()
    """Engine settings to try."""

    @model_validator(mode="before")
    @classmethod
    def _bare_values(cls, value: Any) -> Any:
        return listed(value, ("model", "quantization", "gpu", "tensor_parallel", "kv_cache_dtype"))


class FleetsSpec(Part):
    """Which fleets are put together from the variants."""

    most_variants: Annotated[int, Field(ge=1, le=4, strict=True)] = 1
    """Most variants in one fleet; 1 leaves mixed fleets out."""
    most_replicas: Replicas = 64
    """Most replicas in one fleet."""


class AvailabilitySpec(Part):
    """What the fleet must survive: its targets are judged with these replicas gone, for the whole of the traffic."""

    lose_replicas: Whole = 0
    """So many replicas, whichever they are."""
    zones: Annotated[tuple[Name, ...], Field(min_length=1)] = ("zone-a",)
    """Zones that the replicas of each variant are spread over, in turn."""
    lose_zones: Whole = 0
    """So many zones, whichever they are."""

    @model_validator(mode="after")
    def _survivable(self) -> AvailabilitySpec:
        if self.lose_zones and self.lose_zones >= len(self.zones):
            named = len(self.zones)
            raise ValueError(f"lose_zones {self.lose_zones} leaves none of {named} zone(s): name more, or lose fewer")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> AvailabilitySpec:
        twice = next((zone for i, zone in enumerate(self.zones) if zone in self.zones[:i]), None)
        if twice is not None:
            raise ValueError(f"zone {twice} is named twice: give each zone a name of its own")
        return self


class SearchSpec(Part):
    """How hard to search."""

    most_simulations: Count = 600
    """Most replays of the whole trace."""
    exhaustive: Whole | None = None
    """Cheaper fleets that no bound rules out are all simulated where there are so many of them or fewer (left out: as
    many as take 1.5 million requests to replay)."""
    frontier_cost: Annotated[float, Field(ge=1, strict=True)] = 1.5
    """The frontier looks at fleets up to so many times the cost of the best one."""
    sensitivity: Whole = 150
    """Most replays of the whole trace that tell what the answer hangs on; 0 leaves that out."""
    peak_share: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.1
    """Length of the busiest stretch, which is replayed before the whole trace, as a share of the trace's."""


class PlanSpec(Part):
    """A question to simroute: which of these fleets is the cheapest that keeps these promises under this traffic."""

    name: Name
    """Name of the plan, shown on every report."""
    description: str = ""
    """What the plan is about."""
    seed: Whole = 0
    """Seed of every random stream: the same seed gives the same plan."""
    traffic: PlanTraffic
    """What arrives."""
    classes: dict[str, PlanClass] = Field(default_factory=dict)
    """Targets by request class; `default` holds for classes not named."""
    candidates: Annotated[tuple[CandidateSpec, ...], Field(min_length=1)]
    """Variants to choose from."""
    fleets: FleetsSpec = FleetsSpec()
    """Which fleets are put together from them."""
    policies: Annotated[tuple[PolicySpec, ...], Field(min_length=1)] = (PolicySpec(name="least_requests"),)
    """Routing policies to choose from: names, or mappings with options."""
    availability: AvailabilitySpec = AvailabilitySpec()
    """What the fleet must survive."""
    quotas: dict[str, Whole] = Field(default_factory=dict)
    """Most GPUs of a kind; a kind that is not named has no limit."""
    prices: dict[str, PriceSpec] = Field(default_factory=dict)
    """What GPUs of a kind cost (left out: the catalogue's first on-demand price)."""
    budget_usd_per_month: Positive | None = None
    """Most that the fleet may cost a month."""
    router: RouterSpec = RouterSpec()
    """The router."""
    calibrations: Name | None = None
    """Folder of calibrations, as in a scenario; `none` for estimates alone (left out: those shipped)."""
    quality: QualitySpec = QualitySpec()
    """What is known of answer quality where nothing is published: a list of assumptions, or a mapping."""
    floor_share: Share = TARGET_ATTAINMENT
    """Least share of a class's answers that reach its quality floor."""
    search: SearchSpec = SearchSpec()
    """How hard to search."""

    def wanted(self, request_class: str) -> PlanClass:
        """What a class asks for, with what it takes from `default`."""
        own, default = (self.classes.get(name, PlanClass()) for name in (request_class, DEFAULT_NAME))
        fields = PlanClass.model_fields
        return PlanClass(**{f: v if (v := getattr(own, f)) is not None else getattr(default, f) for f in fields})
