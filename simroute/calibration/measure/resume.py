"""What a run directory holds already, and whether the engine and the plan at hand may go on with it.

Imports `client`, `tables`, calibration's `runs` and errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simroute.calibration.measure.client import Answer
from simroute.calibration.measure.tables import without_failed
from simroute.calibration.runs import CUT, META, Run, RunMeta, read_run
from simroute.errors import CalibrationError


def kept(out: Path, plan: Mapping[str, Any]) -> Run | None:
    """What `out` holds of this plan. Raises CalibrationError when it holds a run of another."""
    if not (out / META).exists():
        return None
    run = without_failed(read_run(out))
    if run.meta.plan != plan:
        changed = [key for key, value in plan.items() if run.meta.plan.get(key) != value]
        raise CalibrationError(
            f"{out}: holds a run with another {', '.join(changed) or 'plan'}: give the same options to go on with it, "
            "or choose another -o"
        )
    return run


def difference(old: RunMeta, new: RunMeta) -> str:
    """The first thing in which the engine of `new` is not that of `old`; empty when it is the same.

    KV blocks may differ: how much memory is free when an engine starts is not the same every time.
    """
    names = ("model", "gpu", "scheme", "vllm", "tensor_parallel", "dummy_weights")
    was, now = ({name: getattr(meta, name) for name in names} | meta.engine_args for meta in (old, new))
    for name in was:
        if name != "num_gpu_blocks" and name in now and was[name] != now[name]:
            return f"{name} was {was[name]}, now is {now[name]}"
    return "" if old.hf_config == new.hf_config else "its model_config differs"


def prepare(out: Path) -> None:
    """Make the directory, and see that it can be written. Raises CalibrationError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".{META}.partial"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CalibrationError(f"{out}: cannot write there: {error.strerror}; choose another -o") from None


def went_well(answers: Sequence[Answer]) -> bool:
    """Whether a load need not be measured again: none of its requests failed, though its end may have cut some off."""
    errors = {answer.error for answer in answers}
    failed = [error for error in errors if error is not None and not error.startswith(CUT)]
    return not failed and (None in errors or not errors)
