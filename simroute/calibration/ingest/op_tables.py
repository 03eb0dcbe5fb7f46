"""Reads kernel latencies in aiconfigurator's layout: <gpu>/<op>/<framework>/<version>/<op>_perf.parquet, milliseconds.

Owns `OpTables`, which answers in seconds for one GPU and interpolates where a shape was not measured. `kernels` adds
them up to a model. Imports errors and hardware's catalogue; pandas where tables are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simroute.errors import CalibrationError, CatalogueError
from simroute.hardware import catalogue
from simroute.hardware.calibration import Provenance
from simroute.hardware.calibration_file import file_sha256

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

PROJECT = "ai-dynamo/aiconfigurator (Apache-2.0)"
_MS = 1e-3
_FILES = {
    "gemm": "gemm_perf.parquet",
    "context_attention": "context_attention_perf.parquet",
    "generation_attention": "generation_attention_perf.parquet",
    "moe": "moe_perf.parquet",
    "comm": "custom_allreduce_perf.parquet",
}
_ATTENTION_COLUMNS = ("kernel_source", "kv_cache_dtype", "num_heads", "num_key_value_heads", "head_dim", "batch_size")
_EXPERT_COLUMNS = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
_COLUMNS = {
    "gemm": ("gemm_dtype", "m", "n", "k"),
    "context_attention": (*_ATTENTION_COLUMNS, "isl"),
    "generation_attention": (*_ATTENTION_COLUMNS, "isl", "step"),
    "moe": ("moe_dtype", "kernel_source", *_EXPERT_COLUMNS, "distribution"),
    "comm": ("num_gpus", "backend", "message_size"),
}
_BACKENDS = ("flash_attn", "flashinfer", "triton")
"""vLLM's order of preference among attention backends, where a table holds several."""
SAME_CHIP = {"H200": "H100", "H100": "H200"}
"""GPUs of one die with other memory (GH100): where arithmetic decides, a kernel takes as long on either."""
STREAMED_WEIGHTS = 256e6
"""Weights of a product that fit into no GPU's L2 cache in any format (126 MB on B200)."""
OPERATIONS_PER_PAIR = 4
"""A multiplication and an addition for the score of a (query, key) pair, and as many for its value."""
_ROUTING = "power_law_1.01"
"""Of the distributions of tokens over experts that the tables hold, the one all have: real routing is uneven."""


class Curve(NamedTuple):
    """Seconds of one kernel at rising sizes: linear between them, in proportion to size above, constant below."""

    sizes: Floats
    seconds: Floats

    def at(self, size: float) -> float:
        """Seconds at `size`."""
        if size > self.sizes[-1]:
            return float(self.seconds[-1] * size / self.sizes[-1])
        return float(np.interp(size, self.sizes, self.seconds))


@dataclass(frozen=True, slots=True)
class Attention:
    """Measured attention of one layer: `seqs` requests of `tokens` each (context when decoding, prompt otherwise)."""

    seqs: Floats
    tokens: Floats
    seconds: Floats


class OpTables:
    """The tables of one GPU. `notes` collects, as lookups are made, which shapes were interpolated.

    `folder` is the GPU's own or one above it; then the GPU is found by the device its tables name. A `framework`
    other than vllm serves for ratios only. `source` says whose tables they are. Raises CalibrationError where there
    are no tables of `gpu`.
    """

    def __init__(self, folder: Path, gpu: str, framework: str = "vllm", source: str = PROJECT) -> None:
        self.gpu = catalogue.gpu(gpu)
        self.framework = framework
        self.source = source
        self.notes: list[str] = []
        self._used: dict[str, pd.DataFrame] = {}
        self.folder = self._own_folder(folder)

    def has(self, op: str) -> bool:
        """True when there is a table of `op` (gemm, moe, comm, context_attention or generation_attention)."""
        return self._path(op) is not None

    @property
    def version(self) -> str:
        """Version of the framework whose GEMMs were measured."""
        return str(self._table("gemm")["version"].iloc[0])

    def provenance(self) -> tuple[Provenance, ...]:
        """A row for each table that was asked so far."""
        return tuple(self._row(op) for op in self._used)

    def dtypes(self, op: str) -> set[str]:
        """Names of the number formats that the table of `op` (gemm or moe) holds."""
        return set(self._table(op)[f"{op}_dtype"].unique()) if self.has(op) else set()

    def gemm(self, dtype: str, out_features: int, in_features: int) -> Curve:
        """A product of `tokens` rows with weights of `out_features` x `in_features`, over its tokens.

        Between measured shapes it is interpolated linearly in both sides: exact for a kernel bound by memory or by
        arithmetic, off by the rounding to tiles. Beyond the largest shape it grows in proportion.
        """
        grid = self._gemm_grid(dtype)
        sides = [side_weights(axis, value) for axis, value in zip(grid.axes, (out_features, in_features), strict=True)]
        seconds = sum(
            wn * wk * grid.curve(n, k) for (n, wn), (k, wk) in product(*sides)
        )  # (linear combination of the curves of up to four measured shapes)
        if any(len(side) > 1 or side[0][1] != 1.0 for side in sides):
            around = " x ".join("/".join(str(value) for value, _ in side) for side in sides)
            self.note(f"GEMM {dtype} {out_features} x {in_features} ({self.framework}) interpolated from {around}")
        return Curve(grid.tokens, np.asarray(seconds))

    def stream_bytes_s(self, dtype: str) -> float:
        """Bytes a second at which the largest products of few rows read their weights: what the memory gives."""
        bits = {"nvfp4": 4, "fp8": 8, "fp8_block": 8}.get(dtype, 16)
        return self._gemm_grid(dtype).stream_weights_s() * bits / 8

    def decode_attention(self, heads: int, kv_heads: int, head_dim: int, kv_dtype: str) -> Attention:
        """Decoding one token a request. Raises CalibrationError when no such heads were measured."""
        rows = self._attention("generation_attention", heads, kv_heads, head_dim, kv_dtype)
        return Attention(rows["batch_size"], rows["step"] + rows["isl"], rows["latency"] * _MS)

    def prefill_attention(self, heads: int, kv_heads: int, head_dim: int, kv_dtype: str) -> Attention:
        """Whole prompts from their first token on. Raises CalibrationError when no such heads were measured."""
        rows = self._attention("context_attention", heads, kv_heads, head_dim, kv_dtype)
        return Attention(rows["batch_size"], rows["isl"], rows["latency"] * _MS)

    def is_possible(self, prefill: Attention, heads: int, head_dim: int) -> bool:
        """Whether prefill attention was timed no faster than the GPU can multiply (some tables are)."""
        pairs = prefill.seqs * prefill.tokens * (prefill.tokens + 1) / 2
        rate = pairs * OPERATIONS_PER_PAIR * heads * head_dim / prefill.seconds
        return float(np.max(rate)) <= max(self.gpu.sixteen_bit_flops, self.gpu.flops.get("fp8", 0.0))

    def same_chip(self) -> OpTables | None:
        """The tables of a GPU with the same chip, if they lie beside these."""
        other = SAME_CHIP.get(self.gpu.name)
        try:
            return OpTables(self.folder.parent, other, self.framework, self.source) if other else None
        except CalibrationError:
            return None

    def experts(self, dtype: str, hidden: int, width: int, experts: int, picked: int, tensor_parallel: int) -> Curve:
        """The fused experts of one layer, over tokens; `width` is that of a whole expert, before it is split.

        Raises CalibrationError when the model's experts were not measured.
        """
        table = self._table("moe")
        key = {"moe_dtype": dtype, "hidden_size": hidden, "inter_size": width, "num_experts": experts, "topk": picked}
        key |= {"moe_tp_size": tensor_parallel, "moe_ep_size": 1, "distribution": _ROUTING}
        rows = _where(table, key)
        if rows.empty:
            raise CalibrationError(f"{self._path('moe')}: no experts of {_said(key)}")
        curve = rows.groupby("num_tokens")["latency"].median()  # (of several kernels for the same work)
        return Curve(curve.index.to_numpy(float), curve.to_numpy() * _MS)

    def all_reduce(self, ranks: int, *, graph: bool) -> Curve:
        """vLLM's all-reduce, over bytes; inside a CUDA graph or launched by itself.

        Raises CalibrationError when that number of ranks was not measured.
        """
        key = {"num_gpus": ranks, "backend": "vllm_graph" if graph else "vllm_eager"}
        rows = _where(self._table("comm"), key).sort_values("message_size")
        if rows.empty:
            raise CalibrationError(f"{self._path('comm')}: no all-reduce of {_said(key)}")
        return Curve(rows["message_size"].to_numpy(float), rows["latency"].to_numpy() * _MS)

    # -- files --------------------------------------------------------------------------------------------------------

    def _own_folder(self, folder: Path) -> Path:
        if not folder.is_dir():
            raise CalibrationError(f"{folder}: no such folder of kernel tables")
        found: dict[str, Path] = {}
        for candidate in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
            if (candidate / "gemm").is_dir():
                found[_device(candidate)] = candidate
        for device, candidate in found.items():
            if _gpu_of(device) == self.gpu.name:
                if next(candidate.glob(f"gemm/{self.framework}/*/{_FILES['gemm']}"), None) is None:
                    raise CalibrationError(f"{candidate}: no GEMM table of {self.framework}")
                return candidate
        listing = ", ".join(sorted(found)) or "none"
        raise CalibrationError(f"{folder}: no kernel tables of {self.gpu.name}; there are those of: {listing}")

    def _path(self, op: str) -> Path | None:
        room = "attention" if op.endswith("attention") else op
        files = sorted((self.folder / room / self.framework).glob(f"*/{_FILES[op]}"), key=_version_key)
        return files[-1] if files else None

    def _table(self, op: str) -> pd.DataFrame:
        table = self._used.get(op)
        if table is None:
            path = self._path(op)
            if path is None:
                raise CalibrationError(f"{self.folder}: no table {_FILES[op]} of {self.framework}")
            table = _read(path, (*_COLUMNS[op], "version", "latency"))
            timed = table["latency"] > 0
            if not timed.all():
                left_out = len(table) - int(timed.sum())
                self.note(f"{path.name}: {left_out} rows whose latency is not above 0 are left out")
            table = self._used[op] = table[timed]
        return table

    def _row(self, op: str) -> Provenance:
        path = self._path(op)
        assert path is not None
        return Provenance(
            what=f"{op.replace('_', ' ')} kernels of {self.framework} {self._table(op)['version'].iloc[-1]} "
            f"on {self.gpu.name}",
            source=f"{self.source}, {path.relative_to(self.folder.parent).as_posix()}",
            rows=len(self._table(op)),
            sha256=file_sha256(path),
        )

    def note(self, text: str) -> None:
        """Keep `text` among `notes`, once."""
        if text not in self.notes:
            self.notes.append(text)

    # -- lookups ------------------------------------------------------------------------------------------------------

    @cached_property
    def _grids(self) -> dict[str, GemmGrid]:
        return {}

    def _gemm_grid(self, dtype: str) -> GemmGrid:
        if dtype not in self._grids:
            rows = _where(self._table("gemm"), {"gemm_dtype": dtype})
            if rows.empty:
                known = ", ".join(sorted(self.dtypes("gemm")))
                raise CalibrationError(f"{self._path('gemm')}: no GEMM in {dtype}; there are: {known}")
            self._grids[dtype] = GemmGrid.of(rows)
        return self._grids[dtype]

    def _attention(self, op: str, heads: int, kv_heads: int, head_dim: int, kv_dtype: str) -> dict[str, Floats]:
        """Columns of the rows for these heads; between measured counts of query heads, interpolated row by row."""
        table = _where(self._table(op), {"num_key_value_heads": kv_heads, "head_dim": head_dim})
        table = table[table["kv_cache_dtype"] == kv_dtype]
        if "window_size" in table:
            table = table[table["window_size"] == 0]
        table = _preferred(table)
        counts = np.array(sorted(table["num_heads"].unique()))
        if not len(counts) or not counts[0] <= heads <= counts[-1]:
            key = {
                "num_heads": heads,
                "num_key_value_heads": kv_heads,
                "head_dim": head_dim,
                "kv_cache_dtype": kv_dtype,
            }
            raise CalibrationError(f"{self._path(op)}: no attention of {_said(key)}")
        keys = [name for name in ("batch_size", "isl", "step") if name in table]
        parts = side_weights(counts, heads)
        latency = sum(
            weight * table[table["num_heads"] == count].groupby(keys)["latency"].median() for count, weight in parts
        )
        latency = latency.dropna()
        if len(parts) > 1:
            around = "/".join(str(count) for count, _ in parts)
            self.note(f"attention of {heads} heads over {kv_heads} KV heads interpolated from {around} heads")
        index = latency.index.to_frame(index=False)
        return {name: index[name].to_numpy(float) for name in keys} | {"latency": latency.to_numpy()}


class GemmGrid:
    """Measured products in one number format: a curve over `tokens` for each weight shape."""

    def __init__(self, axes: tuple[NDArray[np.int64], NDArray[np.int64]], tokens: Floats, seconds: Floats) -> None:
        self.axes = axes
        self.tokens = tokens
        self._seconds = seconds  # [out_features, in_features, tokens], NaN where not measured
        self._at = [{int(value): index for index, value in enumerate(axis)} for axis in axes]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> GemmGrid:
        """The grid of a table's rows of one format."""
        axes = [np.array(sorted(rows[name].unique()), dtype=np.int64) for name in ("n", "k", "m")]
        seconds = np.full([len(axis) for axis in axes], np.nan)
        place = tuple(np.searchsorted(axis, rows[name]) for axis, name in zip(axes, ("n", "k", "m"), strict=True))
        seconds[place] = rows["latency"].to_numpy() * _MS
        return cls((axes[0], axes[1]), axes[2].astype(float), seconds)

    def stream_weights_s(self) -> float:
        """Weights a second in the fastest product of one row whose weights no cache holds."""
        weights = np.outer(*self.axes)
        large = np.where(weights >= STREAMED_WEIGHTS, weights, np.nan)
        return float(np.nanmax(large / self._seconds[:, :, 0]))

    def curve(self, out_features: int, in_features: int) -> Floats:
        """Seconds at each of `tokens`; gaps are filled by interpolation, NaN where the shape is not there at all."""
        seconds: Floats = self._seconds[self._at[0][out_features], self._at[1][in_features]]
        there = np.isfinite(seconds)
        if there.any():
            seconds = np.interp(self.tokens, self.tokens[there], seconds[there])
        return seconds


def side_weights(axis: NDArray[np.int64], value: int) -> list[tuple[int, float]]:
    """The measured values around `value` with their weights, for linear interpolation along one side of a shape.

    One value when it was measured. Above the largest, the largest in proportion; below the smallest, the smallest.
    """
    right = int(np.searchsorted(axis, value))
    if right == len(axis):
        return [(int(axis[-1]), value / int(axis[-1]))]
    high = int(axis[right])
    if high == value or right == 0:
        return [(high, 1.0)]
    low = int(axis[right - 1])
    share = (value - low) / (high - low)
    return [(low, 1 - share), (high, share)]


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """The table in `path`, which must have `columns`."""
    try:
        return _read_once(path, path.stat().st_mtime_ns, columns)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read the table: {error.strerror or error}") from None


@lru_cache(maxsize=32)
def _read_once(path: Path, mtime_ns: int, columns: tuple[str, ...]) -> pd.DataFrame:
    """Kept until the file changes, for one model after another is composed of it."""
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except ValueError as error:
        raise CalibrationError(f"{path}: cannot read the table: {str(error).splitlines()[0]}") from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise CalibrationError(f"{path}: not a table in aiconfigurator's layout: no column {', '.join(missing)}")
    return table


def _where(table: pd.DataFrame, key: Mapping[str, object]) -> pd.DataFrame:
    for name, value in key.items():
        table = table[table[name] == value]
    return table


def _preferred(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the attention backend that vLLM would choose among those measured."""
    for backend in _BACKENDS:
        rows = table[table["kernel_source"].str.contains(backend)]
        if not rows.empty:
            return rows
    return table


def _said(key: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in key.items())


def _device(folder: Path) -> str:
    """The device that a folder's first GEMM table names."""
    files = sorted(folder.glob(f"gemm/*/*/{_FILES['gemm']}"))
    return str(_read(files[0], ("device", "latency"))["device"].iloc[0]) if files else folder.name


def _gpu_of(device: str) -> str | None:
    """The catalogue's name of a device, which tables call by its driver's name."""
    for name in (device, device.removeprefix("NVIDIA ")):
        try:
            return catalogue.gpu(name).name
        except CatalogueError:
            continue
    return None


def _version_key(path: Path) -> tuple[tuple[int, str], ...]:
    return tuple(_pieces(path.parent.name))


def _pieces(version: str) -> Iterator[tuple[int, str]]:
    for piece in version.split("."):
        digits = "".join(character for character in piece if character.isdigit())
        yield int(digits or 0), piece
