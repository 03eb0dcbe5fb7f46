"""The fleets of claim.py: kinds of replicas, two pools of them with their price, and how tables write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simroute.hardware import catalogue
from simroute.units import HOURS_PER_MONTH

PROVIDER = "Hyperstack"
"""One price list that has every GPU in question, among the cheapest for each."""
LARGE, SMALL = "Llama-3.3-70B", "Llama-3.1-8B"
H100, A100, PRO = "H100", "A100-80GB", "RTX-PRO-6000"


@dataclass(frozen=True, slots=True)
class Replica:
    """One kind of replica, on `tp` GPUs of the provider."""

    model: str
    scheme: str
    gpu: str
    tp: int = 1

    @property
    def usd_per_month(self) -> float:
        """Price of one replica."""
        return catalogue.price(self.gpu, PROVIDER, "on_demand").usd_per_gpu_hour * self.tp * HOURS_PER_MONTH

    def __str__(self) -> str:
        return f"{self.model.rpartition('-')[2]} {self.scheme} on {f'{self.tp} ' if self.tp > 1 else ''}{self.gpu}"


@dataclass(frozen=True, slots=True)
class Fleet:
    """`large` serves what is hard; `small`, where there is any, what is not."""

    large: Replica
    larges: int
    small: Replica | None = None
    smalls: int = 0

    @property
    def usd_per_month(self) -> float:
        """Price of all replicas."""
        return self.large.usd_per_month * self.larges + (self.small.usd_per_month * self.smalls if self.small else 0.0)

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.large.tp * self.larges + (self.small.tp * self.smalls if self.small else 0)

    def __str__(self) -> str:
        parts = [f"{self.larges} x {self.large}", *([f"{self.smalls} x {self.small}"] if self.small else [])]
        return " + ".join(parts)

    def as_yaml(self) -> str:
        """The pools as a scenario has them (JSON is YAML)."""
        sizes = (("large", self.large, self.larges), ("small", self.small, self.smalls))
        pools = [
            {
                "name": name,
                "model": kind.model,
                "quantization": kind.scheme,
                "gpu": kind.gpu,
                "tensor_parallel": kind.tp,
                "replicas": count,
                "price": {"provider": PROVIDER, "term": "on_demand"},
            }
            for name, kind, count in sizes
            if kind is not None
        ]
        return json.dumps(pools)


FP16_LARGE = (Replica(LARGE, "bf16", H100, 2), Replica(LARGE, "bf16", H100, 4), Replica(LARGE, "bf16", A100, 4))
FP16_SMALL = (Replica(SMALL, "bf16", A100), Replica(SMALL, "bf16", H100))
FP8_LARGE = (Replica(LARGE, "fp8", H100, 2), Replica(LARGE, "fp8", PRO), Replica(LARGE, "w8a8-int8", A100, 2))
FP8_SMALL = (Replica(SMALL, "w8a8-int8", A100), Replica(SMALL, "fp8", PRO), Replica(SMALL, "fp8", H100))
INT4_LARGE = (Replica(LARGE, "w4a16", H100), Replica(LARGE, "w4a16", H100, 2), Replica(LARGE, "w4a16", A100))
INT4_SMALL = (Replica(SMALL, "w4a16", A100), Replica(SMALL, "w4a16", H100))
QUANTIZED_LARGE, QUANTIZED_SMALL = (*INT4_LARGE, *FP8_LARGE), (*INT4_SMALL, *FP8_SMALL)
"""What searches may choose from: every replica that fits and has a calibration, up to 4 GPUs in 16 bits and 2 else."""
FORMER = Fleet(FP16_LARGE[0], 3, FP16_SMALL[1], 2)
"""The fleet before, as in scenarios/claim_static_tier.yaml."""
CLAIMED = Fleet(INT4_LARGE[0], 1, INT4_SMALL[0], 1)
"""The fleet after, as in scenarios/claim_quant_routing.yaml."""

Found = tuple[Fleet, Mapping[str, Any]] | None
"""A fleet that was searched for with its summary, None where there is none."""


def usd(value: float) -> str:
    """Whole dollars."""
    return f"${value:,.0f}"


def ms(seconds: float | None) -> str:
    """Whole milliseconds; of an overloaded fleet, which has no percentiles, that it is."""
    return "overloaded" if seconds is None else f"{seconds * 1e3:,.0f}"


def described(result: Found) -> tuple[str, str]:
    """A fleet that was searched for, and its price."""
    return ("none", "-") if result is None else (str(result[0]), usd(result[0].usd_per_month))


def saved(result: Found, than: Found) -> str:
    """How much cheaper than another."""
    return "-" if result is None or than is None else f"{1 - result[0].usd_per_month / than[0].usd_per_month:.0%}"
