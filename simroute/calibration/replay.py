"""A measured load phase and its replay through the simulator, both as `FleetRun`s, so that one code measures both.

May import calibration's runs, fleet and everything below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

from simroute.calibration.runs import CUT, Phase, Run, RunMeta
from simroute.engine.config import EngineConfig
from simroute.errors import CalibrationError, UsageError, unknown
from simroute.fleet.cluster import simulate
from simroute.fleet.pool import Pool
from simroute.hardware.calibration import Calibration
from simroute.hardware.fitted import FittedStepTime
from simroute.policy.snapshot import Decision, Snapshot, VariantInfo
from simroute.results.itl import ItlHistogram
from simroute.results.metrics import Bools
from simroute.results.run import FleetRun, ReplicaTotals, Status, Timeline
from simroute.workload.columns import Floats
from simroute.workload.request import Request
from simroute.workload.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

POOL = "replica"
"""The name of the one pool, of one replica, that stands for the measured engine."""
TOKENS_PER_CHUNK = 1.1
"""Up to here a gap between two chunks is taken as a gap between two tokens: a client that falls behind now and then
receives two tokens at once."""
_ENGINE_ARGS = {"scheduling_policy": "policy"} | {
    name: name for name in ("long_prefill_token_threshold", "enable_chunked_prefill")
}
"""Arguments of vLLM that change the schedule and have no field of their own in meta.json."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One load phase as it was measured.

    `run` holds every request that loaded the engine, on a clock that starts with the first; `compared` (a mask) says
    which of them finished. The others were cut off: they are replayed and not compared. `refused` counts those that
    failed without a token and are not in `run`. `tokens_per_chunk` is NaN where the times of chunks are not known.
    """

    phase: Phase
    run: FleetRun
    compared: Bools
    tokens_per_chunk: float
    has_iterations: bool
    refused: int = 0


def engine_config(meta: RunMeta, overrides: Mapping[str, Any]) -> EngineConfig:
    """The measured engine's settings, `overrides` (see `parsed_overrides`) in their place.

    Raises UsageError for settings that vLLM refuses.
    """
    names = ("num_gpu_blocks", "block_size", "max_num_batched_tokens", "max_num_seqs", "max_model_len")
    settings = {name: getattr(meta, name) for name in (*names, "enable_prefix_caching", "async_scheduling")}
    given = {name.replace("-", "_"): value for name, value in meta.engine_args.items()}
    extra = {ours: given[theirs] for theirs, ours in _ENGINE_ARGS.items() if given.get(theirs) is not None}
    return EngineConfig(**{**settings, **_checked(extra, "engine_args in meta.json"), **overrides})


def parsed_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """`NAME=VALUE` texts as settings of `EngineConfig`. Raises UsageError for another form, name or type."""
    pairs = [text.partition("=") for text in texts]
    for name, equals, value in pairs:
        if not equals or not value:
            raise UsageError(f"--set {name}{equals}: must be NAME=VALUE, such as num_gpu_blocks=2588")
    return _checked({name.strip().replace("-", "_"): value.strip() for name, _, value in pairs}, "--set")


def _checked(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings in the types that `EngineConfig` has for them."""
    types = get_type_hints(EngineConfig)
    checked = {}
    for name, value in settings.items():
        if name not in types:
            raise UsageError(f"{where}: {unknown('engine setting', name, types)}")
        try:
            checked[name] = TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UsageError(f"{where} {name}: {reason[:1].lower()}{reason[1:]}, got {value!r}") from None
    return checked


def measured(run: Run, phase: Phase) -> Measured:
    """The requests of `phase` as they were measured. Raises CalibrationError when none finished."""
    part = run.phase(phase.name)
    sent = part.requests.sort_values("arrival_s", kind="stable")
    was_cut = sent["error"].fillna("").str.startswith(CUT)
    rows = sent[sent["ok"] | sent["first_token_s"].notna() | was_cut]
    arrival_s = rows["arrival_s"].to_numpy(np.float64)
    first_token_s = rows["first_token_s"].to_numpy(np.float64)
    finish_s = rows["finish_s"].to_numpy(np.float64)
    compared = rows["ok"].to_numpy(np.bool_) & ~np.isnan(first_token_s) & ~np.isnan(finish_s)
    if not compared.any():
        raise CalibrationError(f"{run.name}: phase '{phase.name}': none of its {len(sent)} requests finished")
    _check_order(run.name, phase.name, arrival_s[compared], first_token_s[compared], finish_s[compared])
    start_s = arrival_s.min()
    trace = Trace.build(
        arrival_s=arrival_s - start_s,
        input_tokens=rows["input_tokens"].to_numpy(),
        output_tokens=rows["output_tokens"].to_numpy(),
        name=phase.name,
    )
    chunks = [np.asarray(times, dtype=np.float64) for times in rows["chunk_s"].to_numpy()[compared]]
    itl, tokens_per_chunk = _gaps(chunks, trace.output_tokens[compared])
    n = len(trace)
    end_s = float(finish_s[compared].max() - start_s)
    fleet_run = FleetRun(
        trace=trace,
        policy="measured",
        seed=0,
        first_token_s=first_token_s - start_s,
        finish_s=finish_s - start_s,
        status=np.where(compared, Status.COMPLETED, Status.UNFINISHED).astype(np.int8),
        replica=np.zeros(n, dtype=np.int32),
        preemptions=np.zeros(n, dtype=np.int32),
        cached_tokens=np.zeros(n, dtype=np.int64),
        reason_code=np.full(n, -1, dtype=np.int32),
        reasons=(),
        itl=itl,
        timeline=_timeline(part.iterations, start_s, run.meta.num_gpu_blocks),
        replicas=[_totals(part, int(trace.output_tokens[compared].sum()))],
        end_s=end_s,
        horizon_s=None,
        interrupted=False,
    )
    return Measured(
        phase=phase,
        run=fleet_run,
        compared=compared,
        tokens_per_chunk=tokens_per_chunk,
        has_iterations=len(part.iterations) > 0,
        refused=len(sent) - len(rows),
    )


def replayed(of: Measured, calibration: Calibration, engine: EngineConfig) -> FleetRun:
    """What `calibration` predicts for the same requests, sent at the same times to one replica of `engine`.

    Of the requests, those compared count as completed. Raises CalibrationError when the engine would reject what was
    served.
    """
    pool = lone_pool(POOL, calibration, engine)
    trace = of.run.trace
    run = simulate(trace, [pool], _TheOne(), policy_name="predicted", seed=0)
    rejected = of.compared & (run.status != Status.COMPLETED)
    if rejected.any():
        reasons = ", ".join(run.reasons)
        raise CalibrationError(
            f"phase '{of.phase.name}': the replay rejects {rejected.sum()} of {of.compared.sum()} requests that were "
            f"served ({reasons}; max_model_len {engine.max_model_len}): give the engine's own settings with --set"
        )
    return replace(
        run,
        status=np.where(of.compared, run.status, Status.UNFINISHED).astype(np.int8),
        end_s=float(run.finish_s[of.compared].max()),
    )


class _TheOne:
    """The policy of a fleet of one replica."""

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """Always replica 0."""
        return Decision(0)


def lone_pool(name: str, calibration: Calibration, engine: EngineConfig) -> Pool:
    """One replica that only its calibration describes: of no known price or quality."""
    variant = VariantInfo(
        pool=name,
        model=calibration.model,
        quantization=calibration.scheme,
        gpu=calibration.gpu,
        tensor_parallel=calibration.tensor_parallel,
        usd_per_hour=0.0,
        usd_per_1m_tokens=0.0,
        max_num_seqs=engine.max_num_seqs,
        quality={},
    )
    return Pool(name, 1, variant, engine, FittedStepTime(calibration), calibration.tensor_parallel, calibration.request)


def _check_order(run: str, phase: str, arrival_s: Floats, first_token_s: Floats, finish_s: Floats) -> None:
    wrong = (first_token_s < arrival_s) | (finish_s < first_token_s)
    if wrong.any():
        raise CalibrationError(
            f"{run}: phase '{phase}': {wrong.sum()} requests end before they begin (arrival_s, first_token_s and "
            "finish_s must be on one clock)"
        )


def _gaps(chunks: Sequence[Floats], output_tokens: np.typing.NDArray[np.int64]) -> tuple[ItlHistogram, float]:
    """The pooled gaps between chunks, and how many tokens a chunk after the first carries on average."""
    itl = ItlHistogram()
    known = [(np.diff(times), tokens) for times, tokens in zip(chunks, output_tokens, strict=True) if len(times)]
    gaps = np.concatenate([each for each, _ in known]) if known else np.zeros(0)
    if not len(gaps):
        return itl, np.nan
    ones = np.ones(len(gaps), dtype=np.int64)
    itl.add(gaps, gaps, ones, ones)
    return itl, float(sum(tokens - 1 for _, tokens in known) / len(gaps))


def _timeline(iterations: pd.DataFrame, start_s: float, num_gpu_blocks: int) -> Timeline:
    """What each recorded step found, on the phase's clock; empty without steps."""
    columns = [iterations[name].to_numpy()[:, None] for name in ("running", "waiting", "kv_blocks_used")]
    return Timeline(
        t_s=iterations["t_s"].to_numpy(np.float64) - start_s,
        running=columns[0].astype(np.int32),
        waiting=columns[1].astype(np.int32),
        kv_usage=(columns[2] / max(num_gpu_blocks - 1, 1)).astype(np.float32),
    )


def _totals(part: Run, output_tokens: int) -> ReplicaTotals:
    steps, meta = part.iterations, part.meta
    return ReplicaTotals(
        replica=0,
        pool=POOL,
        gpu=meta.gpu,
        gpus=meta.tensor_parallel,
        usd_per_hour=0.0,
        estimated=False,
        num_gpu_blocks=meta.num_gpu_blocks,
        busy_s=float(steps["service_s"].sum()),
        steps=len(steps),
        prefill_tokens=int(steps["prefill_tokens"].sum()),
        output_tokens=output_tokens,
        preemptions=int(steps["preempted"].sum()),
        prefix_queried_tokens=0,
        prefix_hit_tokens=0,
        billed_s=0.0,
        ready_s=0.0,
    )
