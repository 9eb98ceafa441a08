"""`insgd-lab check`: hold an optimizer to the laws."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from insgd_lab.cli.common import FAILED, Plugins, load_plugins, plain_errors, print_table, refuse

if TYPE_CHECKING:
    from insgd_lab.testing.laws import Outcome


def check(
    name: Annotated[str, typer.Argument(help="The optimizer's exact name.")],
    law: Annotated[str, typer.Option(metavar="PATTERN", help="Try the laws whose names match.")] = "*",
    examples: Annotated[int, typer.Option(min=1, help="How many cases to try of each law.")] = 20,
    replay: Annotated[
        str | None, typer.Option(metavar="JSON", help="Try this one case of the law that --law names.")
    ] = None,
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Try the laws of insgd_lab.testing on an optimizer: pass, fail with the smallest case, or not applicable."""
    with plain_errors():
        from insgd_lab import registry

        load_plugins(plugin)
        registry.get_optimizer(name)  # a misspelt one is refused before torch is imported
        from insgd_lab.testing import report

        outcomes = _tried(name, law, examples, replay)
    for columns, rows in (
        (("law", "verdict", "what it says"), report.tried(outcomes)),
        (("not applicable, since", "laws"), report.inapplicable(outcomes)),
    ):
        if rows:
            print_table(columns, rows)
    for outcome in outcomes:
        if outcome.verdict == "fail":
            typer.echo("\n" + report.explain(name, outcome, plugin))
    typer.echo("\n" + report.summary(name, outcomes))
    if any(outcome.verdict == "fail" for outcome in outcomes):
        raise typer.Exit(FAILED)


def _tried(name: str, pattern: str, examples: int, replay: str | None) -> list[Outcome]:
    from insgd_lab.testing import laws, report

    try:
        if replay is not None:
            return [laws.replay(pattern, name, report.read_case(replay))]
        with report.progress(name, len(laws.find(pattern)), sys.stderr) as counted:
            return list(counted(laws.outcomes(name, pattern=pattern, examples=examples, derandomize=True)))
    except laws.CannotBuild as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED) from None
    except laws.BadCase as error:
        refuse(str(error))
