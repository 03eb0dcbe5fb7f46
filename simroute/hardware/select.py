"""The one place that decides which StepTimeModel stands for a (model, quantization, GPU, TP): a calibration or the
estimate. Imports errors and this room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from simroute.errors import CalibrationError, CatalogueError, UsageError
from simroute.hardware import catalogue
from simroute.hardware.calibration import Calibration
from simroute.hardware.calibration_file import file_sha256, find_calibration, load_calibration, shipped
from simroute.hardware.fitted import FittedStepTime
from simroute.hardware.memory import kv_dtype_bytes
from simroute.hardware.roofline import RooflineStepTime
from simroute.hardware.specs import GpuSpec, ModelSpec, QuantScheme
from simroute.hardware.steptime import StepTimeModel


@dataclass(frozen=True, slots=True)
class FoundCalibration:
    """A calibration and its file. `name` is the path as given, or `shipped:` and the place in that folder."""

    calibration: Calibration
    name: str
    sha256: str


def step_time_model(
    model: ModelSpec,
    scheme: QuantScheme,
    gpu: GpuSpec,
    tensor_parallel: int = 1,
    *,
    kv_cache_dtype: str | None = None,
    async_scheduling: bool = True,
    calibration: Calibration | str | Path | None = None,
) -> StepTimeModel:
    """The step-time model of one replica: of the `calibration` given (or its file), else the roofline estimate.

    `calibration_in` looks one up. Callers read `basis` and `estimated`, so nothing else changes with the choice.
    Raises CatalogueError or UsageError for a combination that vLLM refuses, CalibrationError for a calibration of
    another one.
    """
    if calibration is None:
        return RooflineStepTime(
            model, scheme, gpu, tensor_parallel, kv_cache_dtype=kv_cache_dtype, async_scheduling=async_scheduling
        )
    if not isinstance(calibration, Calibration):
        calibration = calibration_at(calibration, model, scheme, gpu, tensor_parallel, kv_cache_dtype).calibration
    return FittedStepTime(calibration)


def calibration_at(
    path: str | Path,
    model: ModelSpec,
    scheme: QuantScheme,
    gpu: GpuSpec,
    tensor_parallel: int = 1,
    kv_cache_dtype: str | None = None,
) -> FoundCalibration:
    """The calibration in the file `path`, which must be of this model, scheme, GPU, TP and type of KV cache.

    Raises CalibrationError when it is of another, naming both.
    """
    found = _found(Path(path), str(path))
    theirs = found.calibration
    differences = [
        *_difference("model", theirs.model, model.name, lambda name: catalogue.model(name).name),
        *_difference("scheme", theirs.scheme, scheme.name, lambda name: catalogue.scheme(name).name),
        *_difference("gpu", theirs.gpu, gpu.name, lambda name: catalogue.gpu(name).name),
        *_difference("tensor_parallel", str(theirs.tensor_parallel), str(tensor_parallel), str),
    ]
    if not _same_cache(theirs, scheme, kv_cache_dtype):
        differences.append(f"kv_cache_dtype {theirs.kv_cache_dtype}, not {kv_cache_dtype or scheme.kv_cache_dtype}")
    if differences:
        raise CalibrationError(
            f"{path}: the calibration is of another replica: {'; '.join(differences)}; name one that was made for it, "
            "or leave it out"
        )
    return found


def calibration_in(
    folder: str | Path | None,
    model: ModelSpec,
    scheme: QuantScheme,
    gpu: GpuSpec,
    tensor_parallel: int = 1,
    kv_cache_dtype: str | None = None,
) -> FoundCalibration | None:
    """The calibration of this replica in `folder` (None: those that come with simroute), or None.

    Raises CalibrationError for a file in the replica's place that is unreadable or of another replica.
    """
    root = shipped() if folder is None else Path(folder)
    cache = kv_cache_dtype or scheme.kv_cache_dtype
    path = find_calibration(root, model.name, scheme.name, gpu.name, tensor_parallel, cache)
    if path is None:
        return None
    found = calibration_at(path, model, scheme, gpu, tensor_parallel, kv_cache_dtype)
    name = f"shipped:{path.relative_to(root).as_posix()}" if folder is None else found.name
    return FoundCalibration(found.calibration, name, found.sha256)


def _found(path: Path, name: str) -> FoundCalibration:
    return FoundCalibration(load_calibration(path), name, file_sha256(path))


def _difference(what: str, theirs: str, ours: str, known_as: Callable[[str], str]) -> list[str]:
    """What the calibration says instead of what is asked for; aliases of the catalogue are the same thing."""
    try:
        name = known_as(theirs)
    except CatalogueError:
        name = theirs
    return [] if name.lower() == ours.lower() else [f"{what} {theirs}, not {ours}"]


def _same_cache(theirs: Calibration, scheme: QuantScheme, kv_cache_dtype: str | None) -> bool:
    try:
        return kv_dtype_bytes(scheme, theirs.kv_cache_dtype) == kv_dtype_bytes(scheme, kv_cache_dtype)
    except UsageError:
        return False
