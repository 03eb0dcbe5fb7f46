"""Assertions on results: `ttft_p99 < 2s`, `quant_aware: slo_attainment >= 95%`.

Owns the grammar, the list of metrics of a run (other commands bring their own) and what becomes of a verdict: lines on
stderr, an exit status, a JUnit file. Imports errors and typer; report and results inside.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from simroute.errors import UsageError, unknown

EXIT_ASSERTION = 99
JunitOpt = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write the assertions' verdicts there, as JUnit XML.")
]
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_UNITS = {
    "seconds": {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0},
    "share": {"%": 0.01},
    "usd": {"$": 1.0},
    "number": {"": 1.0},
}
_FORM = re.compile(
    r"^\s*(?:(?P<policy>[^:]+?)\s*:\s*)?(?P<metric>[A-Za-z_][\w.]*)\s*(?P<op>[<>=!~]+)\s*(?P<value>\S.*?)\s*$"
)
_NUMBER = re.compile(r"^(?P<dollar>\$?)\s*(?P<number>[-+]?(?:\d[\d,_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?P<unit>\S*)$")

STATISTICS = ("mean", "p50", "p90", "p95", "p99")
LABELS = ("STABLE", "BACKLOGGED", "OVERLOADED")

Metrics = Mapping[str, tuple[tuple[str, ...], str]]
"""Every metric by name: where it stands in a summary, and its dimension (seconds, share, usd, number or label)."""


def _metrics() -> Metrics:
    """The metrics of a policy's summary."""
    latencies = {f"{m}_{s}": ((f"{m}_s", s), "seconds") for m in ("ttft", "tpot", "itl", "e2e") for s in STATISTICS}
    requests = {
        f"requests.{name}": (("requests", name), "number")
        for name in ("arrived", "completed", "rejected", "unfinished")
    }
    return (
        latencies
        | requests
        | {
            "slo_attainment": (("slo_attainment",), "share"),
            "goodput_rps": (("goodput_rps",), "number"),
            "output_tokens_per_s": (("output_tokens_per_s",), "number"),
            "preemptions": (("preemptions",), "number"),
            "prefix_hit_rate": (("prefix_hit_rate",), "share"),
            "kv_usage_mean": (("kv_usage", "mean"), "share"),
            "kv_usage_p99": (("kv_usage", "p99"), "share"),
            "gpu_busy": (("gpu_busy",), "share"),
            "cost_usd_per_month": (("cost_usd_per_month",), "usd"),
            "cost_usd_per_1m_output_tokens": (("cost_usd_per_1m_output_tokens",), "usd"),
            "quality_mean": (("quality", "mean"), "share"),
            "below_floor_share": (("quality", "below_floor_share"), "share"),
            "stability": (("stability",), "label"),
        }
    )


METRICS = _metrics()


@dataclass(frozen=True, slots=True)
class Assertion:
    """`metric op value`, for one policy or, with `policy` None, for each. `value` is in the summary's unit.

    `keys` lead to the metric in a summary.
    """

    text: str
    policy: str | None
    metric: str
    keys: tuple[str, ...]
    dimension: str
    op: str
    value: float | str

    def failures(self, summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """One line for each policy (label → summary) that the assertion does not hold for."""
        lines = []
        for label, summary in summaries.items():
            if self.policy not in (None, label):
                continue
            observed: Any = summary
            for key in self.keys:
                observed = None if observed is None else observed.get(key)
            if observed is None or not _OPERATORS[self.op](observed, self.value):
                lines.append(
                    f"assertion failed: {self.text}: {label} has {self.metric} = {_shown(observed, self.dimension)}"
                )
        return lines


def parse(
    text: str,
    policies: Iterable[str],
    metrics: Metrics = METRICS,
    *,
    what: str = "policy",
    examples: str = "'ttft_p99 < 2s' or 'random: gpu_busy > 50%'",
) -> Assertion:
    """The assertion in `text`; `policies` are the labels of the run, which are called `what`.

    Raises UsageError for another form, an unknown metric or policy, or a unit that does not belong to the metric.
    """
    found = _FORM.match(text)
    if not found:
        raise UsageError(f"--assert '{text}': must be METRIC OP VALUE, such as {examples}")
    policy, metric, op = found["policy"], found["metric"], found["op"]
    if op not in _OPERATORS:
        raise UsageError(f"--assert '{text}': {unknown('operator', op, _OPERATORS)}")
    known = list(policies)
    if policy is not None and policy not in known:
        raise UsageError(f"--assert '{text}': {unknown(what, policy, known)}")
    if metric not in metrics:
        raise UsageError(f"--assert '{text}': {unknown('metric', metric, metrics)}")
    keys, dimension = metrics[metric]
    value = _value(text, found["value"], dimension, op)
    return Assertion(text.strip(), policy, metric, keys, dimension, op, value)


def ready(junit: Path | None) -> None:
    """Prove that the JUnit file can be written, before anything runs. Raises OutputError."""
    from simroute.errors import OutputError
    from simroute.results.store import prepare

    if junit is None:
        return
    if junit.is_dir():
        raise OutputError(f"--junit {junit}: is a folder; give a file")
    prepare(junit.parent, instead="choose another --junit")


def enforce(
    assertions: Iterable[Assertion],
    summaries: Mapping[str, Mapping[str, Any]],
    *,
    suite: str = "simroute",
    junit: Path | None = None,
) -> None:
    """Tell on stderr what does not hold for the summaries (label → summary), and exit with `EXIT_ASSERTION` if so.

    All of it goes to the file `junit` as well, as the tests of `suite`.
    """
    checked = [(assertion, assertion.failures(summaries)) for assertion in assertions]
    record(junit, suite, checked)
    lines = [line for _, failures in checked for line in failures]
    for line in lines:
        typer.echo(line, err=True)
    if lines:
        raise typer.Exit(EXIT_ASSERTION)


def record(
    junit: Path | None, suite: str, checked: Iterable[tuple[Assertion, Sequence[str]]], *, skipped: str = ""
) -> None:
    """Write the JUnit file, if one is asked for: each assertion with what it does not hold for.

    `skipped` says why none of them was checked.
    """
    if junit is None:
        return
    from simroute.report.junit import Check, junit_xml
    from simroute.results.store import write_text

    checks = [
        Check(assertion.text, assertion.policy or "", tuple(failures), skipped) for assertion, failures in checked
    ]
    write_text(junit, junit_xml(suite, checks))


def _value(text: str, value: str, dimension: str, op: str) -> float | str:
    """`value` in the unit of the summary; a number without a unit is taken to be in that unit already."""
    if dimension == "label":
        if value not in LABELS or op not in ("==", "!="):
            raise UsageError(f"--assert '{text}': stability takes == or != and one of {', '.join(LABELS)}")
        return value
    found = _NUMBER.match(value)
    if not found:
        raise UsageError(f"--assert '{text}': '{value}' is not a number with a unit")
    unit = found["dollar"] or found["unit"]
    number = float(found["number"].replace(",", "").replace("_", ""))
    units = {"": 1.0} | _UNITS[dimension]
    if unit not in units or (found["dollar"] and found["unit"]):
        allowed = ", ".join(u for u in units if u) or "none"
        raise UsageError(f"--assert '{text}': unit '{unit}' does not fit: units allowed here: {allowed}")
    return number * units[unit]


def _shown(observed: Any, dimension: str) -> str:
    if observed is None:
        return "no value (too few requests finished, the run is OVERLOADED, or no answer has it)"
    if dimension == "share":
        return f"{observed:.2%}"
    if dimension == "usd":
        return f"${observed:,.2f}"
    return f"{observed:.4g} s" if dimension == "seconds" else str(observed)
