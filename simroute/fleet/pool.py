"""A pool: identical replicas of one variant. Owns `Pool`; may import engine, hardware, policy and errors."""

from __future__ import annotations

from dataclasses import dataclass

from simroute.engine.config import EngineConfig
from simroute.errors import UsageError
from simroute.hardware.calibration import RequestTerms
from simroute.hardware.steptime import StepTimeModel
from simroute.policy.snapshot import VariantInfo

NOTHING = RequestTerms()


@dataclass(frozen=True, slots=True)
class Pool:
    """`replicas` engines of one variant, each on `gpus_per_replica` GPUs. Raises UsageError for zero replicas.

    `request` is what clients wait outside the engine, added to the times at which they see tokens.
    """

    name: str
    replicas: int
    variant: VariantInfo
    engine: EngineConfig
    step_time: StepTimeModel
    gpus_per_replica: int
    request: RequestTerms = NOTHING

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise UsageError(f"pool {self.name}: replicas must be at least 1, got {self.replicas}")
