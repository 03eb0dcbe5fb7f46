"""`simroute capability evaluate`: accuracy of a live endpoint on own tasks. Imports the library in the command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simroute.calibration.capability.evaluate import Evaluated
    from simroute.calibration.capability.tasks import Task


def evaluate(
    url: Annotated[str, typer.Option("--url", metavar="URL", help="OpenAI-compatible endpoint, http://host:8000.")],
    tasks: Annotated[Path, typer.Option("--tasks", metavar="FILE", help="Tasks, one JSON object a line.")],
    variant: Annotated[
        str, typer.Option("--variant", metavar="MODEL:SCHEME", help="What is served there, such as Llama-3.1-8B:fp8.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Write the accuracies there (.csv).")],
    served: Annotated[
        str | None, typer.Option("--served", metavar="ID", help="Id of the model at the endpoint. [its first]")
    ] = None,
    replies: Annotated[
        Path | None, typer.Option("--replies", metavar="FILE", help="Write every reply and its verdict there (.jsonl).")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Requests in flight.")] = 8,
    timeout: Annotated[float, typer.Option("--timeout", min=1.0, help="Seconds until a request is tried again.")] = 120,
    key_variable: Annotated[
        str, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that holds the API key.")
    ] = "OPENAI_API_KEY",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table.")] = False,
) -> None:
    """Ask a served model your own tasks and count the exact matches, by request class.

    Each line of the tasks is an object: prompt (or messages), answer (one or several), request_class and, as wanted,
    extract (a regular expression that finds the answer in the reply), max_tokens and id.
    """
    from simroute.calibration.capability.endpoint import Endpoint
    from simroute.calibration.capability.evaluate import evaluate as evaluate_tasks
    from simroute.calibration.capability.tasks import read_tasks
    from simroute.cli.capability.variant import variant_named
    from simroute.cli.progress import shown_progress
    from simroute.errors import UsageError
    from simroute.results.store import prepare
    from simroute.scenario.matrix import accuracy_table, write_text

    if output.suffix.lower() != ".csv":
        raise UsageError(f"-o {output}: accuracies are a table: give a name that ends in .csv")
    named = variant_named("--variant", variant)
    asked = read_tasks(tasks)
    endpoint = Endpoint(url, api_key=os.environ.get(key_variable), timeout_s=timeout)
    for path in filter(None, (output, replies)):
        prepare(path.parent)
    with shown_progress(["tasks"], hidden=quiet) as advance:
        found = evaluate_tasks(
            endpoint,
            asked,
            *named,
            served=served,
            source=tasks.name,
            concurrency=concurrency,
            progress=(lambda done: advance([done])) if advance else None,
        )
    if replies:
        write_text(replies, _verdicts(asked, found.replies))
    write_text(output, accuracy_table(found.rows, found.tasks))
    if not quiet:
        _show(found, output)


def _verdicts(tasks: Sequence[Task], replies: Sequence[str]) -> str:
    """One JSON object a task: which it was, what was replied, what of it was compared, and whether it is right."""
    import json

    lines = (
        {
            "task": number if task.id is None else task.id,
            "request_class": task.request_class,
            "answer": list(task.answer),
            "compared": task.extracted(reply),
            "right": task.is_right(reply),
            "reply": reply,
        }
        for number, (task, reply) in enumerate(zip(tasks, replies, strict=True), start=1)
    )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _show(found: Evaluated, output: Path) -> None:
    for row, tasks in zip(found.rows, found.tasks, strict=True):
        typer.echo(f"{row.request_class}: {row.mean:.3f} [{row.low:.3f}, {row.high:.3f}] on {tasks:,} tasks")
    typer.echo(f"written: {output}")
