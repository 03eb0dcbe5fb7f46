"""JSON files of benchmarks, read with one clear line for what is wrong with them. Imports errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from simroute.errors import CalibrationError


def read_text(path: Path) -> str:
    """The file's text. Raises CalibrationError where it cannot be read."""
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CalibrationError(f"{path}: cannot read: it is not text") from None


def read_json(path: Path) -> Any:
    """The one JSON value in the file. Raises CalibrationError where there is none."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise CalibrationError(
                f"{path}: more than one result (--append-result): give each a file of its own"
            ) from None
        raise CalibrationError(f"{path}: not JSON: {error}") from None


def seconds(value: Any, where: str) -> float:
    """`value` as a finite number. Raises CalibrationError, which says where it stands."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise CalibrationError(f"{where}: must be a number of seconds, got {value!r}")


def count(value: Any, where: str, least: int = 1) -> int:
    """`value` as a whole number of at least `least`. Raises CalibrationError, which says where it stands."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= least and value == int(value):
        return int(value)
    raise CalibrationError(f"{where}: must be a whole number of at least {least}, got {value!r}")
