"""`simroute catalogue`: a table and JSON for every list."""

import json

import pytest
from typer.testing import CliRunner

from simroute.cli.catalogue import app

LISTS = {"gpus": "H100", "models": "Llama-3.1-8B", "schemes": "awq-int4", "prices": "H100", "accuracy": "Qwen3-8B"}


@pytest.mark.parametrize(("command", "name"), LISTS.items())
def test_each_list_prints_a_table_and_json_with_sources(command, name):
    table = CliRunner().invoke(app, [command])
    assert table.exit_code == 0
    assert name in table.stdout
    rows = json.loads(CliRunner().invoke(app, [command, "--json"]).stdout)
    assert name in {value for row in rows for value in row.values() if isinstance(value, str)}
    assert all(row["source"] and row["retrieved"] for row in rows)


def test_prices_of_one_gpu():
    rows = json.loads(CliRunner().invoke(app, ["prices", "--gpu", "h100-sxm", "--json"]).stdout)
    assert {row["gpu"] for row in rows} == {"H100"}
