"""`simroute catalogue`: lists GPUs, models, schemes, prices and published accuracy. Imports only hardware."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from simroute.hardware import catalogue

app = typer.Typer(no_args_is_help=True, help="List the GPUs, models, schemes, prices and accuracies simroute knows.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, every field with its source.")]
Column = tuple[str, str]
"""(heading with unit, field of the row)."""

_GPU_COLUMNS: tuple[Column, ...] = (
    ("GPU", "name"),
    ("GiB", "memory_gib"),
    ("GB/s", "bandwidth_gb_s"),
    ("bf16", "bf16_tflops"),
    ("fp16", "fp16_tflops"),
    ("fp8", "fp8_tflops"),
    ("int8", "int8_tflops"),
    ("fp4", "fp4_tflops"),
    ("link", "interconnect_gb_s"),
    ("cap.", "compute_capability"),
)
_MODEL_COLUMNS: tuple[Column, ...] = (
    ("model", "name"),
    ("layers", "num_hidden_layers"),
    ("hidden", "hidden_size"),
    ("heads", "num_attention_heads"),
    ("KV", "num_key_value_heads"),
    ("MLP", "intermediate_size"),
    ("experts", "num_experts"),
    ("used", "num_experts_per_tok"),
    ("context", "max_position_embeddings"),
)
_SCHEME_COLUMNS: tuple[Column, ...] = (
    ("scheme", "name"),
    ("bits", "weight_bits"),
    ("+scales", "scale_bits"),
    ("computes", "compute_dtype"),
    ("cap. from", "min_compute_capability"),
    ("description", "description"),
)
_PRICE_COLUMNS: tuple[Column, ...] = (
    ("GPU", "gpu"),
    ("provider", "provider"),
    ("term", "term"),
    ("USD/GPU/h", "usd_per_gpu_hour"),
    ("source", "source"),
    ("retrieved", "retrieved"),
)
_ACCURACY_COLUMNS: tuple[Column, ...] = (
    ("model", "model"),
    ("scheme", "scheme"),
    ("metric", "metric"),
    ("value", "value"),
    ("unit", "unit"),
    ("stands for", "request_classes"),
)


@app.command()
def gpus(json_output: JsonOption = False) -> None:
    """GPUs: memory, bandwidth, dense rates, interconnect."""
    rows = []
    for spec in catalogue.gpus():
        row = dataclasses.asdict(spec)
        row |= {f"{dtype}_tflops": rate / 1e12 for dtype, rate in row.pop("flops").items()}
        row["bandwidth_gb_s"] = row.pop("bandwidth_bytes_s") / 1e9
        row["interconnect_gb_s"] = row.pop("interconnect_bytes_s") / 1e9
        rows.append(row)
    _print("GPUs: dense rates in TFLOP/s, link in GB/s one way", _GPU_COLUMNS, rows, json_output)


@app.command()
def models(json_output: JsonOption = False) -> None:
    """Models, by the values of their config.json."""
    _print(
        "Models, by their config.json",
        _MODEL_COLUMNS,
        [dataclasses.asdict(spec) for spec in catalogue.models()],
        json_output,
    )


@app.command()
def schemes(json_output: JsonOption = False) -> None:
    """Quantization schemes: storage, compute dtype, what they need."""
    _print("Quantization schemes", _SCHEME_COLUMNS, [dataclasses.asdict(s) for s in catalogue.schemes()], json_output)


@app.command()
def prices(
    gpu: Annotated[str | None, typer.Option("--gpu", help="Only this GPU.")] = None, json_output: JsonOption = False
) -> None:
    """Prices: on-demand, reserved and spot, by provider."""
    _print("Prices", _PRICE_COLUMNS, [dataclasses.asdict(row) for row in catalogue.prices(gpu)], json_output)


@app.command()
def accuracy(json_output: JsonOption = False) -> None:
    """Published evaluations, and the request classes each metric stands for."""
    rows = [
        dataclasses.asdict(row) | {"request_classes": ", ".join(catalogue.request_classes(row.metric))}
        for row in catalogue.accuracy_rows()
    ]
    _print("Published accuracy", _ACCURACY_COLUMNS, rows, json_output)


def _print(title: str, columns: Sequence[Column], rows: Sequence[dict[str, Any]], json_output: bool) -> None:
    if json_output:
        typer.echo(json.dumps([{key: _plain(value) for key, value in row.items()} for row in rows], indent=2))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, (heading, _) in enumerate(columns):
        table.add_column(heading, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(_cell(row.get(field)) for _, field in columns))
    Console().print(table)


def _plain(value: Any) -> Any:
    """JSON has no infinity: an open upper bound is null."""
    return None if value == math.inf else value


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
