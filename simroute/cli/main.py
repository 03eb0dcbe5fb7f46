"""The `simroute` command: mounts the commands, turns errors into one line each and an exit code.

Imports nothing heavy at the top: `simroute --help` must answer at once, so each command imports what it needs.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any, NoReturn

import typer
import typer.core

from simroute import __version__, interrupt
from simroute.cli import calibrate, capability, catalogue, scenario, trace
from simroute.cli.capacity import capacity
from simroute.cli.compare import compare
from simroute.cli.plan import plan
from simroute.cli.run import EXIT_INTERRUPTED, run
from simroute.cli.whatif import whatif
from simroute.errors import SimrouteError

EXIT_INTERNAL = 1
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says of a disk that takes no more."""
EXIT_UNREAD = 141
"""Whoever read the output (head, less) has left: what a shell says of a tool that ends by SIGPIPE."""


class _Commands(typer.core.TyperGroup):
    """The commands; handles what typer would otherwise answer with silence or the wrong exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            # Left to click, it would exit with 1.
            _say("interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        return result


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    # Plain help: rich would triple the time until it shows.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(compare)
app.command()(plan)
app.command()(whatif)
app.command()(capacity)
app.command()(scenario.check)
app.command()(scenario.schema)
app.add_typer(trace.app, name="trace")
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(capability.app, name="capability")
app.add_typer(catalogue.app, name="catalogue")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"simroute {__version__}")
        raise typer.Exit


@app.callback()
def simroute(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Replay real traffic through a step-exact vLLM fleet: latency, cost and quality for each routing policy.

    Exit codes: 0 ok, 1 internal error, 2 usage or configuration, 3 no plan meets the
    targets, 99 an assertion failed, 130 interrupted, 141 the reader of its output left.
    """


def main() -> NoReturn:
    """Run the command line; never returns."""
    code: int | str | None = 0
    with interrupt.listening():
        try:
            app(prog_name="simroute")
        except BaseException as error:
            code = _exit_code(error)
    sys.exit(code)


def _exit_code(error: BaseException) -> int | str | None:
    """The exit code of a command that ended in `error`, which is told; a Ctrl-C counts whatever it was turned into."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        return EXIT_UNREAD  # (click and rich say 1, which is an internal error)
    if isinstance(error, SystemExit) and (error.code == EXIT_INTERRUPTED or not interrupt.heard()):
        return error.code
    if isinstance(error, KeyboardInterrupt) or interrupt.heard():
        _say("interrupted")
        return EXIT_INTERRUPTED
    if isinstance(error, SimrouteError):
        _say(*str(error).splitlines())
        return error.exit_code
    if isinstance(error, OSError) and error.errno in _FULL:
        _say(f"cannot write {error.filename or 'the output'}: {error.strerror}")
        return EXIT_INTERNAL
    if os.environ.get("SIMROUTE_TRACEBACK"):
        raise error
    _say(f"internal error: {type(error).__name__}: {error}", "set SIMROUTE_TRACEBACK=1 to see where it happened")
    return EXIT_INTERNAL


def _say(*lines: str) -> None:
    for line in lines:
        print(f"simroute: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
