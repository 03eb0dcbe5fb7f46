"""The capability matrix: what each variant of a model can do at given loads, and how good its answers are.

Owns the shape of the JSON file and of the table of accuracies (CSV), and reads both; `calibration.capability` fills
them. Imports errors, policy and pydantic, and of this room models.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from simroute.errors import OutputError, UsageError
from simroute.policy.capability import QualityRow
from simroute.scenario.models import check_order
from simroute.scenario.parts import Count, Name, NonNegative, Part, Positive, Share, Whole

VERSION: Literal[1] = 1
ACCURACY_COLUMNS = ("model", "quantization", "request_class", "mean", "low", "high", "source")
"""The columns that a table of accuracies must have; others are left alone. `low` and `high` may be empty."""


class Accuracy(Part):
    """How good a variant's answers to one class of requests are: the expected share of good ones, and its range."""

    mean: Share
    """Expected quality, 0..1."""
    low: Share
    """Lower end of the plausible range."""
    high: Share
    """Upper end of the plausible range."""
    source: Name
    """Who measured or published it; for an assumption, why it is believed."""
    assumed: bool = False
    """Whether it is an assumption."""

    @model_validator(mode="after")
    def _ordered(self) -> Accuracy:
        check_order(self.low, self.mean, self.high)
        return self


class MatrixRow(Part):
    """One variant at one load: a replica of it alone, under Poisson arrivals of equal requests."""

    variant_id: Name
    """Names the variant: model, quantization, GPU, tensor parallel above 1, a KV cache in fp8."""
    model_id: Name
    """Model."""
    quantization: Name
    """Quantization scheme."""
    gpu: Name
    """GPU."""
    tensor_parallel: Count
    """GPUs of a replica."""
    kv_cache_dtype: Name = "auto"
    """Type of the KV cache, in vLLM's names; auto is 16-bit."""
    gpu_memory_gb: NonNegative | None
    """GB (10^9 bytes) on each GPU before any KV cache: weights, activations, CUDA graphs, all outside torch."""
    kv_cache_tokens: Count
    """Tokens of context that fit in the KV cache."""
    usd_per_hour: NonNegative | None
    """Price of a replica."""
    basis: Literal["estimated", "measured", "composed", "proxy"]
    """What its step times rest on."""
    extrapolated: tuple[str, ...] = ()
    """Where this load goes beyond what was measured."""
    load: Positive
    """Share of the most requests a second that the replica could keep up with."""
    requests_per_s: Positive
    """Rate of arrivals."""
    input_tokens: Count
    """Prompt of each request."""
    output_tokens: Count
    """Answer of each request."""
    ttft_p50_ms: NonNegative | None
    """Median time to the first token; null where none was given."""
    ttft_p99_ms: NonNegative | None
    """99th percentile of it; null where the replica cannot keep up."""
    tpot_p50_ms: NonNegative | None
    """Median time per output token after the first."""
    tpot_p99_ms: NonNegative | None
    """99th percentile of it."""
    throughput_tok_s: NonNegative
    """Output tokens a second."""
    cost_per_1m_tokens: NonNegative | None
    """USD for a million output tokens at this load; null where the price is not known."""
    is_stable: bool
    """Whether the queue stayed within what chance explains."""
    accuracy: dict[str, Accuracy]
    """Quality of the answers by request class."""


class Matrix(Part):
    """A capability matrix, one row for each variant and load."""

    version: Literal[1] = VERSION
    """Version of this format."""
    requests: Count
    """Requests simulated for each row."""
    seed: Whole
    """Seed of the arrivals."""
    rows: Annotated[tuple[MatrixRow, ...], Field(min_length=1)]
    """The rows."""


def read_matrix(path: str | Path) -> Matrix:
    """The capability matrix in the JSON file `path`. Raises UsageError naming the file and the field."""
    text = _text(Path(path))
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}; a matrix is what `simroute capability -o` writes") from None
    try:
        return Matrix.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"{path}: not a capability matrix: {first_problem(error)}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises OutputError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, "utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}; choose another -o") from None


def read_quality(path: str | Path) -> list[QualityRow]:
    """Accuracies of variants by class: of a matrix (`.json`) or of a table (`.csv`).

    Raises UsageError naming the file, the row and what is wrong, and for two rows that contradict each other.
    """
    path = Path(path)
    if path.suffix.lower() not in (".json", ".csv"):
        raise UsageError(f"{path}: must be a capability matrix (.json) or a table of accuracies (.csv)")
    located = _of_matrix(path) if path.suffix.lower() == ".json" else _of_table(path)
    found: dict[tuple[str, str, str], tuple[QualityRow, str]] = {}
    for row, where in located:
        known, first = found.setdefault(row[:3], (row, where))
        if known != row:
            what = f"{row.model} {row.quantization} for class '{row.request_class}'"
            raise UsageError(f"{path}: {first} and {where} differ on {what}: keep one of the two")
    if not found:
        raise UsageError(f"{path}: no accuracy in it")
    return [row for row, _ in found.values()]


def accuracy_table(rows: Iterable[QualityRow], tasks: Sequence[int] = ()) -> str:
    """The text of a table of accuracies, with the number of `tasks` behind each row where they are given."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*ACCURACY_COLUMNS, *(["tasks"] if tasks else [])])
    for i, row in enumerate(rows):
        numbers = [f"{value:.4f}" for value in (row.mean, row.low, row.high)]
        counted = [tasks[i]] if tasks else []
        table.writerow([row.model, row.quantization, row.request_class, *numbers, row.source, *counted])
    return text.getvalue()


def first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, with its place, and how many more there are."""
    found = error.errors(include_url=False)
    place = ".".join(str(key) for key in found[0]["loc"]) or "the file"
    extra = found[0]["type"] == "extra_forbidden"
    message = "there is no such field" if extra else found[0]["msg"].removeprefix("Value error, ")
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{place}: {message[:1].lower()}{message[1:]}{more}"


def _of_matrix(path: Path) -> Iterator[tuple[QualityRow, str]]:
    for number, row in enumerate(read_matrix(path).rows):
        for name, figure in row.accuracy.items():
            numbers = (figure.mean, figure.low, figure.high)
            yield (
                QualityRow(row.model_id, row.quantization, name, *numbers, figure.source, figure.assumed),
                f"row {number}",
            )


def _of_table(path: Path) -> Iterator[tuple[QualityRow, str]]:
    table = csv.DictReader(io.StringIO(_text(path)))
    missing = [name for name in ACCURACY_COLUMNS if name not in (table.fieldnames or ())]
    if missing:
        raise UsageError(f"{path}: no column {', '.join(missing)}: it needs {', '.join(ACCURACY_COLUMNS)}")
    for record in table:
        yield _table_row(path, table.line_num, record), f"line {table.line_num}"


def _table_row(path: Path, line: int, record: dict[str, Any]) -> QualityRow:
    """One line of a table, checked; an empty `low` or `high` is the mean."""
    given = {name: (record[name] or "").strip() for name in ACCURACY_COLUMNS}
    for name in ("model", "quantization", "request_class"):
        if not given[name]:
            raise UsageError(f"{path}: line {line}: {name} is empty")
    try:
        mean = float(given["mean"])
        low, high = (float(given[name] or mean) for name in ("low", "high"))
    except ValueError:
        raise UsageError(f"{path}: line {line}: mean, low and high must be numbers from 0 to 1") from None
    try:
        figure = Accuracy(mean=mean, low=low, high=high, source=given["source"])
    except ValidationError as error:
        raise UsageError(f"{path}: line {line}: {first_problem(error)}") from None
    names = (given["model"], given["quantization"], given["request_class"])
    return QualityRow(*names, figure.mean, figure.low, figure.high, figure.source)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: cannot be read: it is not text") from None
