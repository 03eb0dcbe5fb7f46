"""From kernel tables or a layer profile to a whole calibration, with what it rests on and how wrong it may be.

Owns the constants that no kernel table holds, and how far composed steps were off where real ones were measured
(benchmarks/accuracy.py prints both). Imports this room, errors and hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simroute.calibration.ingest.compose import Composed, Limits, composed
from simroute.calibration.ingest.kernels import GRAPH_TOKENS, TableKernels
from simroute.calibration.ingest.layer_profile import ProfileKernels
from simroute.calibration.ingest.op_tables import SAME_CHIP, OpTables
from simroute.calibration.ingest.products import FORMATS
from simroute.errors import CalibrationError
from simroute.hardware import catalogue
from simroute.hardware.calibration import Calibration, Covariance, Provenance, StepTerms, gemm_name
from simroute.hardware.memory import engine_defaults, kv_blocks
from simroute.hardware.specs import GpuSpec, ModelSpec, QuantScheme

LAUNCH_S = 50e-6
"""Replaying a step's CUDA graph (as in roofline.py)."""
CPU_S = 0.2e-3
"""CPU time of a step that asynchronous scheduling does not hide, one GPU (as in roofline.py). Nothing was fitted: with
it, a run of vLLM 0.19 on a RTX 4090 is predicted to 1 %."""
RANKS_CPU_S = 0.97e-3
"""The same when workers in other processes get each step from the scheduler. Fitted to the six rows with 4 clients of
Llama-3.1-70B fp8 on 2, 4 and 8 H100 (vLLM 0.10.2, asynchronous scheduling). Newer versions may hide more."""
BIAS_SD = 0.06
"""Relative error that composed steps have in common. Times per output token of 30 measured rows on H100 are off by 4 %
(root mean square), those of a run on RTX 4090 by 1 %; no other GPU was compared, hence more."""
PROXY_BIAS_SD = 0.12
"""With products borrowed from other kernels: not compared with any run, an assumption."""
PREFILL_SD = 0.12
"""Relative error of large batches on top: the mean times to first token of the same 30 rows are off by 12 %."""
RATIO_FRAMEWORK = "trtllm"
MOST_TOKENS = 16384
"""Batches beyond this are composed for no engine: vLLM's largest default for a server."""
LONGEST_TOKENS = 32768


@dataclass(frozen=True, slots=True)
class Replica:
    """What is to be calibrated. `kv_cache_dtype` None is the scheme's default."""

    model: ModelSpec
    scheme: QuantScheme
    gpu: GpuSpec
    tensor_parallel: int = 1
    kv_cache_dtype: str | None = None

    def limits(self) -> Limits:
        """The largest batches that vLLM makes on it. Raises CapacityError when it does not fit."""
        tokens, seqs = engine_defaults(self.gpu)
        longest = min(self.model.max_position_embeddings, LONGEST_TOKENS)
        capacity = kv_blocks(
            self.model,
            self.scheme,
            self.gpu,
            tensor_parallel=self.tensor_parallel,
            kv_cache_dtype=self.kv_cache_dtype,
            max_model_len=min(longest, 4096),
            max_num_batched_tokens=tokens,
            max_num_seqs=seqs,
        )
        return Limits(MOST_TOKENS, seqs, capacity.usable_tokens, longest)


def from_op_tables(folder: Path, replica: Replica, source: str, retrieved: str | None = None) -> Calibration:
    """Compose the steps of `replica` from kernel tables in `folder` (see OpTables); `source` says whose they are.

    Raises CalibrationError where the tables lack a kernel, CapacityError when the model does not fit,
    CatalogueError or UsageError for what vLLM refuses.
    """
    limits = replica.limits()
    tables = OpTables(folder, replica.gpu.name, source=source)
    ratios = None if replica.scheme.name in FORMATS else _ratios(tables)
    kernels = TableKernels(
        tables,
        replica.model,
        replica.scheme,
        replica.tensor_parallel,
        kv_cache_dtype=replica.kv_cache_dtype,
        ratios=ratios,
    )
    fitted = composed(kernels, limits, LAUNCH_S + (CPU_S if replica.tensor_parallel == 1 else RANKS_CPU_S))
    used = [*tables.provenance(), *(ratios.provenance() if ratios else ())]
    return _calibration(
        replica,
        fitted,
        vllm=tables.version,
        proxy=kernels.borrowed,
        provenance=[row.model_copy(update={"retrieved": retrieved}) for row in used],
        notes=[*tables.notes, *(ratios.notes if ratios else ())],
    )


def from_layer_profile(
    folder: Path, replica: Replica, source: str, vllm: str, retrieved: str | None = None
) -> Calibration:
    """Compose the steps of `replica` from a profile of its layers, made with vLLM `vllm`.

    Raises CalibrationError for an incomplete profile, or more than one GPU (profiles hold no all-reduces).
    """
    if replica.tensor_parallel > 1:
        raise CalibrationError(f"{folder}: a layer profile holds no all-reduces: it serves tensor_parallel 1 alone")
    kernels = ProfileKernels(folder, replica.model)
    fitted = composed(kernels, replica.limits(), LAUNCH_S + CPU_S)
    provenance = [row.model_copy(update={"retrieved": retrieved}) for row in kernels.provenance(source)]
    return _calibration(replica, fitted, vllm=vllm, proxy=False, provenance=provenance, notes=[])


def _ratios(tables: OpTables) -> OpTables | None:
    """Tables of the framework whose ratios are borrowed, of this GPU or one with the same chip."""
    for gpu in (tables.gpu.name, SAME_CHIP.get(tables.gpu.name)):
        try:
            if gpu is not None:
                return OpTables(tables.folder.parent, gpu, RATIO_FRAMEWORK, tables.source)
        except CalibrationError:
            continue
    return None


def _calibration(
    replica: Replica, fitted: Composed, *, vllm: str, proxy: bool, provenance: list[Provenance], notes: list[str]
) -> Calibration:
    return Calibration(
        model=replica.model.name,
        scheme=replica.scheme.name,
        gpu=replica.gpu.name,
        tensor_parallel=replica.tensor_parallel,
        kv_cache_dtype=replica.kv_cache_dtype or "auto",
        vllm=vllm,
        basis="proxy" if proxy else "composed",
        step=fitted.step,
        range=fitted.range,
        error=fitted.error(PROXY_BIAS_SD if proxy else BIAS_SD),
        covariance=prefill_covariance(fitted.step),
        provenance=tuple(provenance),
        notes=(
            f"Composed from kernels, not measured on an engine: {fitted.steps} steps, fitted with these terms.",
            *notes,
        ),
    )


def prefill_covariance(step: StepTerms) -> Covariance:
    """All terms of batches too large for CUDA graphs are off together."""
    names = [gemm_name(tokens) for tokens in step.gemm_ms if tokens > GRAPH_TOKENS]
    names += [name for name in ("prefill_seq_us", "prefill_pair_ns") if getattr(step, name) > 0]
    row = (PREFILL_SD**2,) * len(names)
    return Covariance(parameters=tuple(names), relative=(row,) * len(names))


def named_replica(
    model: str, scheme: str, gpu: str, tensor_parallel: int = 1, kv_cache_dtype: str | None = None
) -> Replica:
    """A replica by the catalogue's names. Raises CatalogueError for unknown ones."""
    return Replica(
        catalogue.model(model), catalogue.scheme(scheme), catalogue.gpu(gpu), tensor_parallel, kv_cache_dtype
    )
