"""What one step of the scheduler decides. Owns `SchedulerOutput`; may import engine.sequence and hardware.steptime."""

from __future__ import annotations

from simroute.engine.sequence import EngineRequest
from simroute.hardware.steptime import Batch

EMPTY_BATCH = Batch(0, 0, 0, 0, 0, 0)


class SchedulerOutput:
    """What one step does.

    `scheduled` maps requests to their tokens, in scheduling order, without those that advanced in the group.
    `admitted` maps new or resumed requests to prefix-hit tokens.
    `preempted_itself`: the last of `preempted` gave way to no other, it could not grow itself. `paused` decode, but get
    no token in this step. `first` sample their first token, `resumed` sample for the first time since a preemption or
    pause, `finishing` sample their last; `decoding` counts the others of which each samples one more token.
    """

    __slots__ = (
        "admitted",
        "batch",
        "decoding",
        "finishing",
        "first",
        "paused",
        "preempted",
        "preempted_itself",
        "resumed",
        "scheduled",
        "total_tokens",
    )

    def __init__(self) -> None:
        self.scheduled: dict[EngineRequest, int] = {}
        self.admitted: dict[EngineRequest, int] = {}
        self.preempted: list[EngineRequest] = []
        self.preempted_itself = False
        self.paused: list[EngineRequest] = []
        self.first: list[EngineRequest] = []
        self.resumed: list[EngineRequest] = []
        self.finishing: list[EngineRequest] = []
        self.decoding = 0
        self.total_tokens = 0
        self.batch = EMPTY_BATCH
