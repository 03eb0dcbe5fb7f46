"""`simroute capability`: what each variant can do at given loads, and how good its answers are.

One file a command; each imports what it needs when it runs. Without a command's name it means `matrix`.
"""

from __future__ import annotations

from typing import Any

import typer
import typer.core

from simroute.cli.capability import evaluate, matrix


class _MatrixByDefault(typer.core.TyperGroup):
    """Takes arguments that begin with no command's name as those of `matrix`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = not args or args[0] in self.commands or args[0] in ctx.help_option_names
        return list(super().parse_args(ctx, args if named else ["matrix", *args]))


app = typer.Typer(
    cls=_MatrixByDefault,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What each variant of a model can do at given loads, at what price, and how good its answers are. "
    "Without a command it means matrix.",
)
app.command()(matrix.matrix)
app.command()(evaluate.evaluate)
