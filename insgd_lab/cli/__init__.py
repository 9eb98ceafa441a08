"""The command `insgd-lab`: optimizers, runs, studies, reports, data, the papers' audit; each thin over the library.

Exit codes: 0 done (a diverged run is a result), 1 a run failed or is left, 2 bad input, 130 interrupted. Heavy modules
are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from insgd_lab.cli import audit, checking, data, optimizers, studies, study_tools, training
from insgd_lab.cli.common import SETTINGS

__all__ = ["app", "main"]

app = typer.Typer(help="A laboratory for input- and gradient-normalised optimizers.", **SETTINGS)
app.add_typer(optimizers.app, name="optimizers")
study_tools.add_to(studies.app)
app.add_typer(studies.app, name="study")
app.add_typer(data.app, name="data")
for command in (checking.check, training.train, studies.report, audit.audit):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    warnings.formatwarning = lambda message, *rest, **named: f"warning: {message}\n"
    app()


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        import importlib.metadata

        typer.echo(importlib.metadata.version("insgd-lab"))
