"""Result files of lm-evaluation-harness, as its versions 0.3 and 0.4 write them."""

from __future__ import annotations

import json

import pytest

from simroute.calibration.capability.lm_eval import lm_eval_rows, usual_classes
from simroute.errors import UsageError

RESULTS = {
    "results": {
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.8,
            "exact_match_stderr,strict-match": 0.02,
            "exact_match,flexible-extract": 0.9,
        },
        "mmlu": {"acc,none": 0.7, "acc_stderr,none": 0.01, "alias": "mmlu"},
        "mmlu_stem": {"acc,none": 0.1, "alias": " - stem"},
        "humaneval_instruct": {"pass@1,create_test": 0.6, "pass@1_stderr,create_test": "N/A"},
        "wikitext": {"word_perplexity,none": 8.1},
        "own_intents": {"acc,none": 0.95, "acc_stderr,none": 0.1},
    },
    "group_subtasks": {"mmlu": ["mmlu_stem"], "gsm8k": []},
    "n-samples": {"gsm8k": {"original": 1319, "effective": 1319}},
}


@pytest.fixture
def read(tmp_path):
    def write(document, **classes):
        (tmp_path / "results_x.json").write_text(document if isinstance(document, str) else json.dumps(document))
        return lm_eval_rows(tmp_path / "results_x.json", "Qwen3-8B", "fp8", classes)

    return write


def test_scores_become_accuracies_of_the_classes_they_stand_for(read):
    rows, notes = read(RESULTS)
    found = {row.request_class: row for row in rows}
    assert {name: row.mean for name, row in found.items()} == {
        "reasoning": 0.8,
        "chat": 0.7,
        "classification": 0.7,
        "coding": 0.6,
    }
    reasoning = found["reasoning"]
    assert reasoning[:2] == ("Qwen3-8B", "fp8")
    assert (reasoning.low, reasoning.high) == (pytest.approx(0.8 - 1.645 * 0.02), pytest.approx(0.8 + 1.645 * 0.02))
    assert reasoning.source == "lm-evaluation-harness: gsm8k exact_match on 1,319 tasks (results_x.json)"
    assert (found["coding"].low, found["coding"].high) == (0.6, 0.6)
    assert not reasoning.assumed
    assert [note.split(": ")[1] for note in notes] == ["wikitext", "own_intents"]


def test_the_caller_says_what_a_task_stands_for(read):
    rows, notes = read(RESULTS, own_intents="intents", gsm8k="maths")
    found = {row.request_class: row for row in rows}
    assert found["intents"].mean == 0.95
    assert found["intents"].high == 1.0
    assert "maths" in found
    assert "reasoning" not in found
    assert len(notes) == 1
    with pytest.raises(UsageError, match=r"no task intents in it: it has gsm8k, mmlu"):
        read(RESULTS, intents="chat")


def test_keys_without_a_filter_are_those_of_version_0_3(read):
    ((row,), _) = read({"results": {"arc_challenge": {"acc": 0.4, "acc_norm": 0.5, "acc_norm_stderr": 0.01}}})
    assert (row.request_class, row.mean) == ("classification", 0.5)
    assert row.low == pytest.approx(0.5 - 0.01645)


@pytest.mark.parametrize(
    ("task", "classes"),
    [
        ("gsm8k_cot_llama", ("reasoning",)),
        ("leaderboard_bbh", ("reasoning",)),
        ("mmlu_pro", ("reasoning",)),
        ("mmlu_abstract_algebra", ("chat", "classification")),
        ("humaneval_plus", ("coding",)),
        ("mbpp", ("coding",)),
        ("ifeval", ("extraction",)),
        ("wikitext", ()),
    ],
)
def test_the_longest_known_name_decides(task, classes):
    assert usual_classes(task) == classes


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not JSON"),
        ([], "no results in it: give the results_\\*.json"),
        ({"results": {}}, "no results in it"),
        ({"config": {}}, "no results in it"),
        ({"results": {"wikitext": {"word_perplexity,none": 8.1}}}, "none of its tasks \\(wikitext\\) stands for"),
        ({"results": {"gsm8k": {"exact_match,strict-match": 80.0}}}, "none of its tasks"),
    ],
)
def test_a_file_without_usable_results_is_refused(read, document, message):
    with pytest.raises(UsageError, match=r"results_x\.json: ") as refused:
        read(document)
    assert refused.match(message)
