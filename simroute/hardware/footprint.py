"""What fills a GPU's memory before the KV cache does: activations, CUDA graphs, communication buffers.

The forms follow vLLM's memory profiler (0.19 and 0.32): it runs one forward pass of `max_num_batched_tokens` and
one sampling pass of `max_num_seqs` rows and takes the peak. Constants marked "fitted" come from published
measurements of vLLM 0.19 on H100; docs/hardware.md shows every error. Imports only units and this room's specs
and weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from simroute.hardware.specs import SIXTEEN_BIT_BYTES, ModelSpec, QuantScheme
from simroute.hardware.weights import feed_forward_linears, stage_layers, stage_weight_bytes
from simroute.units import GIB, MIB

SAMPLER_BYTES_PER_LOGIT = 14
"""Peak of sampling, per row and vocabulary entry: logits in 16 and in 32 bits, probabilities and the random
draw in 32 bits (2 + 4 + 4 + 4)."""
HIDDEN_STATES_IN_LAYER = 4
"""Hidden-state tensors alive while a feed-forward block computes: residual, normed input, output, and one more."""
WORKSPACE_BYTES = 118 * MIB
"""Matrix-product and attention workspaces alive at the peak. Fitted: 110 to 122 MiB over three models."""
NON_TORCH_SINGLE_BYTES = 0.25 * GIB
"""Kernels and handles that CUDA loads in the first forward pass of a single rank. Fitted: 0.24 to 0.25 GiB."""
NON_TORCH_PIPELINE_BYTES = 0.07 * GIB
"""The same where starting the communicators loaded most of it before vLLM's first snapshot. Fitted: 0.07 GiB."""
NON_TORCH_TENSOR_BYTES = 2.01 * GIB
"""NCCL and all-reduce buffers of a tensor-parallel rank. Fitted with the next: 2.06 (TP 2) to 2.13 GiB (TP 4)."""
NON_TORCH_TENSOR_PEER_BYTES = 0.03 * GIB
"""Growth of these buffers with every rank of the group."""
GRAPH_POOL_BYTES = 0.37 * GIB
"""Memory pool of CUDA-graph capture. Fitted on the measured graphs, 0.51 to 1.61 GiB."""
GRAPH_LAYER_BYTES = 0.15 * MIB
"""One layer in one captured graph. Fitted with GRAPH_POOL_BYTES."""
MAX_CAPTURED_TOKENS = 512
"""vLLM captures no graph for more tokens than this, nor for more than twice `max_num_seqs`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How an engine is run, as far as its memory depends on it."""

    tensor_parallel: int
    pipeline_parallel: int
    max_num_batched_tokens: int
    max_num_seqs: int


@dataclass(frozen=True, slots=True)
class StageFootprint:
    """Bytes on one rank of one pipeline stage, and the layers whose KV it must hold."""

    layers: int
    weight_bytes: float
    activation_bytes: float
    graph_bytes: float
    non_torch_bytes: float

    @property
    def total_bytes(self) -> float:
        """Everything but the KV cache."""
        return self.weight_bytes + self.activation_bytes + self.graph_bytes + self.non_torch_bytes


def stage_footprints(
    model: ModelSpec, scheme: QuantScheme, layout: Layout, *, cuda_graphs: bool
) -> tuple[StageFootprint, ...]:
    """One footprint for each pipeline stage, first to last; without `cuda_graphs` their bytes are 0."""
    stages = layout.pipeline_parallel
    weights = stage_weight_bytes(model, scheme, layout.tensor_parallel, stages)
    return tuple(
        StageFootprint(
            layers=layers,
            weight_bytes=weights[stage],
            activation_bytes=activation_bytes(model, layout, last=stage == stages - 1),
            graph_bytes=graph_bytes(layers, layout) if cuda_graphs else 0.0,
            non_torch_bytes=non_torch_bytes(layout),
        )
        for stage, layers in enumerate(stage_layers(model.num_hidden_layers, stages))
    )


def activation_bytes(model: ModelSpec, layout: Layout, *, last: bool) -> float:
    """Peak of transient tensors: the widest point of a forward pass or, on the `last` stage, the sampler.

    Stages after the first also hold the hidden state and residual that they receive, for the whole pass.
    """
    hidden = layout.max_num_batched_tokens * model.hidden_size * SIXTEEN_BIT_BYTES
    received = 2 * hidden if layout.pipeline_parallel > 1 else 0
    peak = _forward_peak_bytes(model, layout, hidden)
    if last:
        row = model.hidden_size * SIXTEEN_BIT_BYTES + model.vocab_size * SAMPLER_BYTES_PER_LOGIT
        peak = max(peak, hidden + layout.max_num_seqs * row)
    return received + peak + WORKSPACE_BYTES


def _forward_peak_bytes(model: ModelSpec, layout: Layout, hidden_bytes: int) -> float:
    gate_up, down = feed_forward_linears(model, layout.tensor_parallel)
    copies = max(1, model.num_experts_per_tok)
    widest = layout.max_num_batched_tokens * copies * (gate_up.out_features + down.in_features) * SIXTEEN_BIT_BYTES
    return widest + HIDDEN_STATES_IN_LAYER * hidden_bytes


def non_torch_bytes(layout: Layout) -> float:
    """Memory that grows outside PyTorch after vLLM's first snapshot: CUDA modules and communication buffers."""
    if layout.tensor_parallel > 1:
        return NON_TORCH_TENSOR_BYTES + NON_TORCH_TENSOR_PEER_BYTES * layout.tensor_parallel
    return NON_TORCH_PIPELINE_BYTES if layout.pipeline_parallel > 1 else NON_TORCH_SINGLE_BYTES


def graph_bytes(layers: int, layout: Layout) -> float:
    """CUDA graphs of one rank: a pool, and every layer once in every captured graph."""
    return GRAPH_POOL_BYTES + GRAPH_LAYER_BYTES * layers * captured_graphs(layout.max_num_seqs)


def captured_graphs(max_num_seqs: int) -> int:
    """Graphs vLLM captures by default: sizes 1, 2, 4, then steps of 8 to 256 and of 16 beyond, each piecewise and
    full (full graphs only for decode-only batches)."""
    largest = min(2 * max_num_seqs, MAX_CAPTURED_TOKENS)
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, MAX_CAPTURED_TOKENS + 1, 16)]
    return sum(2 if size <= max_num_seqs else 1 for size in sizes if size <= largest)
