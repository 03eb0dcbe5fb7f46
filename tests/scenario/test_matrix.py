"""Capability matrices and tables of accuracies: read by scenarios, routed on, refused with the place of the fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simroute.errors import OutputError, ScenarioError, UsageError
from simroute.policy.capability import QualityRow
from simroute.scenario.build import build
from simroute.scenario.matrix import Matrix, accuracy_table, read_matrix, read_quality, write_text
from simroute.scenario.run import run

HEADER = "model,quantization,request_class,mean,low,high,source\n"


def row(**changes: Any) -> dict[str, Any]:
    return {
        "variant_id": "qwen3-8b-fp8-l40s",
        "model_id": "Qwen3-8B",
        "quantization": "fp8",
        "gpu": "L40S",
        "tensor_parallel": 1,
        "gpu_memory_gb": 11.5,
        "kv_cache_tokens": 100_000,
        "usd_per_hour": 1.86,
        "basis": "estimated",
        "load": 0.5,
        "requests_per_s": 2.0,
        "input_tokens": 1024,
        "output_tokens": 256,
        "ttft_p50_ms": 60.0,
        "ttft_p99_ms": 200.0,
        "tpot_p50_ms": 20.0,
        "tpot_p99_ms": 30.0,
        "throughput_tok_s": 500.0,
        "cost_per_1m_tokens": 1.03,
        "is_stable": True,
        "accuracy": {"chat": {"mean": 0.6, "low": 0.5, "high": 0.7, "source": "own tasks"}},
    } | changes


@pytest.fixture
def written(tmp_path):
    """`written(rows)`: a matrix of these rows beside the scenario; its path."""

    def write(*rows, name="matrix.json"):
        (tmp_path / name).write_text(json.dumps({"requests": 1000, "seed": 0, "rows": rows}))
        return tmp_path / name

    return write


def two_schemes(data, **quality):
    first = data["pools"][0]
    cheap = {"name": "cheap", "quantization": "w4a16", "price": {"usd_per_gpu_hour": 0.1}}
    pools = [first | cheap, first | {"name": "good", "quantization": "fp8"}]
    return data | {
        "pools": pools,
        "classes": {"chat": {"quality_floor": 0.7}, "coding": {"quality_floor": 0.1}},
        "policies": ["quant_aware"],
        "quality": quality,
    }


def answers_of(reading, data, request_class):
    """The pools that served a class under quant_aware."""
    result = run(reading(data).scenario, jobs=1)
    fleet = result.results[0].fleet
    members = fleet.trace.class_code == fleet.trace.class_names.index(request_class)
    return {fleet.replicas[replica].pool for replica in fleet.replica[members]}


@pytest.mark.parametrize(("cheap", "expected"), [(0.75, {"cheap"}), (0.65, {"good"})])
def test_quant_aware_routes_on_the_matrix(reading, data, written, cheap, expected):
    """The cheaper variant takes the class exactly when the matrix says that it is good enough."""
    figures = {name: {"mean": 0.75, "low": 0.7, "high": 0.8, "source": "own tasks"} for name in ("chat", "coding")}
    good = row(accuracy=figures)
    poor = row(quantization="w4a16", accuracy=figures | {"chat": figures["chat"] | {"mean": cheap, "low": 0.6}})
    written(good, poor)
    assert answers_of(reading, two_schemes(data, matrix="matrix.json"), "chat") == expected


def test_a_table_says_the_same_as_a_matrix(reading, data, tmp_path, written):
    (tmp_path / "own.csv").write_text(HEADER + "Qwen3-8B,fp8,chat,0.6,0.5,0.7,own tasks\n")
    assert read_quality(tmp_path / "own.csv") == read_quality(written(row()))
    for name in ("own.csv", "matrix.json"):
        built = build(reading(data | {"quality": {"matrix": name}}).scenario)
        assert built.quality("only", "chat") == (0.6, 0.5, 0.7)


def test_what_is_given_beats_what_is_published_and_an_assumption_beats_both(reading, data, written):
    written(row())
    published = build(reading(data).scenario).quality("only", "chat")
    assumption = {"model": "Qwen3-8B", "quantization": "fp8", "request_class": "chat", "mean": 0.9, "note": "hope"}
    given = build(reading(data | {"quality": {"matrix": "matrix.json"}}).scenario).quality("only", "chat")
    both = build(reading(data | {"quality": {"matrix": "matrix.json", "assumed": [assumption]}}).scenario)
    assert published not in (None, given)
    assert given == (0.6, 0.5, 0.7)
    assert both.quality("only", "chat") == (0.9, 0.9, 0.9)
    assert both.stated() == ("assumed: quality of Qwen3-8B fp8 for chat is 0.9 (0.9 to 0.9): hope",)


def test_assumptions_stay_assumptions_in_a_matrix(reading, data, written):
    written(row(accuracy={"chat": {"mean": 0.6, "low": 0.5, "high": 0.7, "source": "a guess", "assumed": True}}))
    built = build(reading(data | {"quality": {"matrix": "matrix.json"}}).scenario)
    assert built.stated() == ("assumed: quality of Qwen3-8B fp8 for chat is 0.6 (0.5 to 0.7): a guess",)


def test_a_16_bit_figure_of_ones_own_is_what_published_recoveries_are_fractions_of(reading, data, tmp_path):
    (tmp_path / "own.csv").write_text(HEADER + "Llama-3.1-8B,bf16,coding,0.6,,,own tasks\n")
    data["pools"][0] |= {"model": "Llama-3.1-8B", "quantization": "w4a16"}
    mean, _, _ = build(reading(data | {"quality": {"matrix": "own.csv"}}).scenario).quality("only", "coding")
    assert mean == pytest.approx(0.6 * (0.997 + 0.974) / 2)


def test_repeated_figures_are_one_and_contradictions_are_refused(written):
    assert len(read_quality(written(row(), row(load=0.9)))) == 1
    other = {"chat": {"mean": 0.9, "low": 0.9, "high": 0.9, "source": "own tasks"}}
    with pytest.raises(UsageError, match=r"row 0 and row 1 differ on Qwen3-8B fp8 for class 'chat': keep one"):
        read_quality(written(row(), row(accuracy=other)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column model, quantization"),
        ("model,quantization,mean\n", "no column request_class, low, high, source: it needs model"),
        (HEADER, "no accuracy in it"),
        (HEADER + "Qwen3-8B,fp8,chat,good,,,x\n", "line 2: mean, low and high must be numbers from 0 to 1"),
        (HEADER + "Qwen3-8B,fp8,chat,0.6,,,x\nQwen3-8B,fp8,coding,1.6,,,x\n", "line 3: mean: input should be less"),
        (HEADER + "Qwen3-8B,fp8,chat,0.6,0.7,,x\n", "line 2: the file: low ≤ mean ≤ high must hold"),
        (HEADER + "Qwen3-8B,fp8,chat,nan,,,x\n", "line 2: mean: "),
        (HEADER + "Qwen3-8B,fp8,chat,0.6,,,\n", "line 2: source: "),
        (HEADER + ",fp8,chat,0.6,,,x\n", "line 2: model is empty"),
    ],
)
def test_a_useless_table_is_refused_with_the_line(tmp_path, text, message):
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(UsageError, match=r"own\.csv: ") as refused:
        read_quality(tmp_path / "own.csv")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a capability matrix"),
        ('{"requests": 1, "seed": 0, "rows": []}', "rows: "),
        (json.dumps({"requests": 1, "seed": 0, "rows": [row(load="half")]}), "rows.0.load: "),
        (json.dumps({"requests": 1, "seed": 0, "rows": [row(extra=1)]}), "rows.0.extra: "),
        (json.dumps({"version": 2, "requests": 1, "seed": 0, "rows": [row()]}), "version: "),
    ],
)
def test_a_useless_matrix_is_refused_with_the_field(tmp_path, text, message):
    (tmp_path / "matrix.json").write_text(text)
    with pytest.raises(UsageError, match=r"matrix\.json: ") as refused:
        read_quality(tmp_path / "matrix.json")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ({"matrix": "gone.json"}, "quality.matrix: "),
        ({"matrix": "trace.csv"}, "no column model"),
        ({"matrix": "notes.txt"}, "must be a capability matrix (.json) or a table of accuracies (.csv)"),
        ({"matrices": "matrix.json"}, "unknown field 'matrices': did you mean matrix?"),
        ({"assumed": [{"model": "Qwen3-8B"}]}, "quality.assumed[0].quantization: missing"),
        ([{"model": "Qwen3-8B"}], "quality[0].quantization: missing"),
        (3, "quality: must be a mapping of fields (matrix, assumed), got 3"),
    ],
)
def test_a_scenario_with_faulty_quality_is_refused_where_it_stands(reading, data, quality, message):
    with pytest.raises(ScenarioError) as refused:
        reading(data | {"quality": quality})
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_id": "Qwen3-8"}, "unknown model 'Qwen3-8': did you mean Qwen3-14B, Qwen3-32B, Qwen3-8B?"),
        ({"quantization": "fp9"}, "unknown quantization scheme 'fp9': did you mean"),
    ],
)
def test_unknown_variants_of_a_matrix_are_refused_with_the_nearest_names(reading, data, written, change, message):
    written(row(**change))
    with pytest.raises(ScenarioError, match=r"quality\.matrix: .*matrix\.json: ") as refused:
        reading(data | {"quality": {"matrix": "matrix.json"}})
    assert message in str(refused.value)


def test_a_matrix_survives_writing_and_reading(tmp_path):
    matrix = Matrix(requests=1000, seed=3, rows=(row(), row(load=0.9, ttft_p99_ms=None, is_stable=False)))
    write_text(tmp_path / "new/matrix.json", matrix.model_dump_json(indent=2))
    assert read_matrix(tmp_path / "new/matrix.json") == matrix
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["matrix.json"]
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "new/matrix.json/below.json", "{}")


def test_a_table_survives_writing_and_reading(tmp_path):
    rows = [QualityRow("Qwen3-8B", "fp8", name, 0.5, 0.25, 0.75, 'tasks, "mine"') for name in ("chat", "coding")]
    (tmp_path / "own.csv").write_text(accuracy_table(rows, tasks=[40, 50]))
    assert read_quality(tmp_path / "own.csv") == rows
