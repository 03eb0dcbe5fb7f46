"""Looks up GPUs, models, quantization schemes, prices and published accuracy in `data/*.csv`.

Owns names and aliases; every row carries its source and retrieval date. Each file is parsed once a process.
Imports only errors and this room's specs and modelconfig.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from simroute.errors import CatalogueError, unknown
from simroute.hardware.modelconfig import read_model_config
from simroute.hardware.specs import AccuracyRow, GpuSpec, MetricClass, ModelSpec, Price, QuantScheme

TERMS = ("on_demand", "reserved", "spot")
"""The ways of paying that prices.csv knows."""

_DATA = Path(__file__).parent / "data"
_Spec = TypeVar("_Spec")
_GIGA = 1e9
_TERA = 1e12
_RATE_COLUMNS = {
    "bf16": "bf16_tflops",
    "fp16": "fp16_tflops",
    "fp8": "fp8_tflops",
    "int8": "int8_tops",
    "fp4": "fp4_tflops",
}


def gpu(name: str) -> GpuSpec:
    """The GPU called `name` (any case, with or without spaces and dashes). Raises CatalogueError if unknown."""
    return _find("GPU", name, _gpus(), _gpu_index())


def model(name_or_path: str) -> ModelSpec:
    """The model called `name_or_path`: a short name, a Hugging Face id, or the path of a local config.json.

    Raises CatalogueError if unknown or if the file does not describe a supported model.
    """
    if name_or_path.endswith(".json") or (Path(name_or_path) / "config.json").is_file():
        return read_model_config(Path(name_or_path))
    return _find("model", name_or_path, _models(), _model_index())


def scheme(name: str) -> QuantScheme:
    """The quantization scheme called `name`. Raises CatalogueError if unknown."""
    return _find("quantization scheme", name, _schemes(), _scheme_index())


def price(gpu_name: str, provider: str | None = None, term: str = "on_demand") -> Price:
    """USD an hour of one GPU: at `provider`, else at the first provider that prices.csv lists for the GPU.

    Raises CatalogueError, naming the prices there are, when none matches.
    """
    if term not in TERMS:
        raise CatalogueError(unknown("price term", term, TERMS))
    spec = gpu(gpu_name)
    offers = prices(spec.name)
    wanted = None if provider is None else provider.lower()
    for offer in offers:
        if offer.term == term and wanted in (None, offer.provider.lower()):
            return offer
    listing = ", ".join(f"{o.provider} {o.term} {o.usd_per_gpu_hour:g}" for o in offers) or "none"
    where = "" if provider is None else f" at {provider}"
    raise CatalogueError(
        f"no {term} price of {spec.name}{where}; known (USD per GPU hour): {listing}; "
        "choose one of these or give the price in the scenario"
    )


def accuracy(model_name: str, scheme_name: str) -> list[AccuracyRow]:
    """Published evaluations of a model under a scheme; empty when there are none. Raises CatalogueError on names."""
    wanted = (model(model_name).name, scheme(scheme_name).name)
    return [row for row in accuracy_rows() if (row.model, row.scheme) == wanted]


def request_classes(metric: str) -> tuple[str, ...]:
    """Request classes for which `metric` stands, by metric_classes.csv; empty when it stands for none."""
    return tuple(row.request_class for row in metric_classes() if row.metric.lower() == metric.lower())


def gpus() -> list[GpuSpec]:
    """Every GPU, in the file's order."""
    return list(_gpus().values())


def models() -> list[ModelSpec]:
    """Every model, in the file's order."""
    return list(_models().values())


def schemes() -> list[QuantScheme]:
    """Every quantization scheme, in the file's order."""
    return list(_schemes().values())


def prices(gpu_name: str | None = None) -> list[Price]:
    """Every price, or those of one GPU, in the file's order."""
    wanted = None if gpu_name is None else gpu(gpu_name).name
    return [row for row in _prices() if wanted in (None, row.gpu)]


@lru_cache(maxsize=1)
def accuracy_rows() -> tuple[AccuracyRow, ...]:
    """Every published evaluation, in the file's order."""
    return tuple(
        AccuracyRow(
            model=row["model"],
            scheme=row["scheme"],
            variant=row["variant"],
            metric=row["metric"],
            value=float(row["value_fraction"]),
            unit=row["unit"],
            source=row["source"],
            retrieved=row["retrieved"],
        )
        for row in _rows("accuracy.csv")
    )


@lru_cache(maxsize=1)
def metric_classes() -> tuple[MetricClass, ...]:
    """Which metric stands for which request class, in the file's order."""
    return tuple(MetricClass(**row) for row in _rows("metric_classes.csv"))


def _normalise(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _model_key(name: str) -> str:
    """Hugging Face ids and short names meet here: without organisation, `Meta-` and `-Instruct`."""
    short = name.rsplit("/", 1)[-1].lower()
    return _normalise(short.removeprefix("meta-").replace("-instruct", ""))


def _find(what: str, name: str, specs: Mapping[str, _Spec], index: Mapping[str, str]) -> _Spec:
    key = _model_key(name) if what == "model" else _normalise(name)
    if key not in index:
        hint = " (or give the path of a config.json)" if what == "model" else ""
        raise CatalogueError(unknown(what, name, specs) + hint)
    return specs[index[key]]


def _rows(file: str) -> list[dict[str, str]]:
    with (_DATA / file).open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _names(row: Mapping[str, str], *columns: str) -> Iterable[str]:
    yield from (row[column] for column in columns)
    yield from filter(None, row["aliases"].split(";"))


@lru_cache(maxsize=1)
def _gpu_index() -> dict[str, str]:
    return {_normalise(alias): row["name"] for row in _rows("gpus.csv") for alias in _names(row, "name")}


@lru_cache(maxsize=1)
def _model_index() -> dict[str, str]:
    return {_model_key(alias): row["name"] for row in _rows("models.csv") for alias in _names(row, "name", "hf_id")}


@lru_cache(maxsize=1)
def _scheme_index() -> dict[str, str]:
    return {_normalise(alias): row["name"] for row in _rows("schemes.csv") for alias in _names(row, "name")}


@lru_cache(maxsize=1)
def _gpus() -> dict[str, GpuSpec]:
    return {row["name"]: _gpu(row) for row in _rows("gpus.csv")}


def _gpu(row: Mapping[str, str]) -> GpuSpec:
    return GpuSpec(
        name=row["name"],
        vendor=row["vendor"],
        compute_capability=float(row["compute_capability"]),
        memory_gib=float(row["memory_gib"]),
        bandwidth_bytes_s=float(row["bandwidth_gb_s"]) * _GIGA,
        flops={dtype: float(row[column]) * _TERA for dtype, column in _RATE_COLUMNS.items() if row[column]},
        interconnect=row["interconnect"],
        interconnect_bytes_s=float(row["interconnect_gb_s"]) * _GIGA,
        source=row["source"],
        retrieved=row["retrieved"],
    )


@lru_cache(maxsize=1)
def _models() -> dict[str, ModelSpec]:
    return {row["name"]: _model(row) for row in _rows("models.csv")}


def _model(row: Mapping[str, str]) -> ModelSpec:
    text = {key: row[key] for key in ("name", "hf_id", "attention_bias", "native_scheme", "source", "retrieved")}
    flags = {key: row[key] == "true" for key in ("tie_word_embeddings", "qk_norm")}
    numbers = {key: int(value) for key, value in row.items() if key not in text | flags and key != "aliases"}
    return ModelSpec(**text, **flags, **numbers)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _schemes() -> dict[str, QuantScheme]:
    return {row["name"]: _scheme(row) for row in _rows("schemes.csv")}


def _scheme(row: Mapping[str, str]) -> QuantScheme:
    return QuantScheme(
        name=row["name"],
        weight_bits=float(row["weight_bits"]),
        scale_bits=float(row["scale_bits"]),
        quantized_layers=row["quantized_layers"],
        compute_dtype=row["compute_dtype"],
        kv_cache_dtype=row["kv_cache_dtype"],
        min_compute_capability=float(row["min_compute_capability"]),
        max_compute_capability=float(row["max_compute_capability"] or math.inf),
        amd=row["amd"] == "true",
        weight_only=row["weight_only"] == "true",
        description=row["description"],
        source=row["source"],
        retrieved=row["retrieved"],
    )


@lru_cache(maxsize=1)
def _prices() -> tuple[Price, ...]:
    return tuple(
        Price(
            gpu=row["gpu"],
            provider=row["provider"],
            term=row["term"],
            usd_per_gpu_hour=float(row["usd_per_gpu_hour"]),
            sku=row["sku"],
            source=row["source"],
            retrieved=row["retrieved"],
        )
        for row in _rows("prices.csv")
    )
