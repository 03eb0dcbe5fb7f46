"""Hard requests to the strong model, the rest to the weak one, by a score as RouteLLM's.

RouteLLM (Ong et al., arXiv:2406.18665) scores a prompt by the probability that the strong model's answer wins, and
sends it to the strong model when the score reaches a threshold. Its `calibrate_threshold` takes the quantile
1 - share of the scores of sample prompts, so that the wanted share of calls goes to the strong model.
May import errors, policy.context, policy.routing.draws and policy.snapshot, and workload.request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simroute.errors import UsageError, unknown
from simroute.policy.context import Group, PolicyContext
from simroute.policy.routing.draws import RequestDraws
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.request import Request

DEFAULT = "default"
_in_flight = attrgetter("in_flight")
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Difficulty(BaseModel):
    """Scores of a request class: a Beta distribution, by its mean and by how closely scores keep to it.

    Of the usual parameters, a = mean * concentration and b = (1 - mean) * concentration. The default is uniform.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float = Field(default=0.5, gt=0.0, lt=1.0)
    concentration: float = Field(default=2.0, gt=0.0, allow_inf_nan=False)

    def share_below(self, score: float) -> float:
        """Share of the class's requests that score below `score`."""
        from scipy.special import betainc

        return float(betainc(*self._shape(), score))

    def quantile(self, share: float) -> float:
        """The score that `share` of the class's requests are below."""
        from scipy.special import betaincinv

        return float(betaincinv(*self._shape(), share))

    def _shape(self) -> tuple[float, float]:
        return self.mean * self.concentration, (1.0 - self.mean) * self.concentration


class DifficultyOptions(BaseModel):
    """`weak` and `strong` name the pools (left out: the cheapest and the dearest).

    `difficulty` gives the scores of each class (`default` for the rest). Give `threshold`, the score from which the
    strong pool serves, or `strong_share`, the share of requests it is to serve (0.5 unless either is given);
    `class_shares` says how frequent the classes are, on any scale (left out: those of `difficulty` alike).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weak: str | None = None
    strong: str | None = None
    difficulty: Mapping[str, Difficulty] = Field(default_factory=dict)
    threshold: Share | None = None
    strong_share: Share | None = None
    class_shares: Mapping[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of(self) -> DifficultyOptions:
        if self.threshold is not None and self.strong_share is not None:
            raise ValueError("give threshold or strong_share, not both")
        if self.class_shares and not sum(self.class_shares.values()):
            raise ValueError("class_shares must not all be 0")
        return self

    def of_class(self, request_class: str) -> Difficulty:
        """The scores of a class."""
        return self.difficulty.get(request_class) or self.difficulty.get(DEFAULT) or Difficulty()

    def calibrated(self) -> float:
        """The threshold: as given, or the one that `strong_share` of all requests reach."""
        if self.threshold is not None:
            return self.threshold
        from scipy.optimize import brentq

        wanted = 0.5 if self.strong_share is None else self.strong_share
        shares = self.class_shares or dict.fromkeys(self.difficulty or (DEFAULT,), 1.0)
        total = sum(shares.values())

        def excess(score: float) -> float:
            weak = sum(share * self.of_class(name).share_below(score) for name, share in shares.items())
            return 1.0 - weak / total - wanted

        return float(brentq(excess, 0.0, 1.0, xtol=1e-12))


class DifficultyThreshold:
    """The strong pool for requests whose score reaches the threshold, the weak pool for the rest.

    Scores are drawn: each request has one, the same under every policy, on every attempt. Inside a pool the replica
    with the fewest requests in flight. Raises UsageError for an unknown pool.
    """

    Options: ClassVar[type[DifficultyOptions]] = DifficultyOptions

    def __init__(self, options: DifficultyOptions, context: PolicyContext) -> None:
        self._draws = RequestDraws(context.rng, "difficulty")
        self._options = options
        self.threshold = options.calibrated()
        self._context = context
        self._weak_pool, self._strong_pool = _pools(options, context)
        self._weak_share: dict[str, float] = {}
        self._regroup()
        context.members.listen(self._regroup)

    def _regroup(self) -> None:
        self._weak, self._strong = (Group(self._context, (p,)) for p in (self._weak_pool, self._strong_pool))

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The least busy replica of the pool that the request's score asks for."""
        weak_share = self._weak_share.get(request.request_class)
        if weak_share is None:
            weak_share = self._options.of_class(request.request_class).share_below(self.threshold)
            self._weak_share[request.request_class] = weak_share
        group = self._strong if self._draws(request.index) >= weak_share else self._weak
        return group.least(snapshots, _in_flight)

    def score(self, request: Request) -> float:
        """The request's score in [0, 1]; it reaches the threshold just when `choose` takes the strong pool."""
        return self._options.of_class(request.request_class).quantile(self._draws(request.index))


def _pools(options: DifficultyOptions, context: PolicyContext) -> tuple[int, int]:
    """The numbers of the weak and the strong pool."""
    names = {context.variants[p].pool: p for p in sorted(set(context.pool_of_replica))}
    for name in (options.weak, options.strong):
        if name is not None and name not in names:
            raise UsageError(f"difficulty_threshold: {unknown('pool', name, names)}")
    by_price = sorted(names.values(), key=partial(_price, context))
    weak = by_price[0] if options.weak is None else names[options.weak]
    return weak, by_price[-1] if options.strong is None else names[options.strong]


def _price(context: PolicyContext, pool: int) -> float:
    return context.variants[pool].usd_per_1m_tokens
