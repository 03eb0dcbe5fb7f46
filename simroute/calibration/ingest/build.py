"""From kernel tables or a layer profile to a whole calibration, with what it rests on and how wrong it may be.

Owns the constants that no kernel table holds, and how far composed steps were off where real ones were measured
(benchmarks/accuracy.py prints both). Imports this room, errors and hardware.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from simroute.calibration.ingest.compose import Composed, Limits, Overhead, composed
from simroute.calibration.ingest.kernels import GRAPH_TOKENS, TableKernels
from simroute.calibration.ingest.layer_profile import ProfileKernels
from simroute.calibration.ingest.op_tables import SAME_CHIP, OpTables
from simroute.calibration.ingest.products import FORMATS
from simroute.errors import CalibrationError
from simroute.hardware import catalogue
from simroute.hardware.calibration import Calibration, Covariance, Provenance, RequestTerms, StepTerms, gemm_name
from simroute.hardware.memory import engine_defaults, kv_blocks
from simroute.hardware.specs import GpuSpec, ModelSpec, QuantScheme

LAUNCH_S = 50e-6
"""Replaying a step's CUDA graph (as in roofline.py)."""
CPU_S = 0.2e-3
"""CPU time of a step that asynchronous scheduling does not hide, one GPU (as in roofline.py). Nothing was fitted: with
it, a run of vLLM 0.19 on a RTX 4090 is predicted to 1 %."""
FULL_GRAPHS_FROM = (0, 11)
"""The first vLLM that replays a step which only decodes as one CUDA graph by default (vllm-project/vllm #25444)."""
PIECEWISE_DECODE_S = 10e-6
"""Before that, what launching attention between the pieces of a graph costs a layer. Fitted to the six rows with 4
clients of Llama-3.1-70B fp8 on 2, 4 and 8 H100 (vLLM 0.10.2)."""
PIECEWISE_PROMPT_S = 30e-6
"""The same for a step with a prompt, in every version: a step of vLLM 0.20 over a prompt of 128 tokens takes 2 ms more
than one that decodes (Qwen3-32B, 64 layers, on one to eight B300; aiconfigurator's forward-pass metrics)."""
REQUEST_MS = 1.0
"""HTTP, tokenizing, and the way to the engine: an assumption. Mean times to first token of the rows above agree with
anything up to 3 ms; it is enough for a client's next request to miss the step that follows its last answer."""
BIAS_SD = 0.06
"""Relative error that composed steps have in common. Times per output token of 30 measured rows on H100 are off by 4 %
(root mean square), decode steps on B300 by 5 %, a run on RTX 4090 by 1 %; other GPUs were not compared."""
PROXY_BIAS_SD = 0.12
"""With products borrowed from other kernels: not compared with any run, an assumption."""
PREFILL_SD = 0.1
"""Relative error of large batches on top: the mean times to first token of the same 30 rows are off by 10 %, steps with
prompts on B300 by 6 %."""
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


def from_op_tables(
    folder: Path, replica: Replica, source: str, retrieved: str | None = None, vllm: str | None = None
) -> Calibration:
    """Compose the steps of `replica` from kernel tables in `folder` (see OpTables); `source` says whose they are.

    `vllm` is the version to compose for: by default that of the tables.
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
        full_graphs=full_graphs(vllm or tables.version),
    )
    fitted = composed(kernels, limits, overhead(replica.model, vllm or tables.version))
    used = [*tables.provenance(), *(ratios.provenance() if ratios else ())]
    return _calibration(
        replica,
        fitted,
        vllm=vllm or tables.version,
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
    fitted = composed(kernels, replica.limits(), overhead(replica.model, vllm))
    provenance = [row.model_copy(update={"retrieved": retrieved}) for row in kernels.provenance(source)]
    return _calibration(replica, fitted, vllm=vllm, proxy=False, provenance=provenance, notes=[])


def full_graphs(vllm: str) -> bool:
    """Whether this version replays a step that only decodes as one CUDA graph; where unknown, as if it were new."""
    numbers = re.match(r"(\d+)\.(\d+)", vllm)
    return numbers is None or (int(numbers[1]), int(numbers[2])) >= FULL_GRAPHS_FROM


def overhead(model: ModelSpec, vllm: str) -> Overhead:
    """What a step of `model` takes beside its kernels under this version, scheduled asynchronously."""
    layers = model.num_hidden_layers
    pieces_s = 0.0 if full_graphs(vllm) else layers * PIECEWISE_DECODE_S
    return Overhead(LAUNCH_S + CPU_S + pieces_s, layers * PIECEWISE_PROMPT_S - pieces_s)


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
        request=RequestTerms(overhead_ms=REQUEST_MS),
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
