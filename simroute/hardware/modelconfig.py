"""Reads a Hugging Face `config.json` into a ModelSpec: any dense or mixture-of-experts decoder. Imports only
specs and errors.

Architectures whose memory or step time this package cannot describe (latent attention, shared experts, linear
attention) are refused by name rather than approximated in silence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simroute.errors import CatalogueError
from simroute.hardware.specs import ModelSpec

_UNSUPPORTED = {
    "kv_lora_rank": "multi-head latent attention",
    "n_shared_experts": "shared experts",
    "shared_expert_intermediate_size": "shared experts",
    "linear_num_key_heads": "linear attention",
    "mamba_d_state": "state-space layers",
    "ssm_cfg": "state-space layers",
}
_EXPERT_COUNT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts")
_EXPERTS_PER_TOKEN_KEYS = ("num_experts_per_tok", "experts_per_token")


def read_model_config(path: Path) -> ModelSpec:
    """ModelSpec of the `config.json` at `path` (a file, or the folder that holds it).

    Raises CatalogueError when the file is unreadable, a needed key is missing, or the architecture is not
    supported.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CatalogueError(f"{file}: cannot be read as a model's config.json: {error}") from error
    if not isinstance(config, dict):
        raise CatalogueError(f"{file}: a model's config.json must hold one JSON object")
    return _spec(file, {**config, **config.get("text_config", {})})


def _spec(file: Path, config: dict[str, Any]) -> ModelSpec:
    for key, what in _UNSUPPORTED.items():
        if config.get(key):
            raise CatalogueError(f"{file}: {key} means {what}, which is not supported")
    heads = _integer(file, config, "num_attention_heads")
    hidden = _integer(file, config, "hidden_size")
    intermediate = _integer(file, config, "intermediate_size")
    experts = _first(config, _EXPERT_COUNT_KEYS)
    layers = _integer(file, config, "num_hidden_layers")
    return ModelSpec(
        name=file.resolve().parent.name,
        hf_id=str(config.get("_name_or_path") or ""),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        intermediate_size=intermediate,
        vocab_size=_integer(file, config, "vocab_size"),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        num_experts=experts,
        num_experts_per_tok=_first(config, _EXPERTS_PER_TOKEN_KEYS) if experts else 0,
        moe_intermediate_size=int(config.get("moe_intermediate_size") or intermediate) if experts else 0,
        attention_bias=_attention_bias(config),
        qk_norm=str(config.get("model_type", "")).startswith("qwen3"),
        max_position_embeddings=_integer(file, config, "max_position_embeddings"),
        sliding_window_tokens=int(config.get("sliding_window") or 0) if _sliding_layers(config, layers) else 0,
        sliding_window_layers=_sliding_layers(config, layers),
        native_scheme=_native_scheme(config),
        source=str(file),
        retrieved="",
    )


def _integer(file: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        got = "nothing" if value is None else repr(value)
        raise CatalogueError(f"{file}: {key} must be a positive whole number, got {got}")
    return value


def _first(config: dict[str, Any], keys: tuple[str, ...]) -> int:
    return next((int(config[key]) for key in keys if config.get(key)), 0)


def _attention_bias(config: dict[str, Any]) -> str:
    # Qwen2's code always has biases on q, k and v; its config.json does not say so.
    if config.get("model_type") == "qwen2":
        return "qkv"
    return "all" if config.get("attention_bias") else "none"


def _sliding_layers(config: dict[str, Any], layers: int) -> int:
    kinds = config.get("layer_types")
    if kinds:
        return sum(kind == "sliding_attention" for kind in kinds)
    return layers if config.get("sliding_window") and config.get("use_sliding_window", True) else 0


def _native_scheme(config: dict[str, Any]) -> str:
    quantization = config.get("quantization_config") or {}
    return "mxfp4" if quantization.get("quant_method") == "mxfp4" else "bf16"
