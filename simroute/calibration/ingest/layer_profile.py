"""Reads a layer profile in LLMServingSim's layout: microseconds of each kernel of one layer, in three CSV files.

    dense.csv         layer, tokens, time_us: products, norms, rotary embedding, activation, token embedding
    per_sequence.csv  layer, sequences, time_us: output head and sampler
    attention.csv     prefill_chunk, kv_prefill, n_decode, kv_decode, time_us

Owns `ProfileKernels`, which answers `Kernels` from them. Imports errors and hardware; pandas where files are read.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simroute.calibration.ingest.op_tables import Curve
from simroute.errors import CalibrationError
from simroute.hardware.calibration import Provenance
from simroute.hardware.calibration_file import file_sha256
from simroute.hardware.specs import ModelSpec
from simroute.hardware.steptime import Batch

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

PROJECT = "casys-kaist/LLMServingSim (MIT)"
IN_EVERY_LAYER = {
    "layernorm": 2,
    "qkv_proj": 1,
    "rotary_emb": 1,
    "o_proj": 1,
    "gate_up_proj": 1,
    "act_fn": 1,
    "down_proj": 1,
}
"""Kernels of a layer and how often it runs them."""
ONCE = ("embedding", "final_layernorm")
PER_SEQUENCE = ("lm_head", "sampler")
_COLUMNS = {
    "dense.csv": ("layer", "tokens", "time_us"),
    "per_sequence.csv": ("layer", "sequences", "time_us"),
    "attention.csv": ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"),
}
_US = 1e-6


class ProfileKernels:
    """The kernels of `model`, of which `folder` holds a profile. Raises CalibrationError where that is incomplete."""

    def __init__(self, folder: Path, model: ModelSpec) -> None:
        self.folder = folder
        self._layers = model.num_hidden_layers
        dense = _curves(folder, "dense.csv", "tokens", (*IN_EVERY_LAYER, *ONCE))
        self.sizes = dense["qkv_proj"].sizes
        self._dense = dense
        self._heads = _curves(folder, "per_sequence.csv", "sequences", PER_SEQUENCE)

    def tokens_s(self, tokens: float) -> float:
        """See Kernels."""
        layer_s = sum(times * self._dense[name].at(tokens) for name, times in IN_EVERY_LAYER.items())
        return self._layers * layer_s + sum(self._dense[name].at(tokens) for name in ONCE)

    def attention_s(self, batch: Batch) -> float:
        """See Kernels. Several prompts cost what one does each, but for the kernel's start."""
        prompts = max(batch.prefill_seqs, 1)
        chunk = batch.prefill_tokens / prompts
        start = max(batch.prefill_pairs / batch.prefill_tokens - (chunk + 1) / 2, 0.0) if chunk else 0.0
        context = batch.decode_context_tokens / batch.decode_seqs if batch.decode_seqs else 0.0
        layer_s = self._attention_at(chunk, start, batch.decode_seqs, context)
        if prompts > 1:
            alone_s = self._attention_at(chunk, start, 0, 0.0)
            layer_s += (prompts - 1) * (alone_s - self._attention_at(0, 0.0, 1, 0.0))
        return self._layers * layer_s

    def head_s(self, seqs: int) -> float:
        """See Kernels."""
        return sum(self._heads[name].at(seqs) for name in PER_SEQUENCE)

    def provenance(self, source: str) -> tuple[Provenance, ...]:
        """A row for each file; `source` says whose profile it is."""
        return tuple(
            Provenance(
                what=f"layer profile, {name}",
                source=source,
                rows=len(_read(self.folder, name)),
                sha256=file_sha256(self.folder / name),
            )
            for name in _COLUMNS
        )

    @cached_property
    def _attention(self) -> Any:
        """Interpolates seconds over (chunk, start, decoding requests, context), linearly along each and beyond."""
        from scipy.interpolate import RegularGridInterpolator

        rows = _read(self.folder, "attention.csv")
        rows = rows[rows["n_decode"] <= rows.loc[rows["prefill_chunk"] > 0, "n_decode"].max()]
        names = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
        axes = [np.unique(np.append(rows[name], 0)).astype(float) for name in names]
        grid = np.full([len(axis) for axis in axes], np.nan)
        grid[tuple(np.searchsorted(axis, rows[name]) for axis, name in zip(axes, names, strict=True))] = rows["time_us"]
        grid[0] = grid[0, :1]  # without a chunk its start does not matter, nor the context when nothing decodes
        grid[:, :, 0] = grid[:, :, 0, :1]
        grid[:, :, 1:, 0] = grid[:, :, 1:, 1]  # a context of 0 tokens costs what the shortest does
        grid[0, :, 0] = 0.0
        if np.isnan(grid).any():
            raise CalibrationError(
                f"{self.folder / 'attention.csv'}: {int(np.isnan(grid).sum())} combinations are missing"
            )
        return RegularGridInterpolator(axes, grid * _US, bounds_error=False, fill_value=None)

    def _attention_at(self, *point: float) -> float:
        return float(self._attention(point).item())


def _curves(folder: Path, name: str, size: str, layers: tuple[str, ...]) -> dict[str, Curve]:
    rows = _read(folder, name)
    curves = {}
    for layer in layers:
        found = rows[rows["layer"] == layer].sort_values(size)
        if found.empty:
            raise CalibrationError(f"{folder / name}: no layer '{layer}'")
        curves[layer] = Curve(found[size].to_numpy(float), found["time_us"].to_numpy(float) * _US)
    return curves


def _read(folder: Path, name: str) -> pd.DataFrame:
    import pandas as pd

    path = folder / name
    try:
        rows = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path}: cannot read the profile: {str(error).splitlines()[0]}") from None
    missing = [column for column in _COLUMNS[name] if column not in rows]
    if missing:
        raise CalibrationError(f"{path}: not a layer profile: no column {', '.join(missing)}")
    if not (rows["time_us"] > 0).all():
        raise CalibrationError(f"{path}: times must be above 0")
    return rows
