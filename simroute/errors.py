"""Every error simroute raises on purpose, as one tree.

    SimrouteError                 anything the user can mend; the CLI prints it as one line
    ├── UsageError                a command or an API call was given something impossible
    ├── ScenarioError             a scenario file is wrong (carries every problem found)
    │   └── UnfitError            it says nothing wrong, but its hardware cannot carry what it asks for
    ├── TraceError                a trace file is missing, empty or unreadable
    ├── CatalogueError            unknown model, GPU, quantization scheme or price
    ├── CalibrationError          a calibration or a measured run is unreadable, too small or of something else
    ├── CapacityError             a model does not fit in the memory it was given
    ├── SimulationError           the simulation cannot go on (for example, a request that can never run)
    └── OutputError               results cannot be written

A message says where, what was received, what is allowed and what to do.
This module imports nothing of simroute; every other module may import it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SimrouteError(Exception):
    """Base of every error a user can mend; `str()` of it is one clear line."""

    exit_code = 2


class UsageError(SimrouteError):
    """A command or an API call was given something impossible."""


class ScenarioError(SimrouteError):
    """A scenario is wrong; `problems` holds one line for each thing found."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[ScenarioError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)  # it may have to travel between processes


class UnfitError(ScenarioError):
    """Everything named exists and every value is allowed, but hardware, prices or traffic do not allow it."""


class TraceError(SimrouteError):
    """A trace file is missing, empty or unreadable."""


class CatalogueError(SimrouteError):
    """An unknown model, GPU, quantization scheme or price."""


class CalibrationError(SimrouteError):
    """A calibration file or a measured run is missing, unreadable, too small to fit, or of something else."""


class CapacityError(SimrouteError):
    """A model does not fit in the memory it was given."""


class SimulationError(SimrouteError):
    """The simulation cannot go on."""


class OutputError(SimrouteError):
    """Results cannot be written."""


def unknown(what: str, got: str, known: Iterable[str]) -> str:
    """One line for an unknown name: what was got, the nearest known names, or all of them when few."""
    names = sorted(known)
    near = difflib.get_close_matches(got.lower(), [n.lower() for n in names], n=3, cutoff=0.5)
    nearest = [n for n in names if n.lower() in near]
    if nearest:
        return f"unknown {what} '{got}': did you mean {', '.join(nearest)}?"
    listing = ", ".join(names) if names else "none"
    return f"unknown {what} '{got}': known are {listing}"
