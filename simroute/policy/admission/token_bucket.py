"""The rate limit: an admission rule with a token bucket for each tenant, each tier or the whole fleet.

May import policy.admission.rules, policy.context and policy.options, and workload.request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from simroute.policy.admission.rules import FleetLoad, RuleOptions
from simroute.policy.context import Targets
from simroute.policy.options import Positive
from simroute.workload.request import Request

RATE_LIMITED = "over the rate limit"
"""Reason of a refusal (a constant, so that a run can count it as one code)."""
TOO_LARGE = "prompt larger than the burst of the rate limit"
"""Reason of a refusal: no wait would let the prompt through."""

_ROUNDING = 1e-9
"""What a refilled bucket may lack: times are sums of floats. The debt is kept, so that it never adds up."""


class Rate(RuleOptions):
    """A bucket: it holds `burst` at most, is full at first and refills by `rate_per_s` without steps."""

    rate_per_s: Positive
    burst: Positive


class TokenBucketOptions(RuleOptions):
    """A bucket for each tenant, each tier or the whole fleet, in requests or prompt tokens.

    `overrides` gives tenants (or tiers) their own bucket by name.
    """

    per: Literal["tenant", "tier", "fleet"] = "tenant"
    unit: Literal["requests", "prompt_tokens"] = "requests"
    rate_per_s: Positive
    burst: Positive
    overrides: Mapping[str, Rate] = Field(default_factory=dict)

    @field_validator("burst")
    @classmethod
    def _lets_one_through(cls, burst: float, info: ValidationInfo) -> float:
        if info.data.get("unit") == "requests" and burst < 1.0:
            raise ValueError(f"must be at least 1, or no request ever passes, got {burst:g}")
        return burst

    @field_validator("overrides")
    @classmethod
    def _fits(cls, overrides: Mapping[str, Rate], info: ValidationInfo) -> Mapping[str, Rate]:
        if overrides and info.data.get("per") == "fleet":
            raise ValueError("there is one bucket with per: fleet; name tenants or tiers with per: tenant or per: tier")
        for name, rate in overrides.items():
            if info.data.get("unit") == "requests" and rate.burst < 1.0:
                raise ValueError(f"{name}: burst must be at least 1, or no request ever passes, got {rate.burst:g}")
        return overrides


class Bucket:
    """`level` tokens at `at_s`; only what is taken moves the two, so that refusals add no rounding."""

    __slots__ = ("at_s", "burst", "level", "rate_per_s")

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self.level = burst
        self.at_s = now_s

    def take(self, cost: float, now_s: float) -> bool:
        """Take `cost` if the bucket holds it at `now_s`."""
        level = min(self.burst, self.level + self.rate_per_s * (now_s - self.at_s))
        if level < cost * (1.0 - _ROUNDING):
            return False
        self.level, self.at_s = level - cost, now_s
        return True


class TokenBucket:
    """A rate limit: in any t seconds no more than burst + rate x t is let in, by tenant, by tier or in all.

    A prompt larger than the burst never passes.
    """

    Options: ClassVar[type[TokenBucketOptions]] = TokenBucketOptions

    def __init__(self, options: TokenBucketOptions, targets: Mapping[str, Targets]) -> None:
        self._options = options
        self._buckets: dict[str, Bucket] = {}
        self._by_prompt = options.unit == "prompt_tokens"

    def admit(self, request: Request, load: FleetLoad, now_s: float) -> str | None:
        """Refuses what the bucket of the request's tenant (or tier) cannot pay for."""
        per = self._options.per
        key = request.tenant if per == "tenant" else request.tier if per == "tier" else ""
        bucket = self._buckets.get(key)
        if bucket is None:
            rate = self._options.overrides.get(key, self._options)
            bucket = self._buckets[key] = Bucket(rate.rate_per_s, rate.burst, now_s)
        cost = request.input_tokens if self._by_prompt else 1
        if bucket.take(cost, now_s):
            return None
        return TOO_LARGE if cost > bucket.burst else RATE_LIMITED
