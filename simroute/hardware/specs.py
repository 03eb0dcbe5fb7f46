"""The nouns of the hardware room: GPU, model, quantization scheme, price, accuracy row. Imports only errors and units.

Values are data: `catalogue` fills these from CSV files, `modelconfig` from a local `config.json`.
"""

from __future__ import annotations

from dataclasses import dataclass

from simroute.errors import CatalogueError
from simroute.units import GIB

SIXTEEN_BIT_BYTES = 2
"""Bytes of one bf16 or fp16 value: embeddings, norms, biases and unquantized weights."""


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One GPU (or accelerator): what a vendor's datasheet and the driver say of it.

    `memory_gib` is the total that the driver reports, which is below the number on the box. `flops` maps a
    compute dtype (bf16, fp16, fp8, int8, fp4) to its dense rate in operations a second; an unsupported dtype is
    absent. `interconnect_bytes_s` is one direction of one GPU's link to its peers.
    """

    name: str
    vendor: str
    compute_capability: float
    memory_gib: float
    bandwidth_bytes_s: float
    flops: dict[str, float]
    interconnect: str
    interconnect_bytes_s: float
    source: str
    retrieved: str

    @property
    def memory_bytes(self) -> float:
        """Total device memory in bytes."""
        return self.memory_gib * GIB

    @property
    def sixteen_bit_flops(self) -> float:
        """Dense rate of 16-bit matrix products: bf16 where there is one, else fp16."""
        return self.flops.get("bf16", self.flops["fp16"])

    @property
    def over_pcie(self) -> bool:
        """True when tensor-parallel traffic crosses PCIe and the host's bridges."""
        return self.interconnect.startswith("PCIe")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder-only transformer, by the values of its `config.json`.

    Dense models have `num_experts` 0; mixture-of-experts models have experts in every layer, each
    `moe_intermediate_size` wide. `attention_bias` is none, qkv or all (qkv and output projection).
    """

    name: str
    hf_id: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    attention_bias: str
    qk_norm: bool
    max_position_embeddings: int
    sliding_window_tokens: int
    sliding_window_layers: int
    native_scheme: str
    source: str
    retrieved: str

    @property
    def is_moe(self) -> bool:
        """True for a mixture of experts."""
        return self.num_experts > 0


@dataclass(frozen=True, slots=True)
class QuantScheme:
    """How weights are stored and in which dtype their products are computed.

    `weight_bits + scale_bits` is the storage of one quantized weight, scales and zero points included.
    `quantized_layers` is none, linear (every projection of every layer) or experts (only those of a mixture);
    embeddings, the output head, norms and routers stay 16-bit. `compute_dtype` is the activation dtype of the
    matrix product, `16bit` for weight-only schemes. `kv_cache_dtype` auto means 16-bit.
    """

    name: str
    weight_bits: float
    scale_bits: float
    quantized_layers: str
    compute_dtype: str
    kv_cache_dtype: str
    min_compute_capability: float
    max_compute_capability: float
    amd: bool
    weight_only: bool
    description: str
    source: str
    retrieved: str

    @property
    def weight_bytes(self) -> float:
        """Bytes of one quantized weight, its share of scales included."""
        return (self.weight_bits + self.scale_bits) / 8

    @property
    def quantizes_linear(self) -> bool:
        """True when attention and dense feed-forward projections are quantized."""
        return self.quantized_layers == "linear"

    @property
    def quantizes_experts(self) -> bool:
        """True when expert weights are quantized."""
        return self.quantized_layers in ("linear", "experts")

    def is_native_on(self, gpu: GpuSpec) -> bool:
        """True when `gpu` multiplies in this scheme's compute dtype; otherwise weights are widened first."""
        return not self.weight_only and self.compute_dtype in gpu.flops

    def check_runs_on(self, gpu: GpuSpec) -> None:
        """Raise CatalogueError when vLLM cannot run this scheme on `gpu`."""
        if gpu.vendor == "amd":
            if not self.amd:
                raise CatalogueError(f"scheme {self.name} does not run on {gpu.name}: vLLM has no ROCm kernel for it")
            return
        if not self.min_compute_capability <= gpu.compute_capability <= self.max_compute_capability:
            upper = "" if self.max_compute_capability == float("inf") else f" to {self.max_compute_capability}"
            raise CatalogueError(
                f"scheme {self.name} does not run on {gpu.name}: compute capability is {gpu.compute_capability}, "
                f"it needs {self.min_compute_capability}{upper or ' or more'}: choose another scheme or GPU"
            )


@dataclass(frozen=True, slots=True)
class Price:
    """What one GPU costs an hour at one provider; `term` is on_demand, reserved or spot."""

    gpu: str
    provider: str
    term: str
    usd_per_gpu_hour: float
    sku: str
    source: str
    retrieved: str


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One published evaluation. `unit` is score (0..1) or recovery (fraction of the 16-bit model's score)."""

    model: str
    scheme: str
    variant: str
    metric: str
    value: float
    unit: str
    source: str
    retrieved: str


@dataclass(frozen=True, slots=True)
class MetricClass:
    """A metric stands for a request class, and why."""

    metric: str
    request_class: str
    reason: str
    source: str
    retrieved: str
