"""Accuracies from the result files of lm-evaluation-harness (`lm_eval --output_path`), by request class.

Which task stands for which request class is a judgement: where the harness runs a benchmark of the catalogue
(`metric_classes.csv`), as there; the rest in `_CLASSES`; the caller may say otherwise. May import hardware, policy
and errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from simroute.errors import UsageError
from simroute.hardware import catalogue
from simroute.policy.capability import QualityRow

Z_90 = 1.645
"""Standard deviations to either side that hold 90% of a normal distribution."""
_BENCHMARKS = {
    "gsm8k": "GSM8K",
    "mmlu": "MMLU",
    "humaneval_plus": "HumanEval+",
    "humaneval": "HumanEval",
    "ceval": "CEVAL",
}
"""Names that the harness's tasks begin with, and the metric of the catalogue that they are."""
_CLASSES = {
    "mbpp": "coding",
    "ifeval": "extraction",
    "arc": "classification",
    "hellaswag": "classification",
    "winogrande": "classification",
    "truthfulqa": "classification",
    "bbh": "reasoning",
    "gpqa": "reasoning",
    "musr": "reasoning",
    "mmlu_pro": "reasoning",
    "minerva_math": "reasoning",
    "hendrycks_math": "reasoning",
    "math_hard": "reasoning",
}
"""Other tasks: code run by tests; instructions whose keeping a program checks; one label out of a few; several steps
of thought. As in the descriptions of the Open LLM Leaderboard, versions 1 and 2."""
_METRICS = ("exact_match", "pass@1", "pass_at_1", "prompt_level_strict_acc", "acc_norm", "acc")
"""Scores between 0 and 1, the first that a task reports is taken."""
_FILTERS = ("strict-match", "flexible-extract", "custom-extract", "get-answer", "create_test", "none")


def lm_eval_rows(
    path: Path, model: str, quantization: str, classes: Mapping[str, str] | None = None
) -> tuple[list[QualityRow], list[str]]:
    """The accuracies in one result file, taken to be of this variant, and a note for each task that was left out.

    `classes` maps names of tasks to request classes, over the usual ones. The interval is the score ± 1.645 standard
    errors, where the file states them. Raises UsageError for a file without usable results.
    """
    document = _document(path)
    wanted = dict(classes or {})
    rows, notes = [], []
    for task, scores in _tasks(document):
        found = (wanted[task],) if task in wanted else usual_classes(task)
        picked = _score(scores)
        if picked is None:
            notes.append(f"{path.name}: {task}: no score between 0 and 1 in it: left out")
        elif not found:
            notes.append(f"{path.name}: {task}: stands for no request class: left out (name one: --task {task}=CLASS)")
        else:
            metric, mean, low, high = picked
            source = f"lm-evaluation-harness: {task} {metric}{_samples(document, task)} ({path.name})"
            rows += [QualityRow(model, quantization, name, mean, low, high, source) for name in found]
    stray = wanted.keys() - document["results"].keys()
    if stray:
        raise UsageError(f"{path}: no task {', '.join(sorted(stray))} in it: it has {', '.join(document['results'])}")
    if not rows:
        raise UsageError(
            f"{path}: none of its tasks ({', '.join(document['results'])}) stands for a request class: "
            "name them with --task TASK=CLASS"
        )
    return rows, notes


def usual_classes(task: str) -> tuple[str, ...]:
    """The request classes that a task stands for, by the longest known name that its own begins with."""
    name = task.lower().removeprefix("leaderboard_")
    known = sorted((k for k in {*_BENCHMARKS, *_CLASSES} if name.startswith(k)), key=len)
    if not known:
        return ()
    best = known[-1]
    return catalogue.request_classes(_BENCHMARKS[best]) if best in _BENCHMARKS else (_CLASSES[best],)


def _document(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from None
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, dict) or not results:
        raise UsageError(
            f"{path}: no results in it: give the results_*.json that lm-evaluation-harness writes with --output_path"
        )
    return document


def _tasks(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Tasks and groups of tasks; not the members of a group that is there itself."""
    results, groups = document["results"], document.get("group_subtasks")
    groups = groups if isinstance(groups, dict) else {}
    members = {name for group, names in groups.items() if group in results for name in names}
    for task, scores in results.items():
        if task not in members and isinstance(scores, dict):
            yield task, scores


def _score(scores: Mapping[str, Any]) -> tuple[str, float, float, float] | None:
    """(metric, mean, low, high) of the first score of a task that is a share, None where there is none."""
    for metric in _METRICS:
        reported = {
            key.partition(",")[2] or "none": value for key, value in scores.items() if key.split(",")[0] == metric
        }
        for name in (*_FILTERS, *reported):
            mean = reported.get(name)
            if isinstance(mean, int | float) and not isinstance(mean, bool) and 0 <= mean <= 1:
                error = scores.get(f"{metric}_stderr,{name}", scores.get(f"{metric}_stderr"))
                margin = Z_90 * error if isinstance(error, int | float) else 0.0
                return metric, float(mean), max(0.0, mean - margin), min(1.0, mean + margin)
    return None


def _samples(document: Mapping[str, Any], task: str) -> str:
    counts = document.get("n-samples")
    count = counts.get(task) if isinstance(counts, dict) else None
    effective = count.get("effective") if isinstance(count, dict) else None
    return f" on {effective:,} tasks" if isinstance(effective, int) else ""
