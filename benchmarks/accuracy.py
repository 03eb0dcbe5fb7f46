"""Prints how far predictions are off on measured runs that no calibration was fitted to.

Usage: python benchmarks/accuracy.py [--data DIR] [--case NAME ...] [--draws N]. DIR holds the measured runs and kernel
tables, which do not come with simroute; a case whose data are not there is left out, and said to be. Each case has a
file of its own, accuracy_*.py.

Every table is Markdown, as docs/hardware.md has it. Intervals are those of `Calibration.drawn`: the middle 90 % of so
many replays with drawn step times.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import accuracy_cpu
import accuracy_h100
import accuracy_published
import accuracy_rtx4090
import accuracy_steps
from accuracy_figures import Figure

DATA = Path(__file__).resolve().parents[2] / "shared/data"
COVERAGE_TARGET = 0.85

CASES: dict[str, tuple[str, str, Callable[[Path, int], list[Figure]]]] = {
    "rtx4090": (accuracy_rtx4090.Rtx4090.title, accuracy_rtx4090.Rtx4090.run, accuracy_rtx4090.show),
    "h100": (accuracy_h100.H100Llama70B.title, accuracy_h100.H100Llama70B.file, accuracy_h100.show),
    "cpu": (accuracy_cpu.TITLE, str(accuracy_cpu.RUNS), accuracy_cpu.show),
    "steps": ("B300, vLLM 0.20.1, Qwen3-32B bf16: single steps", ".", accuracy_steps.show),
    "published": ("H100, Qwen3-8B at full load: published throughput", "op_tables", accuracy_published.show),
}
"""Name to title, what it needs below the data directory (or an absolute path), and what prints it."""


def main() -> None:
    """Print every case whose data are there, and the share of intervals that hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--case", choices=CASES, action="append", help="repeatable; default: all")
    parser.add_argument("--draws", type=int, default=30, help="replays for each interval")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    for name in arguments.case or CASES:
        title, needs, show = CASES[name]
        print(f"\n### {title}\n")
        if (arguments.data / needs).exists():
            figures += show(arguments.data, arguments.draws)
        else:
            print(f"Left out: {arguments.data / needs} is not there.")
    held = [figure.held for figure in figures if figure.has_interval]
    if held:
        share = sum(held) / len(held)
        print(f"\n90 % intervals hold {sum(held)} of {len(held)} numbers ({share:.0%}; target {COVERAGE_TARGET:.0%})")


if __name__ == "__main__":
    main()
