"""A plan's charts in a notebook: figures of plotly with the page's data."""

from __future__ import annotations

import pytest
from planner.plans import document, infeasible

from simroute.errors import UsageError
from simroute.planner.plan import PlanResult
from simroute.report.plan.charts import charts


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("frontier", (), "frontier_ttft"),
        ("frontier", ("e2e",), "frontier_e2e"),
        ("curve", ("tpot",), "curve_tpot"),
        ("day", (), "kv_usage"),
        ("day", ("arrivals",), "arrivals"),
        ("sensitivity", (), "tornado"),
    ],
)
def test_they_are_the_pages_figures(name, arguments, key):
    from plotly.graph_objects import Figure

    figure = getattr(PlanResult(document(), interrupted=False).plot, name)(*arguments)
    assert isinstance(figure, Figure)
    (chart,) = [each for each in charts(document()) if each.key == key]
    assert figure.layout.title.text == chart.title
    assert [trace.name for trace in figure.data] == [trace.get("name") for trace in chart.figure["data"]]
    assert list(figure.data[-1].y) == chart.figure["data"][-1]["y"]


def test_a_chart_that_is_not_there_names_those_that_are():
    with pytest.raises(UsageError, match=r"plot: this plan has no chart tornado; it has frontier_ttft, frontier_tpot"):
        PlanResult(infeasible(), interrupted=False).plot.sensitivity()
    with pytest.raises(UsageError, match="no chart curve_itl"):
        PlanResult(document(), interrupted=False).plot.curve("itl")
