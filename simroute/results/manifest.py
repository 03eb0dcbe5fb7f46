"""What made the results: versions and fingerprints for manifest.json. Imports only workload.

Nothing here depends on when or where a run happened: the same inputs give the same manifest.
"""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata

from simroute.workload.trace import Trace

PACKAGES = ("simroute", "numpy", "pandas", "plotly", "pyarrow", "pydantic", "scipy", "simpy")
_COLUMNS = (
    "arrival_s",
    "input_tokens",
    "output_tokens",
    "class_code",
    "tenant_code",
    "tier_code",
    "priority",
    "session",
    "prefix_offsets",
    "prefix_ids",
)


def versions() -> dict[str, str]:
    """Versions of Python and of every package that can move a number; `unknown` for one that is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def trace_sha256(trace: Trace) -> str:
    """SHA-256 (hex) of all that a replay reads of `trace`: equal fingerprints, equal traffic."""
    digest = hashlib.sha256()
    for name in _COLUMNS:
        column = getattr(trace, name)
        digest.update(f"{name}:{column.dtype.str}:{len(column)};".encode())
        digest.update(column.tobytes())
    names = (trace.class_names, trace.tenant_names, trace.tier_names, trace.prefix_block_tokens)
    digest.update(repr(names).encode())
    return digest.hexdigest()
