"""A case of accuracy.py: real vLLM engines on a CPU, predicted at loads that their calibrations have not seen."""

from __future__ import annotations

from pathlib import Path

from accuracy_figures import Figure, print_table

from simroute.calibration.fit import fit, with_loads
from simroute.calibration.runs import read_run
from simroute.calibration.validate import chosen_phases, validate

TITLE = "vLLM on a CPU, three schemes: fitted on the sweep and 30 % load, predicting 60 % and 90 %"
RUNS = Path(__file__).resolve().parents[1] / "calibration/cpu/llama-12x384/runs"
FITTED_LOAD = 0.3
TARGETS = {
    ("TPOT mean, ms", "tpot_s", "mean", 1e3): (0.05, 0.15),
    ("TPOT p99, ms", "tpot_s", "p99", 1e3): (0.10, 0.15),
    ("E2E mean, s", "e2e_s", "mean", 1.0): (0.05, 0.15),
    ("E2E p99, s", "e2e_s", "p99", 1.0): (0.10, 0.15),
    ("TTFT p50, ms", "ttft_s", "p50", 1e3): (0.10, 0.15),
}
"""(name, latency, point, scale) to the largest error at 60 % and at 90 % of capacity."""


def show(_: Path, draws: int) -> list[Figure]:
    """Print a table of all schemes and loads; return its figures."""
    figures: list[Figure] = []
    rows = []
    for folder in sorted(path for path in RUNS.iterdir() if (path / "meta.json").exists()):
        run = read_run(folder)
        calibration = fit([with_loads(run, [FITTED_LOAD])]).calibration
        phases = chosen_phases(run, fractions=[0.6, 0.9])
        found = validate(calibration, run, phases, replicates=draws)
        for number, phase in enumerate(phases):
            summary = found.document["phases"][phase.name]
            for (name, latency, point, scale), targets in TARGETS.items():
                entry = summary["metrics"][latency][point]
                label = f"{run.meta.scheme}, {phase.fraction:.0%}: {name}"
                ends = (entry["low"] * scale, entry["high"] * scale) if draws else None
                figure = Figure(
                    label, entry["measured"] * scale, entry["predicted"] * scale, target=targets[number], ends=ends
                )
                figures.append(figure)
                interval = f"{ends[0]:.3g} to {ends[1]:.3g}" if ends else ""
                rows.append(
                    [
                        label,
                        f"{figure.measured:.3g}",
                        f"{figure.predicted:.3g}",
                        f"{figure.error:+.1%}",
                        f"{targets[number]:.0%}",
                        interval,
                    ]
                )
    print_table(["", "measured", "predicted", "error", "target", "90 % interval"], rows)
    return figures
