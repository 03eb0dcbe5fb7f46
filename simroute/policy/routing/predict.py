"""How long a request would take on a replica, from the variant's step times and what the router itself counts.

With P the request's prompt tokens, A those of its answer, Q prompt tokens ahead of it (`queued_tokens`), B the
token budget of a step, D the requests that decode now, N everyone once this request has joined:

    TTFT = max(ahead, seat) + prefill_s(P) + (1 + ceil(P / (B - D))) * step
    ahead = Q * (token + step / (B - D))
    seat = (N - seats) * (A * decode_s(n) / seats + m * token) where N > seats, else 0
    TPOT = decode_s(n) + (n - 1) * m * token / A
    E2E = TTFT + (A - 1) * TPOT

step = decode_s(D) is paid once for the step under way and once for each chunk of a prompt. m is the mean prompt
in flight; a token of others' prompts takes token = prefill_s(u) / u with u = max(B, m), for short prompts share
steps and long ones take several. Seats are `max_num_seqs`, or as many such requests as the KV cache holds where
that is less; n = min(N, seats). Beyond them N - seats answers must end first, of which `seats` do in the time that
it takes to decode them and to prefill those who follow. The second term of TPOT is the prefill of those who take
the others' seats meanwhile. D counts those past their first token, taking prompts to be equally long, and who
decodes has given half an answer.

Assumed: order of arrival, no prefix cached, others' answers as long as this one, load as it is now. Somebody
else's endpoint is taken to have room for everyone.

May import policy.context and policy.snapshot, and workload.request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from simroute.policy.context import PolicyContext, Targets
from simroute.policy.snapshot import Snapshot
from simroute.workload.request import Request

OUTPUT_TOKENS = 256.0
"""Length of an answer where the options expect nothing else."""
LATE = "no replica is predicted to meet the latency targets"
"""Reason of a rejection (a constant, so that a run can count it as one code)."""
DEFAULT = "default"

Rank = tuple[int, float, float]
"""The smaller the better: 0 meets the targets, 1 nothing is known, 2 misses them; then what decides among equals."""


class Prediction(NamedTuple):
    """Latencies that a request can expect, in seconds."""

    ttft_s: float
    tpot_s: float
    e2e_s: float


UNKNOWN = Prediction(inf, inf, inf)
"""What is predicted of a variant whose step times are not known."""


class PredictionOptions(BaseModel):
    """What predictions assume: tokens of an answer by request class (`default` for the rest; 256 unless stated)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expected_output_tokens: Mapping[str, Annotated[float, Field(ge=1, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )


class TargetOptions(PredictionOptions):
    """`slack` is the share of each latency target that a prediction may take up: 0.8 keeps a fifth in reserve."""

    slack: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)


def predict(seen: Snapshot, input_tokens: int, output_tokens: float) -> Prediction:
    """What a request of this length can expect on a replica as it is now, by the formula at the top of this module.

    `UNKNOWN` where the variant has no speed. `output_tokens` is what its answer is expected to be, never what it is.
    """
    variant = seen.variant
    speed = variant.speed
    if speed is None:
        return UNKNOWN
    if variant.external:
        ttft_s, tpot_s = speed.prefill_s(input_tokens), speed.decode_s(1, input_tokens)
        return Prediction(ttft_s, tpot_s, ttft_s + (output_tokens - 1) * tpot_s)
    in_flight, tokens, queued_tokens = seen.in_flight, seen.in_flight_tokens, seen.queued_tokens
    together = in_flight + 1
    half = output_tokens / 2
    context_tokens = tokens + input_tokens + together * half
    seats, kv_tokens = variant.max_num_seqs, variant.kv_tokens
    if kv_tokens and kv_tokens * together < seats * context_tokens:
        seats = int(kv_tokens * together / context_tokens) or 1
    running = together if together < seats else seats
    tpot_s = together_s = speed.decode_s(running, int(context_tokens * running / together))
    ttft_s = speed.prefill_s(input_tokens)
    ahead_s = prompt_s = 0.0
    if in_flight and tokens:
        budget = variant.max_num_batched_tokens
        mean = tokens // in_flight
        unit = mean if mean > budget else budget
        token_s = speed.prefill_s(unit) / unit
        prompt_s = tokens / in_flight * token_s
        tpot_s += (running - 1) * prompt_s / output_tokens
        ahead_s = queued_tokens * token_s
        decoding_tokens = tokens - queued_tokens
        decoding = int(in_flight * decoding_tokens / tokens + 0.5)
        if decoding > 0:
            if decoding > seats:
                decoding = seats
            room = budget - decoding if budget > decoding else 1
            step_s = speed.decode_s(decoding, int(decoding_tokens + decoding * half))
            ahead_s += queued_tokens / room * step_s
            ttft_s += (1 - input_tokens // -room) * step_s  # one more than the chunks, which round up
    if together > seats:
        seat_s = (together - seats) * (output_tokens * together_s / seats + prompt_s)
        if seat_s > ahead_s:
            ahead_s = seat_s
    ttft_s += ahead_s
    return Prediction(ttft_s, tpot_s, ttft_s + (output_tokens - 1) * tpot_s)


class _Outlook(NamedTuple):
    output_tokens: float
    targets: Targets
    wanted: bool
    """Whether there is any target."""


class Forecasts:
    """Predictions for requests by class, and how they stand against the class's latency targets."""

    def __init__(self, options: PredictionOptions, context: PolicyContext) -> None:
        self._expected = options.expected_output_tokens
        self._context = context
        self._outlooks: dict[str, _Outlook] = {}

    def of(self, request: Request) -> Callable[[Snapshot], Prediction]:
        """What `request` can expect, as a function of the replica."""
        input_tokens, output_tokens = request.input_tokens, self._outlook(request.request_class).output_tokens
        return lambda seen: predict(seen, input_tokens, output_tokens)

    def wanted(self, request_class: str) -> bool:
        """Whether the class has a latency target."""
        return self._outlook(request_class).wanted

    def used(self, request: Request) -> Callable[[Snapshot], float]:
        """The share that the prediction takes up of the tightest target: above 1 it is missed; 0 without targets."""
        input_tokens, (output_tokens, targets, wanted) = request.input_tokens, self._outlook(request.request_class)
        if not wanted:
            return lambda seen: 0.0
        ttft_most_s, tpot_most_s, e2e_most_s = (_most(t) for t in (targets.ttft_s, targets.tpot_s, targets.e2e_s))

        def used(seen: Snapshot) -> float:
            ttft_s, tpot_s, e2e_s = predict(seen, input_tokens, output_tokens)
            if ttft_s == inf:
                return inf
            return max(ttft_s / ttft_most_s, tpot_s / tpot_most_s, e2e_s / e2e_most_s)

        return used

    def ranking(self, request: Request, slack: float, *, packed: bool = False) -> Callable[[Snapshot], Rank]:
        """How good a replica is for the request; of those that meet the targets the tightest first when `packed`.

        Without targets every replica meets them, and the earliest answer is the best.
        """
        if not self.wanted(request.request_class):
            predicted = self.of(request)
            return lambda seen: (0, predicted(seen).e2e_s, seen.in_flight_tokens)
        used_of, sign = self.used(request), -1.0 if packed else 1.0

        def rank(seen: Snapshot) -> Rank:
            used = used_of(seen)
            if used <= slack:
                return 0, sign * used, 0
            return (1, seen.in_flight_tokens, 0) if used == inf else (2, used, 0)

        return rank

    def _outlook(self, request_class: str) -> _Outlook:
        found = self._outlooks.get(request_class)
        if found is None:
            expected = self._expected.get(request_class, self._expected.get(DEFAULT, OUTPUT_TOKENS))
            targets = self._context.targets_of(request_class)
            found = self._outlooks[request_class] = _Outlook(expected, targets, targets != Targets())
        return found


def _most(target_s: float | None) -> float:
    return inf if target_s is None else target_s
