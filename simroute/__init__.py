"""simroute: which vLLM fleet, under which routing policy, meets the latency targets, and what does it cost a month.

Reading guide. Work flows one way: `workload` (what arrives) → `engine` (one vLLM replica) → `fleet` (many of them
behind a router); `policy` decides, `results` measures, `report` shows, `scenario` ties them together.
Three files to read first:

1. `workload/trace.py`: the columnar trace, what every simulation replays.
2. `engine/scheduler.py`: vLLM's scheduler, one iteration at a time.
3. `fleet/cluster.py`: replicas, router and clock.

Public API: `load(path)` reads a scenario, `run(scenario)` replays it under each of its policies, `compare(scenario)`
replays them in many worlds and says which differences are noise, `plan(path)` finds the cheapest fleet that meets the
targets, `whatif(scenario, changes)` says when they break and what to buy next, `capacity(model, gpu)` what one replica
can do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simroute.planner.capacity import capacity
    from simroute.planner.plan import plan
    from simroute.planner.whatif import whatif
    from simroute.scenario.compare import compare
    from simroute.scenario.loader import load
    from simroute.scenario.run import run

__all__ = ["__version__", "capacity", "compare", "load", "plan", "run", "whatif"]

__version__ = "0.1.0"

_HOMES = {
    "capacity": "simroute.planner.capacity",
    "compare": "simroute.scenario.compare",
    "load": "simroute.scenario.loader",
    "plan": "simroute.planner.plan",
    "run": "simroute.scenario.run",
    "whatif": "simroute.planner.whatif",
}


def __getattr__(name: str) -> Any:
    """Import the public API on first use: `import simroute` alone must stay cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'simroute' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
