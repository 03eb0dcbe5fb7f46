"""The router of a fleet that lives: admission, routing, resending, review. Owns `Gateway`.

A request is a `Call` from its arrival to its end: answered, rejected, failed or cancelled. Who is held meanwhile is the
business of `holding`, how long clients wait that of `patience`.
May import engine, fleet's other files, policy and results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf

from simroute.engine.sequence import EngineRequest
from simroute.fleet.call import NOWHERE, Call
from simroute.fleet.external import ExternalReplica
from simroute.fleet.holding import Holding
from simroute.fleet.load import LoadBook
from simroute.fleet.patience import Patience
from simroute.fleet.site import Site
from simroute.fleet.slot import Slot, State
from simroute.fleet.watch import PoolWatch
from simroute.policy.admission import AdmissionChain
from simroute.policy.context import NO_REPLICA
from simroute.policy.snapshot import Decision, Reviewer, RoutingPolicy
from simroute.results.run import Status

ROUTER_DOWN = "the router is down"
ROUTER_DIED = "the router died"
RATE_LIMITED = "the endpoint's rate limit is reached (429)"
TOO_LONG = "prompt does not fit max_model_len"
_NAN = float("nan")


class Gateway:
    """In front of a `Site` whose requests and replicas come and go. See Observer for what engines tell it.

    `ended` is called with every request whose call is over, and the seconds until its client learns it; `watches` are
    kept for pools that are scaled.
    """

    def __init__(self, site: Site, policy: RoutingPolicy) -> None:
        self._site = site
        self._env = site.env
        self._options = options = site.options
        self._recorder = recorder = site.recorder
        self._snapshots = site.snapshots
        self._slots = site.slots
        self._admission = AdmissionChain(options.admission) if options.admission else None
        self._calls: dict[int, Call] = {}
        self._free_s = 0.0  # when the router has handled what has come
        self._back_s = 0.0  # when the router is up again
        self._book = LoadBook(self._slots, self._snapshots, site.members)
        self._patience = Patience(self._env, options.clients, site.seed, len(site.trace), self._leave)
        self._holding = None
        if options.queue is not None:
            self._holding = Holding(
                self._env,
                options.queue,
                self._book.load,
                self._calls,
                route=self._choice,
                send=self._send,
                turn_away=self._turn_away,
                always_room=any(slot.pool.external for slot in self._slots),
            )
        self._first_token_s = recorder.first_token_s
        self._tries, self._attempts = recorder.keep_attempts()
        self.watches: dict[str, PoolWatch] = {}
        self.ended: Callable[[EngineRequest, float], None] | None = None
        self.sent = 0
        self._use(policy)
        # Whose answers are looked at first comes whole: between its tokens its client sees no gap.
        unseen: deque[float] = deque(maxlen=0)
        self.gaps = recorder.gaps if self._review is None else unseen.extend
        site.members.listen(self._recount)
        self._recount()
        if self._holding is not None:
            pump = self._holding.pump
            site.life.ups.append(lambda _slot: pump())

    def _use(self, policy: RoutingPolicy) -> None:
        self._choose = policy.choose
        self._review = policy.review if isinstance(policy, Reviewer) else None

    @property
    def outstanding(self) -> int:
        """Calls that have not ended."""
        return len(self._calls)

    @property
    def held(self) -> int:
        """Requests in the queue."""
        return 0 if self._holding is None else len(self._holding)

    @property
    def stuck(self) -> bool:
        """Whether every call that is left is held, and neither its client nor the queue will ever give it up."""
        if not self._calls or self.held < len(self._calls) or (self._holding is not None and self._holding.expires):
            return False
        return all(call.leaves_s == inf for call in self._calls.values())

    def counts(self) -> tuple[int, int]:
        """(requests held, requests sent to replicas so far)."""
        return self.held, self.sent

    # -- a request comes ----------------------------------------------------------------------------------------------

    def take(self, request: EngineRequest) -> None:
        """A client sends `request` now."""
        call = self._calls[request.index] = Call(request)
        self._patience.begin(call)
        self._ask(call)

    def _ask(self, call: Call) -> None:
        """The client asks, for the first time or again, unless it has lost interest meanwhile."""
        if call.over:
            return
        now = self._env.now
        self._tries[call.original.index] += 1
        self._patience.ask(call)
        if now < self._back_s:
            self._refuse(call, Status.FAILED, ROUTER_DOWN)
            return
        router = self._options.router
        if router.throughput_rps is None and not router.latency_s:
            self._enter(call, call.tries)
            return
        call.coming = True
        if router.throughput_rps is not None:
            self._free_s = max(self._free_s, now) + 1 / router.throughput_rps
            now = self._free_s
        tries = call.tries
        self._env.call_at(now + router.latency_s, lambda: self._enter(call, tries))

    def _enter(self, call: Call, tries: int) -> None:
        """The request has reached the router."""
        if call.over or call.tries != tries:
            return
        call.coming = False
        now = self._env.now
        request = call.attempt(now)
        rules = self._admission
        reason = None if rules is None else rules.admit(request, self._book.look(self.held, now), now)
        if reason is not None:
            self._refuse(call, Status.REJECTED, reason)
        elif self._holding is not None:  # all go through it: that is how it is fair between them
            self._holding.hold(call)
            self._holding.pump()
        else:
            self._route(call)

    def _route(self, call: Call) -> None:
        """Ask the policy where the attempt goes, and send it there."""
        number, reason = self._choice(call)
        if number >= 0:
            self._send(call, number)
        elif call.lost and reason == NO_REPLICA and self._holding is not None:
            self._holding.hold(call)
        else:
            self._turn_away(call, reason)

    def _choice(self, call: Call) -> tuple[int, str]:
        """The replica that the policy chooses for the attempt, or -1 and why none."""
        return self._site.decide(self._choose, call.request)

    def _turn_away(self, call: Call, reason: str) -> None:
        """Nobody takes the attempt, for that reason; what a replica had taken and lost has failed for the loss."""
        if call.lost:
            self._refuse(call, Status.FAILED, call.lost)
        else:
            self._refuse(call, Status.REJECTED, reason)

    def _send(self, call: Call, number: int) -> None:
        request, slot = call.request, self._slots[number]
        index, replica, engine = request.index, slot.replica, slot.pool.engine
        assert replica is not None
        self._recorder.replica[index] = number
        if request.input_tokens >= engine.max_model_len:  # vLLM answers HTTP 400: to ask again helps nobody
            self._end(call, Status.REJECTED, TOO_LONG)
            return
        if isinstance(replica, ExternalReplica):
            if not replica.accepts():
                self._turn_away(call, RATE_LIMITED)
                return
        elif request.prefix_ids and engine.enable_prefix_caching:
            self._site.arrivals.describe(request, engine.block_size)
        call.number = number
        self.sent += 1
        self._attempts[index] += 1
        seen = slot.snapshot
        seen.in_flight += 1
        seen.in_flight_tokens += request.input_tokens
        seen.queued_tokens += request.input_tokens
        if slot.pool.external is None:
            self._book.load.in_flight += 1
        if self.watches and (watch := self.watches.get(slot.pool.name)):
            watch.sent += 1
        replica.submit(request)

    def _left(self, call: Call) -> None:
        """The attempt of `call` is no longer at its replica."""
        request, slot = call.request, self._slots[call.number]
        seen = slot.snapshot
        seen.in_flight -= 1
        seen.in_flight_tokens -= request.input_tokens
        if not call.begun:
            seen.queued_tokens -= request.input_tokens
        if slot.pool.external is None:
            self._book.load.in_flight -= 1
        call.number = NOWHERE
        if request.cached_tokens or request.preemptions or call.attempts > 1:
            self._recorder.history(request, call.original.input_tokens)
        if not hasattr(request, "admission"):  # it waits in vLLM
            self._recorder.never_admitted(request)

    # -- what engines tell --------------------------------------------------------------------------------------------

    def first_token(self, index: int, at_s: float) -> None:
        """See Observer. The router counts the prompt as done at once, a step before the token comes."""
        call = self._calls.get(index)
        if call is None or call.number == NOWHERE:
            return
        call.begun = True
        call.first_s = at_s
        slot = self._slots[call.number]
        slot.snapshot.queued_tokens -= call.request.input_tokens
        if not call.done_tokens:
            self._first_token_s[index] = at_s
        if self.watches and (watch := self.watches.get(slot.pool.name)):
            watch.first_token(at_s, at_s - call.request.arrival_s)

    def finished(self, request: EngineRequest, at_s: float) -> None:
        """See Observer: the router learns it at once, the response having passed through it."""
        call = self._calls.get(request.index)
        if call is None or call.request is not request or call.number == NOWHERE:
            return  # its client had left while the last token was on its way
        number = call.number
        self._left(call)
        if call.done_tokens:
            self._pause(call)
        if self._slots[number].pool.external is None:
            self._book.answered(at_s)
        if self._review is None or not self._sent_on(call, number, at_s):
            self._answer(call, at_s)
        self._settle(number)
        self._fill_seats()

    def _answer(self, call: Call, at_s: float) -> None:
        """The whole answer has left its replica; its client hangs up meanwhile if it does not wait for so long."""
        leaves_s = call.leaves_s
        if leaves_s < inf and at_s + self._outside_s(call) > leaves_s:
            return
        self._recorder.finish_s[call.original.index] = at_s
        self._end(call, Status.COMPLETED, "")

    def _sent_on(self, call: Call, number: int, now: float) -> bool:
        """Whether the policy wants a better answer than the one of replica `number`, which its client has not seen."""
        review = self._review
        assert review is not None
        call.done_tokens = 0
        call.lost = ""
        request = call.attempt(now)  # what may be sent on: the router's time and the trace's own prefix ids

        def ask(request: EngineRequest, snapshots: Sequence[object]) -> object:
            return review(request, number, self._snapshots) or (NOWHERE, "")

        where, reason = self._site.decide(ask, request, "review")
        self._first_token_s[request.index] = now  # the answer is passed on as a whole
        if where == NOWHERE and not reason:
            return False
        if where == number:
            raise self._site.fault(request, Decision(where), "review")
        if where >= 0:
            self._send(call, where)
        else:
            self._refuse(call, Status.REJECTED, reason)
        return True

    def lost(self, slot: Slot, requests: Sequence[EngineRequest], reason: str) -> None:
        """The replica in `slot` is gone, and with it what it had in flight."""
        options, now = self._options.router, self._env.now
        for request in requests:
            call = self._calls.get(request.index)
            if call is None or call.request is not request or call.number == NOWHERE:
                continue
            self._left(call)
            if request.generated_tokens:
                if call.done_tokens:
                    self._pause(call)
                call.paused_s = request.last_token_s
            self._forget_token(call, request.generated_tokens if options.on_loss == "resume" else 0)
            if options.on_loss == "fail" or call.resends >= options.most_resends:
                self._refuse(call, Status.FAILED, reason)
            else:
                call.resends += 1
                call.lost = reason
                call.attempt(now)
                self._route(call)
        self._fill_seats()

    def _pause(self, call: Call) -> None:
        """A resumed attempt has brought tokens: from the last one of its predecessor to its first its client waited."""
        gap_s = call.first_s - call.paused_s
        self.gaps((gap_s, gap_s, 1, 1))

    def _forget_token(self, call: Call, kept_tokens: int) -> None:
        """An attempt has ended early: only `kept_tokens` more of the answer remain."""
        call.done_tokens = min(call.done_tokens + kept_tokens, call.original.max_tokens - 1)
        if not call.done_tokens:
            self._first_token_s[call.original.index] = _NAN

    # -- clients leave, ask again, and are done -----------------------------------------------------------------------

    def _leave(self, call: Call, reason: str, for_good: bool) -> None:
        """The client hangs up; it may ask again later unless it leaves for good."""
        if call.over:
            return
        self._take_back(call)
        if for_good:
            self._end(call, Status.CANCELLED, reason)
        else:
            self._refuse(call, Status.CANCELLED, reason)
        self._fill_seats()

    def _take_back(self, call: Call) -> None:
        """Nobody waits for the attempt of `call` any longer, wherever it is."""
        call.coming = False
        if call.held:
            assert self._holding is not None
            self._holding.take_out(call)
        elif call.number != NOWHERE:
            number = call.number
            replica = self._slots[number].replica
            assert replica is not None
            self._left(call)
            if call.done_tokens and call.first_s < self._env.now:
                self._pause(call)
            replica.abort(call.request)
            self._settle(number)

    def _refuse(self, call: Call, status: Status, reason: str) -> None:
        """The client gets no answer this time: it asks again later, or gives up."""
        call.done_tokens = 0
        self._first_token_s[call.original.index] = _NAN
        wait_s = self._patience.again_s(call, status)
        if wait_s is None:
            self._end(call, status, reason)
            return
        call.tries += 1
        call.resends = 0
        call.lost = ""
        self._env.call_at(self._env.now + wait_s, lambda: self._ask(call))

    def _end(self, call: Call, status: Status, reason: str) -> None:
        """The call is over."""
        call.over = True
        index = call.original.index
        del self._calls[index]
        if status is not Status.COMPLETED:
            self._recorder.unanswered(index, status, reason)
            self._recorder.left_s[index] = self._env.now
        if self.ended is not None:
            self.ended(call.original, self._outside_s(call) if status is Status.COMPLETED else 0.0)
        self._site.over()

    def _outside_s(self, call: Call) -> float:
        """Seconds for which the client of an answer waits outside the engine that gave it."""
        terms = self._slots[self._recorder.replica[call.original.index]].pool.request
        return terms.overhead_s(call.original.input_tokens)

    # -- the router and the fleet -------------------------------------------------------------------------------------

    def _recount(self) -> None:
        """Other replicas take requests."""
        self._book.recount()
        if self._holding is not None:
            self._holding.recall()

    def _fill_seats(self) -> None:
        """An attempt has left its replica, whatever becomes of its call: another may have its seat."""
        if self._holding is not None:
            self._holding.pump()

    def _settle(self, number: int) -> None:
        slot = self._slots[number]
        if slot.state is State.DRAINING:
            self._site.life.settle(slot)

    def restart(self, down_s: float) -> None:
        """The router dies now with all its connections and everything it knew; it is back in `down_s` seconds."""
        self._back_s = max(self._back_s, self._env.now + down_s)
        self._free_s = 0.0
        self._book.forget()
        for slot in self._slots:
            slot.snapshot.forget()
            if slot.index is not None:
                slot.index.clear()
        remake = self._options.remake
        if remake is not None:
            self._site.members.forget()
            self._use(remake())
            self._site.members.listen(self._recount)
        in_hand = [call for call in self._calls.values() if call.held or call.coming or call.number != NOWHERE]
        for call in in_hand:
            self._take_back(call)
        for call in in_hand:
            self._refuse(call, Status.FAILED, ROUTER_DIED)
