"""A whole model's kernels on one rank, added up from kernel tables: what one step makes the GPU do.

    layers * (qkv, o, gate_up, down products (or router and experts) + element-wise kernels + 2 all-reduces + attention)
    + output head and sampler for each request

Owns `Kernels`, the seam that `compose` asks, and `TableKernels`, which answers from `OpTables`. Imports errors and
hardware.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simroute.calibration.ingest.op_tables import Attention, Curve, OpTables
from simroute.calibration.ingest.products import BF16, EXPERT_FORMATS, Products
from simroute.calibration.solve import nonnegative
from simroute.errors import CalibrationError
from simroute.hardware.memory import kv_dtype_bytes, kv_token_bytes
from simroute.hardware.specs import SIXTEEN_BIT_BYTES, GpuSpec, ModelSpec, QuantScheme
from simroute.hardware.steptime import Batch
from simroute.hardware.weights import (
    attention_linears,
    check_shards,
    feed_forward_linears,
    kv_heads_on_rank,
    weight_bytes_of,
)

Floats = NDArray[np.float64]

ELEMENTWISE_KERNEL_S = 2.5e-6
"""A norm, activation or rotary kernel on few tokens: 2.2 to 3.3 us each on a RTX 4090 (LLMServingSim's profile)."""
STREAMED_BYTES = 256e6
"""What does not fit into any GPU's L2 cache (50 MB on H100, 96 on L40S, 126 on B200): kernels that read so much in the
tables read it from memory, as every layer of a served model does. Smaller ones may have been timed on a warm cache."""
GRAPH_TOKENS = 512
"""Batches up to here run in a CUDA graph (vLLM's largest capture size by default): padded to a multiple of 8, and
all-reduces need no launch."""
NVLINK_SHARE = 0.55
"""Of a link's rate that a large all-reduce keeps busy. NCCL reaches 0.82 (370 of 450 GB/s on H100) with messages of
gigabytes; steps of vLLM 0.20 on two to eight B300 agree with 0.55 for those of prompts, 10 to 80 MB. The tables time
vLLM's own kernel at every size, which vLLM takes only where it has nothing faster: beside it are NCCL, kernels on
symmetric memory and, in full graphs, all-reduces that are fused with the norm that follows."""
SAMPLER_S = 25e-6
SAMPLER_BYTES_PER_LOGIT = 8
"""Sampling: 25 us for one row and 1.0 us for each more, of 128,256 entries, on a RTX 4090 (same profile)."""
SHORT_TOKENS = 32
"""A context that costs decode attention nothing yet: what is left is the kernel and its requests."""


class Kernels(Protocol):
    """Seconds that the kernels of all layers take on one rank."""

    sizes: Floats
    """Batch sizes in tokens at which `tokens_s` rests on measurements, rising."""

    def tokens_s(self, tokens: float) -> float:
        """Whatever depends only on the number of tokens: products, element-wise kernels, all-reduces."""

    def attention_s(self, batch: Batch) -> float:
        """Attention of all layers."""

    def head_s(self, seqs: int) -> float:
        """Output head and sampler for `seqs` requests."""


class TableKernels:
    """Kernels of `model` under `scheme` on one of `tensor_parallel` GPUs, from `tables`.

    `ratios` are another framework's tables, for schemes that vLLM's lack. `full_graphs` is false before vLLM 0.11.
    Raises CalibrationError where the tables lack a kernel.
    """

    def __init__(
        self,
        tables: OpTables,
        model: ModelSpec,
        scheme: QuantScheme,
        tensor_parallel: int = 1,
        *,
        kv_cache_dtype: str | None = None,
        ratios: OpTables | None = None,
        full_graphs: bool = True,
    ) -> None:
        scheme.check_runs_on(tables.gpu)
        check_shards(model, tensor_parallel)
        self._products = Products(tables, scheme, ratios)
        self._model = model
        self._layers = model.num_hidden_layers
        self._linears = self._layer_curves(tables, scheme, tensor_parallel)
        self._reduce = _all_reduces(tables, tensor_parallel, full_graphs)
        self._elementwise = elementwise(model, tables.gpu, tensor_parallel)
        self._attention = _attention(tables, model, scheme, tensor_parallel, kv_cache_dtype)
        self._head = self._products.plain(model.vocab_size // tensor_parallel, model.hidden_size)
        self._row_s = sampled_row_s(model, tables.gpu, tensor_parallel)
        self.sizes = self._linears[0].sizes

    @property
    def borrowed(self) -> bool:
        """True when products rest on another framework's ratios."""
        return self._products.borrowed

    def tokens_s(self, tokens: float) -> float:
        """See Kernels."""
        layer_s = sum(curve.at(tokens) for curve in self._linears) + self._elementwise.at(tokens)
        if self._reduce is not None:
            in_graph, launched = self._reduce
            curve = in_graph if tokens <= GRAPH_TOKENS else launched
            layer_s += 2 * curve.at(tokens * self._model.hidden_size * SIXTEEN_BIT_BYTES)
        return self._layers * layer_s

    def attention_s(self, batch: Batch) -> float:
        """See Kernels."""
        return self._layers * self._attention.at(batch)

    def head_s(self, seqs: int) -> float:
        """See Kernels."""
        return self._head.at(seqs) + SAMPLER_S + seqs * self._row_s

    def _layer_curves(self, tables: OpTables, scheme: QuantScheme, tensor_parallel: int) -> list[Curve]:
        model = self._model
        shapes = attention_linears(model, tensor_parallel)
        curves = [self._products.of(shape.out_features, shape.in_features) for shape in shapes]
        if not model.is_moe:
            dense = feed_forward_linears(model, tensor_parallel)
            return curves + [self._products.of(shape.out_features, shape.in_features) for shape in dense]
        router = self._products.plain(model.num_experts, model.hidden_size)
        return [*curves, router, _experts(tables, model, scheme, tensor_parallel)]


def _experts(tables: OpTables, model: ModelSpec, scheme: QuantScheme, tensor_parallel: int) -> Curve:
    """The fused experts of one layer, never faster than those that one token picks can be read from memory."""
    if scheme.name not in EXPERT_FORMATS:
        raise CalibrationError(f"no table of kernel times has experts in {scheme.name}")
    curve = tables.experts(
        EXPERT_FORMATS[scheme.name],
        model.hidden_size,
        model.moe_intermediate_size,
        model.num_experts,
        model.num_experts_per_tok,
        tensor_parallel,
    )
    weights = sum(shape.weights for shape in feed_forward_linears(model, tensor_parallel))
    picked_bytes = model.num_experts_per_tok * weights * weight_bytes_of(scheme, expert=True)
    return Curve(curve.sizes, np.maximum(curve.seconds, picked_bytes / tables.stream_bytes_s(BF16)))


def _all_reduces(tables: OpTables, ranks: int, full_graphs: bool) -> tuple[Curve, Curve] | None:
    """An all-reduce inside a CUDA graph and one launched by itself, over bytes; None for one rank."""
    if ranks == 1:
        return None
    in_graph, launched = (tables.all_reduce(ranks, graph=graph) for graph in (True, False))
    if tables.gpu.over_pcie:
        tables.note("all-reduces cross PCIe: their times are those of the one host that was measured")
        return in_graph, launched
    byte_s = 2 * (ranks - 1) / ranks / (tables.gpu.interconnect_bytes_s * NVLINK_SHARE)
    return bounded(in_graph, byte_s) if full_graphs else in_graph, bounded(launched, byte_s)


def bounded(curve: Curve, byte_s: float) -> Curve:
    """`curve`, but no slower than its fastest size and then `byte_s` a byte."""
    limit = curve.seconds.min() + curve.sizes * byte_s
    return Curve(curve.sizes, np.minimum(curve.seconds, limit))


class Elementwise(NamedTuple):
    """Norms, activation, rotary embedding and cache write of one layer."""

    kernels: int
    token_s: float

    def at(self, tokens: float) -> float:
        """Seconds: launches while the tensors are small and cached, memory bandwidth beyond."""
        return max(self.kernels * ELEMENTWISE_KERNEL_S, tokens * self.token_s)


def elementwise(model: ModelSpec, gpu: GpuSpec, tensor_parallel: int) -> Elementwise:
    """From the values that each kernel reads and writes: a norm with its residual 4 hidden states, and so on."""
    query = model.num_attention_heads // tensor_parallel * model.head_dim
    key_value = 2 * kv_heads_on_rank(model, tensor_parallel) * model.head_dim
    values = 2 * 4 * model.hidden_size + 2 * (query + key_value // 2) + 2 * key_value
    kernels = 4  # two norms, rotary embedding, cache write
    if model.qk_norm:
        values, kernels = values + 2 * (query + key_value // 2), kernels + 1
    if not model.is_moe:  # (the fused experts have their activation inside)
        _, down = feed_forward_linears(model, tensor_parallel)
        values += 3 * down.in_features
    kernels += 1  # activation, or the choice of experts
    return Elementwise(kernels, values * SIXTEEN_BIT_BYTES / gpu.bandwidth_bytes_s)


def sampled_row_s(model: ModelSpec, gpu: GpuSpec, tensor_parallel: int) -> float:
    """Seconds that sampling adds for each request: its logits read, and gathered from the other ranks."""
    row_s = model.vocab_size * SAMPLER_BYTES_PER_LOGIT / gpu.bandwidth_bytes_s
    gathered = model.vocab_size * SIXTEEN_BIT_BYTES * (tensor_parallel - 1) / tensor_parallel
    return row_s + gathered / gpu.interconnect_bytes_s


class AttentionTerms(NamedTuple):
    """Seconds of one layer's attention: a kernel's floor over decoding requests, and what contexts and prompts add."""

    floor: Curve
    context_s: float
    prefill_seq_s: float
    prefill_token_s: float
    pair_s: float

    def at(self, batch: Batch) -> float:
        """Seconds of one layer's attention."""
        return (
            self.floor.at(batch.decode_seqs)
            + batch.decode_context_tokens * self.context_s
            + batch.prefill_seqs * self.prefill_seq_s
            + batch.prefill_tokens * self.prefill_token_s
            + batch.prefill_pairs * self.pair_s
        )


def _attention(
    tables: OpTables,
    model: ModelSpec,
    scheme: QuantScheme,
    tensor_parallel: int,
    kv_cache_dtype: str | None,
) -> AttentionTerms:
    heads, kv_heads = model.num_attention_heads // tensor_parallel, kv_heads_on_rank(model, tensor_parallel)
    kv_dtype = "fp8" if kv_dtype_bytes(scheme, kv_cache_dtype) == 1 else BF16
    decode = tables.decode_attention(heads, kv_heads, model.head_dim, kv_dtype)
    prefill = _plausible_prefill(tables, heads, kv_heads, model.head_dim, kv_dtype)
    floor = decode_floor(decode)
    slope_s = context_slope_s(decode, floor, kv_token_bytes(model, scheme, tensor_parallel, kv_cache_dtype))
    return AttentionTerms(floor, slope_s, *prefill_slopes_s(prefill, float(floor.seconds[0])))


def _plausible_prefill(tables: OpTables, heads: int, kv_heads: int, head_dim: int, kv_dtype: str) -> Attention:
    """Prefill attention as measured, unless that is faster than the GPU can multiply.

    Then that with a cache of 16 bits stands in (arithmetic decides, not the cache), or that of a GPU of the same chip.
    Raises CalibrationError when none of them is possible either.
    """
    sources = [source for source in (tables, tables.same_chip()) if source is not None]
    for source, dtype in product(sources, dict.fromkeys((kv_dtype, BF16))):
        measured: Attention = source.prefill_attention(heads, kv_heads, head_dim, dtype)
        if source.is_possible(measured, heads, head_dim):
            if (source, dtype) != (tables, kv_dtype):
                tables.note(
                    f"prefill attention with a cache in {kv_dtype} was timed faster than {tables.gpu.name} can "
                    f"multiply; that of {source.gpu.name} in {dtype} stands in"
                )
            return measured
    raise CalibrationError(
        f"{tables.folder}: prefill attention was timed faster than {tables.gpu.name} can multiply, "
        "and there is no other to stand in"
    )


def decode_floor(measured: Attention) -> Curve:
    """Seconds of decode attention over requests, while their contexts are too short to matter; rising."""
    short = measured.tokens <= max(SHORT_TOKENS, measured.tokens.min())
    counts = np.unique(measured.seqs[short])
    seconds = [np.median(measured.seconds[short & (measured.seqs == count)]) for count in counts]
    return Curve(counts, np.maximum.accumulate(seconds))


def context_slope_s(measured: Attention, floor: Curve, token_bytes: float) -> float:
    """Seconds that each token of context adds, where the cache is read from memory and not from L2."""
    context = measured.seqs * measured.tokens
    read = context * token_bytes
    far = read >= (STREAMED_BYTES if (read >= STREAMED_BYTES).any() else np.quantile(read, 0.9))
    above = measured.seconds[far] - np.array([floor.at(seqs) for seqs in measured.seqs[far]])
    return float(np.median(above / context[far]))


def prefill_slopes_s(measured: Attention, floor_s: float) -> tuple[float, float, float]:
    """Seconds that each request, each token and each (query, key) pair of prefill adds to `floor_s`."""
    tokens = measured.seqs * measured.tokens
    pairs = tokens * (measured.tokens + 1) / 2
    matrix = np.column_stack([measured.seqs, tokens, pairs]) / measured.seconds[:, None]
    seq_s, token_s, pair_s = nonnegative(matrix, np.maximum(1 - floor_s / measured.seconds, 0.0)).tolist()
    return seq_s, token_s, pair_s
