"""`simroute calibrate ingest`: what others measured, as run directories or calibrations. One file a format."""

from __future__ import annotations

import typer

from simroute.cli.calibrate.ingest import (
    guidellm,
    iteration_log,
    layer_profile,
    op_tables,
    vllm_forward,
    vllm_serve,
    vllm_sweep,
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Turn what others measured into run directories, or into calibrations.",
)
app.command("vllm-serve")(vllm_serve.vllm_serve)
app.command("vllm-sweep")(vllm_sweep.vllm_sweep)
app.command("vllm-forward")(vllm_forward.vllm_forward)
app.command("iteration-log")(iteration_log.iteration_log)
app.command("guidellm")(guidellm.guidellm)
app.command("op-tables")(op_tables.op_tables)
app.command("layer-profile")(layer_profile.layer_profile)
