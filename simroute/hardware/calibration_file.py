"""Calibration files: YAML that a person can read and compare, checked when read, written whole or not at all.

Owns the layout <folder>/<gpu>/<model>/<scheme>[-tpN][-fp8kv].yaml and where the shipped ones lie. Imports errors and
calibration.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simroute.errors import CalibrationError
from simroute.hardware.calibration import Calibration
from simroute.yamlfile import Node, YamlError, parse, written

SIGNIFICANT_DIGITS = 5
"""Digits of a written number: far beyond what any measurement of time supports."""
HEADER = "Step times, in the units of the names. docs/calibration-file.md explains every field."
_PACKAGE = Path(__file__).resolve().parents[1]


def load_calibration(path: str | Path) -> Calibration:
    """The calibration in the file `path`. Raises CalibrationError naming the file and the field."""
    path = Path(path)
    try:
        tree = parse(path.read_text("utf-8"))
        return Calibration.model_validate(tree.value)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read the calibration: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CalibrationError(f"{path}: not a calibration: it is not text") from None
    except YamlError as error:
        where = f"{path}:{error.place[0]}:{error.place[1]}" if error.place else str(path)
        raise CalibrationError(f"{where}: not YAML: {error}") from None
    except ValidationError as error:
        raise CalibrationError(f"{path}{_first(error, tree)}") from None


def _first(error: ValidationError, tree: Node) -> str:
    """The first problem that pydantic found, with its place and field, and how many more there are."""
    found = error.errors(include_url=False)
    keys = found[0]["loc"]
    line, column = tree.place_of(keys)
    field = ".".join(str(key) for key in keys) or "the file"
    message = found[0]["msg"].removeprefix("Value error, ")
    got = found[0]["input"]
    shown = f", got {got!r}" if isinstance(got, str | int | float) and found[0]["type"] != "value_error" else ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f":{line}:{column} {field}: {message[:1].lower()}{message[1:]}{shown}{more}"


def save_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write `calibration` as YAML, in the order of its fields, with 5 significant digits; makes the folders.

    The file appears whole or not at all. Raises CalibrationError where it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(calibration_text(calibration), "utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot write the calibration: {error.strerror}") from None


def calibration_text(calibration: Calibration) -> str:
    """The content of the file: the same calibration gives the same text."""
    return f"# {HEADER}\n{written(_plain(calibration.model_dump(exclude_none=True)))}"


def _plain(value: Any) -> Any:
    """The values as the file writes them: floats rounded, nothing empty."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item not in ((), [], {})}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


def shipped() -> Path:
    """The folder of calibrations that come with simroute: in the package as installed, beside it in a checkout."""
    packaged = _PACKAGE / "shipped_calibration"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "calibration"


def calibration_path(
    folder: str | Path, model: str, scheme: str, gpu: str, tensor_parallel: int = 1, kv_cache_dtype: str = "auto"
) -> Path:
    """Where `folder` keeps the calibration of these: <gpu>/<model>/<scheme>[-tpN][-fp8kv].yaml.

    Names are in lowercase, with dashes for spaces and slashes; a KV cache of 16 bits goes without saying.
    """
    suffix = f"-tp{tensor_parallel}" if tensor_parallel > 1 else ""
    suffix += "-fp8kv" if kv_cache_dtype.startswith("fp8") else ""
    return Path(folder) / _slug(gpu) / _slug(model) / f"{_slug(scheme)}{suffix}.yaml"


def find_calibration(
    folder: str | Path, model: str, scheme: str, gpu: str, tensor_parallel: int = 1, kv_cache_dtype: str = "auto"
) -> Path | None:
    """The file in `folder` for these names, by its place alone; None where there is none."""
    path = calibration_path(folder, model, scheme, gpu, tensor_parallel, kv_cache_dtype)
    return path if path.is_file() else None


def calibration_files(folder: str | Path) -> Iterator[Path]:
    """Every calibration file in `folder` and below, sorted. Raises CalibrationError where there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CalibrationError(f"{folder}: no such folder of calibrations")
    yield from sorted(path for path in folder.rglob("*.yaml") if not path.name.startswith("."))


def file_sha256(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes. Raises CalibrationError where it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read: {error.strerror}") from None


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-").replace("/", "-")
