"""A pool: places for replicas of one variant. Owns `Pool`, `Startup` and `External`.

May import engine, hardware, policy and errors.
"""

from __future__ import annotations

from dataclasses import dataclass

from simroute.engine.config import EngineConfig
from simroute.errors import UsageError
from simroute.hardware.calibration import RequestTerms
from simroute.hardware.steptime import StepTimeModel
from simroute.policy.snapshot import VariantInfo

NOTHING = RequestTerms()


@dataclass(frozen=True, slots=True)
class Startup:
    """Seconds from ordering a replica to its first request, stage by stage.

    `node_s`: a machine with GPUs comes up. `image_s`: it pulls the container image. `weights_s`: the engine loads the
    weights. `engine_s`: it compiles, captures CUDA graphs and allocates its KV cache.
    """

    node_s: float = 0.0
    image_s: float = 0.0
    weights_s: float = 0.0
    engine_s: float = 0.0

    @property
    def cold_s(self) -> float:
        """All stages: on a machine that is not there yet."""
        return self.node_s + self.image_s + self.restart_s

    @property
    def restart_s(self) -> float:
        """The engine alone: its process starts again on the same machine."""
        return self.weights_s + self.engine_s


@dataclass(frozen=True, slots=True)
class External:
    """Somebody else's endpoint, paid by the token: how fast it answers and what it costs.

    A request waits `ttft_s` for its first token and `tpot_s` for each other, both times a lognormal factor whose
    logarithm has the standard deviation `spread`. Beyond `requests_per_minute` in any
    60 s it answers 429 (None: no limit).
    """

    usd_per_1m_input_tokens: float
    usd_per_1m_output_tokens: float
    ttft_s: float
    tpot_s: float
    spread: float = 0.0
    requests_per_minute: float | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """Places for engines of one variant, each on `gpus_per_replica` GPUs; `replicas` of them are taken at the start.

    `places` is how many there can be at once (left out: as many as `replicas`); `startup` is how long one takes to
    come up later, and `zones` where they are: place i is in zone i modulo their number. A pool with `external` has no
    engines of ours. `request` is what clients wait outside the engine, added to the times at which they see tokens.
    Raises UsageError for no places, or fewer than replicas.
    """

    name: str
    replicas: int
    variant: VariantInfo
    engine: EngineConfig
    step_time: StepTimeModel
    gpus_per_replica: int
    request: RequestTerms = NOTHING
    places: int = 0
    startup: Startup = Startup()
    zones: tuple[str, ...] = ("zone-a",)
    external: External | None = None

    def __post_init__(self) -> None:
        if not self.places:
            object.__setattr__(self, "places", self.replicas)
        if self.places < 1 or self.replicas < 0:
            raise UsageError(f"pool {self.name}: replicas must be at least 1, got {self.replicas}")
        if self.replicas > self.places:
            raise UsageError(f"pool {self.name}: {self.replicas} replicas do not fit {self.places} places")
