"""Counts a model's weights, layer by layer, as one rank of a tensor- and pipeline-parallel group holds them.

Owns the architecture arithmetic that both KV memory and step time rest on. Imports only errors, units and specs.
"""

from __future__ import annotations

from dataclasses import dataclass

from simroute.errors import UsageError
from simroute.hardware.specs import SIXTEEN_BIT_BYTES, ModelSpec, QuantScheme
from simroute.units import MIB

VOCAB_PADDING = 64
"""vLLM pads the vocabulary to a multiple of this before it shards embedding and output head."""
ROPE_VALUE_BYTES = 2
"""vLLM keeps the rotary cosine and sine table in the model's 16-bit dtype."""
LARGE_TENSOR_BYTES = 10 * MIB
SEGMENT_BYTES = 2 * MIB
SPLIT_BYTES = MIB
"""Constants of PyTorch's CUDA caching allocator (kMinLargeAlloc, kRoundLarge, kSmallSize)."""


@dataclass(frozen=True, slots=True)
class LinearShape:
    """One matrix product of a layer on one rank: `out_features` x `in_features` weights; of one expert for MoE."""

    name: str
    out_features: int
    in_features: int

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.out_features * self.in_features


def tensor_parallel_sizes(model: ModelSpec) -> list[int]:
    """The tensor-parallel sizes up to 16 that divide the model evenly: what vLLM accepts."""
    return [tp for tp in range(1, 17) if _divides(model, tp)]


def _divides(model: ModelSpec, tp: int) -> bool:
    kv_heads = model.num_key_value_heads
    width = model.moe_intermediate_size if model.is_moe else model.intermediate_size
    kv_fits = kv_heads % tp == 0 if kv_heads >= tp else tp % kv_heads == 0
    return model.num_attention_heads % tp == 0 and width % tp == 0 and kv_fits


def check_shards(model: ModelSpec, tensor_parallel: int, pipeline_parallel: int = 1) -> None:
    """Raise UsageError when vLLM would refuse to split `model` this way."""
    if not 1 <= pipeline_parallel <= model.num_hidden_layers:
        raise UsageError(
            f"pipeline_parallel: must be 1 to {model.num_hidden_layers} (the layers of {model.name}), "
            f"got {pipeline_parallel}"
        )
    if tensor_parallel < 1 or not _divides(model, tensor_parallel):
        allowed = ", ".join(map(str, tensor_parallel_sizes(model)))
        raise UsageError(
            f"tensor_parallel: {model.name} has {model.num_attention_heads} attention heads and "
            f"{model.num_key_value_heads} KV heads, which divide by {allowed}; got {tensor_parallel}"
        )


def kv_heads_on_rank(model: ModelSpec, tensor_parallel: int) -> int:
    """KV heads of one rank; with fewer heads than ranks, each rank keeps a copy of one."""
    return max(1, model.num_key_value_heads // tensor_parallel)


def attention_linears(model: ModelSpec, tensor_parallel: int) -> tuple[LinearShape, LinearShape]:
    """The fused q/k/v projection and the output projection of one layer on one rank."""
    query = model.num_attention_heads // tensor_parallel * model.head_dim
    key_value = 2 * kv_heads_on_rank(model, tensor_parallel) * model.head_dim
    return (
        LinearShape("qkv", query + key_value, model.hidden_size),
        LinearShape("o", model.hidden_size, query),
    )


def feed_forward_linears(model: ModelSpec, tensor_parallel: int) -> tuple[LinearShape, LinearShape]:
    """The fused gate/up projection and the down projection of one layer (of one expert) on one rank."""
    width = (model.moe_intermediate_size if model.is_moe else model.intermediate_size) // tensor_parallel
    return LinearShape("gate_up", 2 * width, model.hidden_size), LinearShape("down", model.hidden_size, width)


def layer_weight_bytes(model: ModelSpec, scheme: QuantScheme, tensor_parallel: int) -> float:
    """Bytes of one layer's weights on one rank: projections, experts, router, norms and biases."""
    experts = max(1, model.num_experts)
    total = float(_small_weights(model, tensor_parallel) * SIXTEEN_BIT_BYTES)
    for shape in attention_linears(model, tensor_parallel):
        total += _tensor_bytes(shape.weights, scheme, quantized=scheme.quantizes_linear)
    for shape in feed_forward_linears(model, tensor_parallel):
        quantized = scheme.quantizes_experts if model.is_moe else scheme.quantizes_linear
        total += _tensor_bytes(shape.weights * experts, scheme, quantized=quantized)
    return total


def _tensor_bytes(weights: int, scheme: QuantScheme, *, quantized: bool) -> float:
    if not quantized:
        return allocated_bytes(weights * SIXTEEN_BIT_BYTES)
    return allocated_bytes(weights * scheme.weight_bits / 8) + weights * scheme.scale_bits / 8


def allocated_bytes(tensor_bytes: float) -> float:
    """Bytes that PyTorch's CUDA allocator counts for one tensor.

    From 10 MiB on a tensor gets its own segment of whole 2 MiB; a rest of more than 1 MiB is split off and free,
    a smaller rest stays with the tensor. Over the layers of a model this adds up to tens of MiB.
    """
    if tensor_bytes < LARGE_TENSOR_BYTES:
        return tensor_bytes
    rest = -tensor_bytes % SEGMENT_BYTES
    return tensor_bytes if rest > SPLIT_BYTES else tensor_bytes + rest


def weight_bytes_of(scheme: QuantScheme, *, expert: bool) -> float:
    """Bytes of one weight of a projection (or of an expert's projection), scales included."""
    quantized = scheme.quantizes_experts if expert else scheme.quantizes_linear
    return scheme.weight_bytes if quantized else SIXTEEN_BIT_BYTES


def _small_weights(model: ModelSpec, tensor_parallel: int) -> int:
    """Weights that no scheme quantizes and that are small: two norms, query/key norms, router, biases."""
    qkv, _ = attention_linears(model, tensor_parallel)
    norms = 2 * model.hidden_size + (2 * model.head_dim if model.qk_norm else 0)
    router = model.num_experts * model.hidden_size
    biases = {"none": 0, "qkv": qkv.out_features, "all": qkv.out_features + model.hidden_size}[model.attention_bias]
    return norms + router + biases


def embedding_bytes(model: ModelSpec, tensor_parallel: int) -> float:
    """Bytes of the token embedding (or of the output head) on one rank: 16-bit under every scheme."""
    padded = -(-model.vocab_size // VOCAB_PADDING) * VOCAB_PADDING
    return allocated_bytes(-(-padded // tensor_parallel) * model.hidden_size * SIXTEEN_BIT_BYTES)


def stage_layers(num_hidden_layers: int, pipeline_parallel: int) -> tuple[int, ...]:
    """Layers of each pipeline stage as vLLM divides them: spare layers go to the stages before the last."""
    base, spare = divmod(num_hidden_layers, pipeline_parallel)
    counts = [base] * pipeline_parallel
    for back in range(2, spare + 2):
        counts[-back] += 1
    return tuple(counts)


def stage_weight_bytes(
    model: ModelSpec, scheme: QuantScheme, tensor_parallel: int, pipeline_parallel: int
) -> tuple[float, ...]:
    """Bytes of weights on one rank of each pipeline stage, rotary table included.

    The embedding lies on the first stage, the output head and the last norm on the last. A tied head is the
    embedding itself, so only a pipeline's last stage holds a second copy.
    """
    layer = layer_weight_bytes(model, scheme, tensor_parallel)
    rotary = model.max_position_embeddings * model.head_dim * ROPE_VALUE_BYTES
    stages = [layers * layer + rotary for layers in stage_layers(model.num_hidden_layers, pipeline_parallel)]
    embedding = embedding_bytes(model, tensor_parallel)
    stages[0] += embedding
    stages[-1] += model.hidden_size * SIXTEEN_BIT_BYTES
    if pipeline_parallel > 1 or not model.tie_word_embeddings:
        stages[-1] += embedding
    return tuple(stages)
