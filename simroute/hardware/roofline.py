"""A step-time estimate from datasheets alone: used until a calibration exists, and always marked `estimated`.

    step = launch + cpu + sum over projections max(weight bytes / bandwidth, operations / rate)
         + prefill pairs * operations / rate + decode context * KV bytes / bandwidth + all-reduces + sampling

Rates and bandwidths are the GPU's, times an efficiency. Each efficiency is an assumption, stated below with the
public kernel measurements it rests on; docs/hardware.md shows how far off the whole is against measured runs.
Imports only this room's specs, weights, memory and steptime.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simroute.hardware.memory import kv_dtype_bytes, kv_token_bytes
from simroute.hardware.specs import SIXTEEN_BIT_BYTES, GpuSpec, ModelSpec, QuantScheme
from simroute.hardware.steptime import Basis, Batch, ScaledStepTime, StepTimeModel, Table
from simroute.hardware.weights import (
    LinearShape,
    attention_linears,
    check_shards,
    embedding_bytes,
    feed_forward_linears,
    weight_bytes_of,
)

WEIGHT_READ_EFFICIENCY = 0.88
"""Of memory bandwidth while a large weight matrix streams. vLLM 0.19 kernels: 0.86 (H100), 0.85 (H200), 0.88
(RTX PRO 6000), 0.82 (B200); 0.95 for the output head of a RTX 4090."""
KV_READ_EFFICIENCY = {2: 0.75, 1: 0.55}
"""Of memory bandwidth while decode attention reads the cache, by bytes of a cached value. Measured medians in 16 bits:
0.69 (H100), 0.79 (L40S), 0.82 (RTX 4090), 0.90 (RTX PRO 6000); in fp8: 0.55 (H100), 0.62 (B200)."""
SIXTEEN_BIT_EFFICIENCY = 0.75
"""Of the dense 16-bit rate, from 512 tokens on: 0.77 (H100), 0.75 (H200), 0.84 (A100), 0.69 (B200), 0.62 (L40S)."""
EIGHT_BIT_EFFICIENCY = 0.52
"""Of the dense 8-bit (and 4-bit) rate: 0.52 (H100), 0.58 (H200), 0.44 (L40S), 0.67 (RTX PRO 6000), 0.30 (B200)."""
DEQUANTIZE_FACTOR = 0.85
"""Weight-only schemes widen weights inside the product: 0.88 of the 16-bit speed on A100 at 4,096 tokens."""
DEQUANTIZE_FACTOR_HOPPER = 0.6
"""The same from compute capability 9 on, where vLLM's Marlin kernels keep to Ampere's instructions, which reach
about 60 % of the newer GPU's rate."""
EXPERT_EFFICIENCY_FACTOR = 0.6
"""Grouped products over many small experts, against one large product."""
PREFILL_ATTENTION_EFFICIENCY = 0.5
"""Of the dense 16-bit rate, causal pairs only: 0.27 (512 tokens), 0.45 (2k), 0.67 (16k) on H100."""
KERNEL_S = 4.5e-6
"""Start and tail of one matrix product inside a CUDA graph: 3.9 us on H100, 4.3 on H200, 6 on A100."""
QUANTIZE_ACTIVATION_S = 1.5e-6
"""Extra for a product that first quantizes its activations: 5.1 against 3.9 us on H100."""
LAYER_S = 20e-6
"""Everything else in a layer that does not grow with the batch: norms, rotary embedding, activation function, cache
write (2 to 3 us each), and the start of the attention kernel (8 to 13 us)."""
EXPERT_LAYER_S = 30e-6
"""Routing, sorting and un-sorting tokens in a mixture-of-experts layer."""
ELEMENTWISE_HIDDEN_TENSORS = 6
"""Hidden-state-sized tensors that norms, residuals and rotary embedding read or write in a layer."""
SAMPLER_BYTES_PER_LOGIT = 8
"""Bytes the sampler moves per vocabulary entry: 1.1 us a row of 128k entries on a RTX 4090."""
SAMPLER_S = 25e-6
"""Sampling one row: 25 us on a RTX 4090."""
LAUNCH_S = 50e-6
"""Replaying a step's CUDA graph."""
ASYNC_CPU_S = 0.2e-3
"""CPU time of a step that asynchronous scheduling does not hide behind the GPU."""
SYNC_CPU_S = 0.8e-3
SYNC_CPU_PER_SEQ_S = 8e-6
"""CPU time between steps without asynchronous scheduling: scheduling, detokenizing, output (per sequence)."""
ALL_REDUCES_PER_LAYER = 2
NVLINK_LATENCY_S = 5e-6
NVLINK_EFFICIENCY = 0.38
"""vLLM's all-reduce in a CUDA graph on 8 KiB and on 128 MiB: 4.4 to 8.2 us, 0.31 to 0.48 of a ring's bound."""
PCIE_LATENCY_S = 8e-6
PCIE_EFFICIENCY = 0.3
"""Both per peer: ranks share the host's bridges. L40S: 6 us and 0.30 for 2 ranks, 27 us and 0.03 for 8."""
ERROR_SD = 0.12
"""Relative error that all steps of one replica have in common. The closed-loop comparison of docs/hardware.md (29 runs
of a 70B model on H100) has 0.085 (root mean square); more here, for two constants were chosen with it in
sight."""


class _Product(NamedTuple):
    """One matrix product, all layers together: `read_s` to stream its weights, `token_s` to multiply one token."""

    read_s: float
    token_s: float


class RooflineStepTime:
    """StepTimeModel from the catalogue's numbers; `estimated` is True. All times in seconds.

    `async_scheduling` is vLLM's default on GPUs: CPU work overlaps the running step. `kv_cache_dtype` as for
    `kv_blocks`. Raises CatalogueError or UsageError for combinations vLLM refuses.
    """

    def __init__(
        self,
        model: ModelSpec,
        scheme: QuantScheme,
        gpu: GpuSpec,
        tensor_parallel: int = 1,
        *,
        kv_cache_dtype: str | None = None,
        async_scheduling: bool = True,
    ) -> None:
        scheme.check_runs_on(gpu)
        check_shards(model, tensor_parallel)
        self._model = model
        self._products = _products(model, scheme, gpu, tensor_parallel)
        self._experts = _expert_products(model, scheme, gpu, tensor_parallel)
        self._fixed_s = _fixed_s(model, scheme, gpu, async_scheduling)
        self._cpu_per_seq_s = 0.0 if async_scheduling else SYNC_CPU_PER_SEQ_S
        self._token_s = _elementwise_s(model, gpu, tensor_parallel)
        self._reduce_s, self._reduce_token_s = _all_reduce(model, gpu, tensor_parallel)
        self._head, self._sample_s = _head(model, gpu, tensor_parallel)
        full_layers = model.num_hidden_layers - model.sliding_window_layers
        kv_bandwidth_bytes_s = gpu.bandwidth_bytes_s * KV_READ_EFFICIENCY[kv_dtype_bytes(scheme, kv_cache_dtype)]
        layer_read_s = kv_token_bytes(model, scheme, tensor_parallel, kv_cache_dtype) / kv_bandwidth_bytes_s
        self._context_s = full_layers * layer_read_s
        window_s = model.sliding_window_layers * model.sliding_window_tokens * layer_read_s
        self._decode_seq_s = window_s + self._cpu_per_seq_s
        pair_operations = 4 * model.num_attention_heads // tensor_parallel * model.head_dim * full_layers
        self._pair_s = pair_operations / (gpu.sixteen_bit_flops * PREFILL_ATTENTION_EFFICIENCY)
        self._sampling = Table(self._sampling_s)
        self._tokens = Table(self._tokens_s)
        self._lines = Table(self._line)

    @property
    def estimated(self) -> bool:
        """Always True: nothing here was measured on this combination."""
        return True

    @property
    def basis(self) -> Basis:
        """Datasheets."""
        return "estimated"

    def drawn(self, rng: np.random.Generator) -> StepTimeModel:
        """The same estimate, all of it slower or faster by exp(N(0, ERROR_SD))."""
        return ScaledStepTime(self, float(np.exp(rng.normal(0.0, ERROR_SD))))

    def duration_s(self, batch: Batch) -> float:
        """Seconds one iteration of `batch` takes."""
        decode_seqs = batch.decode_seqs
        return (
            self._tokens[batch.prefill_tokens + decode_seqs]
            + self._sampling[batch.sampled_seqs]
            + batch.prefill_seqs * self._cpu_per_seq_s
            + decode_seqs * self._decode_seq_s
            + batch.prefill_pairs * self._pair_s
            + batch.decode_context_tokens * self._context_s
        )

    def decode_line(self, decode_seqs: int) -> tuple[float, float]:
        """(intercept_s, slope_s_per_context_token) of a step in which `decode_seqs` requests decode one token each."""
        return self._lines[decode_seqs]

    def _line(self, decode_seqs: int) -> tuple[float, float]:
        return self.duration_s(Batch(0, 0, 0, decode_seqs, 0, decode_seqs)), self._context_s

    def _sampling_s(self, sampled_seqs: int) -> float:
        """The output head and the sampler for so many rows."""
        if not sampled_seqs:
            return 0.0
        head = self._head
        return SAMPLER_S + max(head.read_s, sampled_seqs * head.token_s) + sampled_seqs * self._sample_s

    def _tokens_s(self, tokens: int) -> float:
        """What every step costs, with projections, element-wise work and communication for so many tokens: monotone."""
        seconds = self._fixed_s + tokens * self._token_s + self._reduce_s + tokens * self._reduce_token_s
        seconds += sum(max(product.read_s, tokens * product.token_s) for product in self._products)
        if self._experts:
            share = expected_experts(self._model, tokens) / self._model.num_experts
            seconds += sum(max(share * product.read_s, tokens * product.token_s) for product in self._experts)
        return seconds


def expected_experts(model: ModelSpec, tokens: int) -> float:
    """Distinct experts that `tokens` tokens hit in one layer when each picks its experts evenly at random."""
    miss = 1 - model.num_experts_per_tok / model.num_experts
    return model.num_experts * (1 - miss**tokens)


def _products(model: ModelSpec, scheme: QuantScheme, gpu: GpuSpec, tensor_parallel: int) -> tuple[_Product, ...]:
    shapes: tuple[LinearShape, ...] = attention_linears(model, tensor_parallel)
    if not model.is_moe:
        shapes += feed_forward_linears(model, tensor_parallel)
    rate = _rate(scheme, gpu, quantized=scheme.quantizes_linear)
    width = weight_bytes_of(scheme, expert=False)
    return tuple(_product(shape, model.num_hidden_layers, width, rate, gpu) for shape in shapes)


def _expert_products(model: ModelSpec, scheme: QuantScheme, gpu: GpuSpec, tensor_parallel: int) -> tuple[_Product, ...]:
    """Expert projections: `read_s` for all experts of all layers, `token_s` for the experts one token picks."""
    if not model.is_moe:
        return ()
    rate = _rate(scheme, gpu, quantized=scheme.quantizes_experts) * EXPERT_EFFICIENCY_FACTOR
    width = weight_bytes_of(scheme, expert=True)
    products = (
        _product(shape, model.num_hidden_layers, width, rate, gpu)
        for shape in feed_forward_linears(model, tensor_parallel)
    )
    return tuple(
        _Product(product.read_s * model.num_experts, product.token_s * model.num_experts_per_tok)
        for product in products
    )


def _product(shape: LinearShape, layers: int, weight_bytes: float, rate: float, gpu: GpuSpec) -> _Product:
    read_s = shape.weights * weight_bytes / (gpu.bandwidth_bytes_s * WEIGHT_READ_EFFICIENCY)
    return _Product(read_s * layers, 2 * shape.weights / rate * layers)


def _rate(scheme: QuantScheme, gpu: GpuSpec, *, quantized: bool) -> float:
    """Operations a second that a projection reaches when the batch is large."""
    if not quantized or scheme.compute_dtype in ("bf16", "fp16"):
        return gpu.sixteen_bit_flops * SIXTEEN_BIT_EFFICIENCY
    if scheme.is_native_on(gpu):
        return gpu.flops[scheme.compute_dtype] * EIGHT_BIT_EFFICIENCY
    factor = DEQUANTIZE_FACTOR_HOPPER if gpu.compute_capability >= 9 else DEQUANTIZE_FACTOR
    return gpu.sixteen_bit_flops * SIXTEEN_BIT_EFFICIENCY * factor


def _fixed_s(model: ModelSpec, scheme: QuantScheme, gpu: GpuSpec, async_scheduling: bool) -> float:
    """Launch, CPU, and what each layer costs however small the batch."""
    quantizes = scheme.quantizes_linear and scheme.is_native_on(gpu) and scheme.weight_bits < 16
    kernel_s = KERNEL_S + (QUANTIZE_ACTIVATION_S if quantizes else 0.0)
    layer_s = LAYER_S + 4 * kernel_s + (EXPERT_LAYER_S if model.is_moe else 0.0)
    cpu_s = ASYNC_CPU_S if async_scheduling else SYNC_CPU_S
    return LAUNCH_S + cpu_s + model.num_hidden_layers * layer_s


def _elementwise_s(model: ModelSpec, gpu: GpuSpec, tensor_parallel: int) -> float:
    """Seconds a token adds in memory-bound element-wise kernels of all layers."""
    _, down = feed_forward_linears(model, tensor_parallel)
    gated = 3 * down.in_features * max(1, model.num_experts_per_tok)
    values = gated + ELEMENTWISE_HIDDEN_TENSORS * model.hidden_size
    return model.num_hidden_layers * values * SIXTEEN_BIT_BYTES / (gpu.bandwidth_bytes_s * WEIGHT_READ_EFFICIENCY)


def _all_reduce(model: ModelSpec, gpu: GpuSpec, tensor_parallel: int) -> tuple[float, float]:
    """(seconds a step, seconds a token) of the ring all-reduces of all layers."""
    peers = tensor_parallel - 1
    if peers == 0:
        return 0.0, 0.0
    latency_s = PCIE_LATENCY_S * peers if gpu.over_pcie else NVLINK_LATENCY_S
    efficiency = PCIE_EFFICIENCY / peers if gpu.over_pcie else NVLINK_EFFICIENCY
    count = ALL_REDUCES_PER_LAYER * model.num_hidden_layers
    ring_bytes = 2 * peers / tensor_parallel * model.hidden_size * SIXTEEN_BIT_BYTES
    return count * latency_s, count * ring_bytes / (gpu.interconnect_bytes_s * efficiency)


def _head(model: ModelSpec, gpu: GpuSpec, tensor_parallel: int) -> tuple[_Product, float]:
    """The output head (sampled rows only), and the sampler's seconds a row."""
    head_bytes = embedding_bytes(model, tensor_parallel)
    rate = gpu.sixteen_bit_flops * SIXTEEN_BIT_EFFICIENCY
    bandwidth_bytes_s = gpu.bandwidth_bytes_s * WEIGHT_READ_EFFICIENCY
    product = _Product(head_bytes / bandwidth_bytes_s, 2 * head_bytes / SIXTEEN_BIT_BYTES / rate)
    return product, model.vocab_size * SAMPLER_BYTES_PER_LOGIT / bandwidth_bytes_s
