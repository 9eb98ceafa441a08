"""`insgd-lab data`: look for the data sets' files, or put them in place."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from insgd_lab.cli.common import SETTINGS, DataDir, plain_errors, print_table

app = typer.Typer(help="Look for the data sets' files, or put them in place.", **SETTINGS)


@app.command("status")
def data_status(
    name: Annotated[str | None, typer.Argument(help="A data set; all if left out.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Show which files of the data sets are there and right."""
    with plain_errors():
        from insgd_lab import registry
        from insgd_lab.training import availability

        names = registry.list_data() if name is None else [registry.get_data(name).name]
        rows: list[tuple[str, str, str]] = []
        for known in names:
            found = availability.statuses(known, data_dir)
            rows += [(known, str(status.path), status.state) for status in found]
            if not found:
                rows.append((known, registry.get_data(known).description, availability.remedy(known)))
    print_table(("data", "file", "state"), rows)


@app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="A data set, such as cifar10.")],
    source: Annotated[Path, typer.Option(help="The authors' archive, or the folder that holds their files.")],
    data_dir: DataDir = None,
) -> None:
    """Check a data set's files and put them in place, decoded where they are images."""
    with plain_errors():
        from insgd_lab import registry
        from insgd_lab.training import preparation

        known = registry.get_data(name).name
        statuses = preparation.prepare(known, data_dir, source, counted=_decoding)
        typer.echo(f"{name}: {len(statuses)} files are right in {statuses[0].path.parent}")


def _decoding(members: Sequence[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """Pass images on, counting them on a bar if anyone looks."""
    from rich.console import Console
    from rich.progress import track

    return track(members, "decoding", console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
