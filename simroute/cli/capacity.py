"""`simroute capacity`: one replica from its name alone, no YAML. Imports the library in the command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

GIB = 2**30


def capacity(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model of the catalogue, or a config.json.")],
    gpu: Annotated[str, typer.Argument(metavar="GPU", help="GPU of the catalogue.")],
    quantization: Annotated[
        str | None, typer.Option("--quantization", metavar="S", help="Scheme. [as the model was published]")
    ] = None,
    tp: Annotated[int, typer.Option("--tp", metavar="N", min=1, help="GPUs that a replica is split over.")] = 1,
    input_: Annotated[int, typer.Option("--input", metavar="T", min=1, help="Tokens of each prompt.")] = 1024,
    output: Annotated[int, typer.Option("--output", metavar="T", min=1, help="Tokens of each answer.")] = 256,
    price: Annotated[
        float | None, typer.Option("--price", metavar="USD", min=0, help="USD an hour of a GPU. [the catalogue's]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, and nothing else.")] = False,
) -> None:
    """What one replica of a model on a GPU can do: memory, seats, throughput, latency against load, cost."""
    from simroute.planner.capacity import capacity as capacity_of
    from simroute.results.store import json_text

    document = capacity_of(
        model,
        gpu,
        quantization=quantization,
        tensor_parallel=tp,
        input_tokens=input_,
        output_tokens=output,
        usd_per_gpu_hour=price,
    ).document()
    if json:
        typer.echo(json_text(document), nl=False)
    else:
        typer.echo(_page(document))


def _page(document: Mapping[str, Any]) -> str:
    """The document for people."""
    from simroute.report.plain import aligned
    from simroute.report.text import milliseconds, number, percent, usd

    memory, saturated = document["memory"], document["saturation"]
    gib = {name.removesuffix("_bytes"): f"{size / GIB:.2f}" for name, size in memory.items() if name != "source"}
    lines = [
        document["answer"],
        "",
        f"memory      {gib['gpu']} GiB a GPU: weights {gib['weight']}, activations {gib['activation']}, CUDA graphs "
        f"{gib['graph']}, non-torch {gib['non_torch']}, KV cache {gib['kv']} ({memory['source']})",
        f"KV cache    {document['kv_tokens']:,} tokens; max_model_len {document['max_model_len']:,}",
        f"at once     {document['max_concurrency']:,} requests of these lengths, limited by {document['limited_by']}; "
        f"max_num_seqs {document['max_num_seqs']:,}, max_num_batched_tokens {document['max_num_batched_tokens']:,}",
        f"saturation  {number(saturated['requests_per_s'])} requests a second, "
        f"{number(saturated['output_tokens_per_s'])} tokens out and {number(saturated['tokens_per_s'])} in all",
        f"cost        {usd(document['usd_per_hour'])} an hour ({document['price'] or 'no price'}), at saturation "
        f"{usd(saturated['usd_per_1m_output_tokens'])} per 1M tokens out, "
        f"{usd(saturated['usd_per_1m_tokens'])} per 1M in all",
        "",
    ]
    headers = ["load", "requests/s", "tokens out/s", "running", "TTFT p50, ms", "p99", "TPOT p50, ms", "p99"]
    headers += ["USD per 1M out", "state"]
    rows = [
        [
            percent(point["load"]),
            *(number(point[key]) for key in ("requests_per_s", "output_tokens_per_s", "running")),
            *(milliseconds(point[key]) for key in ("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s")),
            usd(point["usd_per_1m_output_tokens"]),
            point["stability"] + (", extrapolated" if point["extrapolated"] else ""),
        ]
        for point in document["loads"]
    ]
    return "\n".join([*lines, *aligned(headers, rows), "", *(f"note        {note}" for note in document["notes"])])
