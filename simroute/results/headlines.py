"""The numbers of a summary that every table of fleets shows. Imports `compare`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simroute.results.compare import Summary

HEADLINES: Mapping[str, tuple[str, ...]] = {
    "ttft_p99_s": ("ttft_s", "p99"),
    "tpot_p99_s": ("tpot_s", "p99"),
    "e2e_p99_s": ("e2e_s", "p99"),
    "slo_attainment": ("slo_attainment",),
    "quality_mean": ("quality", "mean"),
    "below_floor_share": ("quality", "below_floor_share"),
    "gpu_busy": ("gpu_busy",),
    "goodput_rps": ("goodput_rps",),
}
"""Their names, and the keys that lead to each in a summary."""


def headlines(summary: Summary | None) -> dict[str, Any]:
    """All of them by name; None for each where there is no summary."""
    found: dict[str, Any] = {}
    for name, keys in HEADLINES.items():
        value: Any = summary
        for key in keys if summary is not None else ():
            value = value[key]
        found[name] = value
    return found
