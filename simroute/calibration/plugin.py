"""The vLLM plug-in: one record an engine iteration, from an unmodified vLLM (written for 0.19 to 0.33).

Where simroute is installed beside vLLM, the entry point `vllm.general_plugins` calls `register` in each of vLLM's
processes; with SIMROUTE_TRACE_STEPS=path set, the process that schedules writes path.<pid>, otherwise nothing happens.
The file is lines of JSON: a header (an object: clock, engine, names of the columns), then a list for each iteration.

Owns that file. Runs inside vLLM: it imports nothing but the standard library (and vLLM where it is called), and
whatever goes wrong here is logged once and never reaches the engine.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

VARIABLE = "SIMROUTE_TRACE_STEPS"
COLUMNS = (
    "t_s",  # schedule() began; all times are of the monotonic clock
    "service_s",  # from the end of schedule(), or the output before if that was later, to this output
    "sched_s",
    "prefill_seqs",
    "prefill_tokens",
    "prefill_context_tokens",
    "prefill_pairs",
    "decode_seqs",
    "decode_context_tokens",
    "sampled_seqs",
    "kv_blocks_used",
    "running",
    "waiting",
    "preempted",
)
FLUSH_INTERVAL_S = 1.0

_log = logging.getLogger("vllm.plugins.simroute")  # below "vllm", whose handlers print it


def register() -> None:
    """Entry point: wrap vLLM's scheduler when SIMROUTE_TRACE_STEPS is set. Called once or more in each process."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    try:
        file = StepFile(path)
        wrap(importlib.import_module("vllm.v1.core.sched.scheduler").Scheduler, file)
        atexit.register(file.close)
    except Exception as error:
        _log.warning("simroute: steps are not traced: %s: %s", type(error).__name__, error)


def wrap(scheduler_class: Any, file: StepFile) -> None:
    """Make every instance of `scheduler_class` record its iterations in `file`; does nothing the second time.

    Raises AttributeError, having changed nothing, when the class is not a scheduler as known here.
    """
    if hasattr(scheduler_class, "_simroute_wrapped"):
        return
    schedule, update = scheduler_class.schedule, scheduler_class.update_from_output
    preempt = getattr(scheduler_class, "_preempt_request", None)

    @functools.wraps(schedule)
    def traced_schedule(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = _recorder(self, file)
        recorder.preempted = 0
        begin = time.monotonic()
        output = schedule(self, *args, **kwargs)
        recorder.scheduled(self, output, begin, time.monotonic())
        return output

    @functools.wraps(update)
    def traced_update(self: Any, output: Any, *args: Any, **kwargs: Any) -> Any:
        now = time.monotonic()
        result = update(self, output, *args, **kwargs)
        _recorder(self, file).finished(self, output, now)
        return result

    @functools.wraps(preempt or _zero)
    def traced_preempt(self: Any, *args: Any, **kwargs: Any) -> Any:
        _recorder(self, file).preempted += 1
        return preempt(self, *args, **kwargs)  # type: ignore[misc]

    scheduler_class.schedule, scheduler_class.update_from_output = traced_schedule, traced_update
    if preempt is None:
        _log.warning("simroute: this vLLM has no Scheduler._preempt_request: preemptions are recorded as 0")
    else:
        scheduler_class._preempt_request = traced_preempt
    scheduler_class._simroute_wrapped = True


class StepFile:
    """The file of one process, begun with its first record: buffered, written out about once a second and when idle."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._flushed_s = 0.0

    def write(self, line: str, scheduler: Any) -> None:
        """Append a record; `scheduler` fills the header of the first."""
        if self._file is None:
            self._file = open(f"{self._path}.{os.getpid()}", "w", buffering=1 << 20, encoding="utf-8")  # noqa: SIM115
            self._file.write(json.dumps(header(scheduler)) + "\n")
        self._file.write(line)

    def flush(self, now_s: float, idle: bool) -> None:
        """Hand what is buffered to the system when that is due: always when the engine falls idle."""
        if self._file is not None and (idle or now_s - self._flushed_s > FLUSH_INTERVAL_S):
            self._flushed_s = now_s
            self._file.flush()

    def close(self) -> None:
        """Write out what is left."""
        if self._file is not None:
            self._file.close()


class _Recorder:
    """What one scheduler's iterations amount to. Under asynchronous scheduling two of them are in flight."""

    def __init__(self, file: StepFile) -> None:
        self.preempted = 0
        self._file = file
        self._last_output_s = 0.0
        self._pending: dict[int, tuple[float, float, str]] = {}
        self._stopped = False
        self._waiting: Callable[[Any], int] = _all_waiting
        self._kv_blocks_used: Callable[[Any], int] = _kv_blocks_used

    def scheduled(self, scheduler: Any, output: Any, begin_s: float, end_s: float) -> None:
        """Count what `output` computes, while its requests still stand as schedule() left them."""
        if self._stopped or not output.total_num_scheduled_tokens:
            return
        try:
            counts = _counts(scheduler.requests, output.num_scheduled_tokens)
            used, waiting = self._optional("_kv_blocks_used", scheduler), self._optional("_waiting", scheduler)
            rest = f"{counts},{used},{len(scheduler.running)},{waiting},{self.preempted}]\n"
            self._pending[id(output)] = (begin_s, end_s, rest)
        except Exception as error:
            self._stop(error)

    def finished(self, scheduler: Any, output: Any, now_s: float) -> None:
        """Write the record of the iteration that has just given its output."""
        pending = self._pending.pop(id(output), None)
        if pending is None or self._stopped:
            return
        begin_s, end_s, rest = pending
        service_s = now_s - max(self._last_output_s, end_s)
        self._last_output_s = now_s
        try:
            self._file.write(f"[{begin_s:.6f},{service_s:.6f},{end_s - begin_s:.6f},{rest}", scheduler)
            self._file.flush(now_s, idle=not scheduler.running)
        except Exception as error:
            self._stop(error)

    def _optional(self, name: str, scheduler: Any) -> int:
        """A count that a run can do without: 0 from the moment on that this vLLM turns out not to offer it."""
        try:
            return int(getattr(self, name)(scheduler))
        except Exception as error:
            _log.warning("simroute: %s is recorded as 0: %s: %s", name.strip("_"), type(error).__name__, error)
            setattr(self, name, _zero)
            return 0

    def _stop(self, error: Exception) -> None:
        self._stopped = True
        self._pending.clear()
        _log.warning("simroute: steps are no longer traced: %s: %s", type(error).__name__, error)


def _recorder(scheduler: Any, file: StepFile) -> _Recorder:
    recorder: _Recorder | None = scheduler.__dict__.get("_simroute_recorder")
    if recorder is None:
        recorder = scheduler._simroute_recorder = _Recorder(file)
    return recorder


def _counts(requests: Any, scheduled: dict[str, int]) -> str:
    """The columns prefill_seqs to sampled_seqs, comma-separated.

    schedule() has already counted this step's tokens as computed. A request decodes when it is given exactly one
    token past its prompt; all else is prefill. It samples when it has caught up with its tokens.
    """
    seqs = tokens = context = pairs = decode_seqs = decode_context = sampled = 0
    for request_id, count in scheduled.items():
        request = requests[request_id]
        end = request.num_computed_tokens
        start = end - count
        if not request.is_prefill_chunk:
            sampled += 1
        if count == 1 and start >= request.num_prompt_tokens:
            decode_seqs += 1
            decode_context += end
        else:
            seqs += 1
            tokens += count
            context += start
            pairs += count * start + count * (count + 1) // 2
    return f"{seqs},{tokens},{context},{pairs},{decode_seqs},{decode_context},{sampled}"


def _all_waiting(scheduler: Any) -> int:
    """Waiting requests, those included that a newer vLLM keeps in queues of their own."""
    return int(scheduler.get_request_counts()[1])


def _kv_blocks_used(scheduler: Any) -> int:
    pool = scheduler.kv_cache_manager.block_pool
    return int(pool.num_gpu_blocks - 1 - pool.get_num_free_blocks())  # block 0 is never handed out


def _zero(_scheduler: Any) -> int:
    return 0


def header(scheduler: Any) -> dict[str, Any]:
    """The file's first line. `engine` holds what this vLLM tells of itself; what it does not is left out."""
    return {
        "simroute_steps": 1,
        "pid": os.getpid(),
        "boot_id": boot_id(),
        "monotonic_s": time.monotonic(),
        "unix_s": time.time(),
        "columns": COLUMNS,
        "engine": _engine(scheduler),
    }


def boot_id() -> str | None:
    """What tells two machines, and so two monotonic clocks, apart; None where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _engine(scheduler: Any) -> dict[str, Any]:
    def attribute(path: str) -> Any:
        value = scheduler
        for name in path.split("."):
            value = getattr(value, name)
        return value

    config = "vllm_config."
    wanted: dict[str, Callable[[], Any]] = {
        "vllm": lambda: sys.modules["vllm"].__version__,
        "gpu": _device_name,
        "num_gpu_blocks": lambda: attribute("kv_cache_manager.block_pool.num_gpu_blocks"),
        "block_size": lambda: attribute(config + "cache_config.block_size"),
        "enable_prefix_caching": lambda: bool(attribute(config + "cache_config.enable_prefix_caching")),
        "kv_cache_dtype": lambda: str(attribute(config + "cache_config.cache_dtype")),
        "gpu_memory_utilization": lambda: float(attribute(config + "cache_config.gpu_memory_utilization")),
        "max_num_seqs": lambda: int(attribute(config + "scheduler_config.max_num_seqs")),
        "max_num_batched_tokens": lambda: int(attribute(config + "scheduler_config.max_num_batched_tokens")),
        "async_scheduling": lambda: bool(attribute(config + "scheduler_config.async_scheduling")),
        "scheduling_policy": lambda: str(attribute(config + "scheduler_config.policy")),
        "enable_chunked_prefill": lambda: bool(attribute(config + "scheduler_config.enable_chunked_prefill")),
        "long_prefill_token_threshold": lambda: int(
            attribute(config + "scheduler_config.long_prefill_token_threshold")
        ),
        "max_model_len": lambda: int(attribute(config + "model_config.max_model_len")),
        "model": lambda: str(attribute(config + "model_config.model")),
        "dtype": lambda: str(attribute(config + "model_config.dtype")),
        "enforce_eager": lambda: bool(attribute(config + "model_config.enforce_eager")),
        "cudagraph_capture_sizes": lambda: [
            int(size) for size in attribute(config + "compilation_config.cudagraph_capture_sizes")
        ],
        "quantization": lambda: _plain(attribute(config + "model_config.quantization")),
        "tensor_parallel": lambda: int(attribute(config + "parallel_config.tensor_parallel_size")),
        "load_format": lambda: str(attribute(config + "load_config.load_format")),
        "model_config": lambda: json.loads(attribute(config + "model_config.hf_config").to_json_string(use_diff=False)),
    }
    told, unknown = {}, []
    for name, read in wanted.items():
        try:
            told[name] = read()
        except Exception as error:
            unknown.append(f"{name} ({error})")
    if unknown:
        _log.warning("simroute: of the engine is unknown: %s", ", ".join(unknown))
    return told


def _device_name() -> str:
    platform = sys.modules["vllm.platforms"].current_platform
    return "cpu" if platform.is_cpu() else str(platform.get_device_name())


def _plain(value: Any) -> str | None:
    return None if value is None else str(value)
