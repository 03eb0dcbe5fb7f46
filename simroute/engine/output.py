"""What one step of the scheduler decides. Owns `SchedulerOutput`; may import engine.sequence and hardware.steptime."""

from __future__ import annotations

from simroute.engine.sequence import EngineRequest
from simroute.hardware.steptime import Batch

NOTHING = Batch(0, 0, 0, 0, 0, 0)
NOBODY: list[EngineRequest] = []
"""Stands for every list that stays empty, as they mostly do; never changed, only replaced."""
UNCHANGED: dict[EngineRequest, int] = {}


class SchedulerOutput:
    """What one step does.

    `scheduled` maps requests of RUNNING to their tokens, in scheduling order, without those that advanced in the group;
    `admitted` maps those that came from WAITING to theirs (prefix-hit tokens not among them).
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
    )

    def __init__(self) -> None:
        self.scheduled: dict[EngineRequest, int] = UNCHANGED
        self.admitted: dict[EngineRequest, int] = {}
        self.preempted = self.paused = self.resumed = self.finishing = NOBODY
        self.first: list[EngineRequest] = []
        self.preempted_itself = False
        self.decoding = 0
        self.batch = NOTHING

    @property
    def total_tokens(self) -> int:
        """Tokens scheduled, all requests together."""
        return self.batch.prefill_tokens + self.batch.decode_seqs
