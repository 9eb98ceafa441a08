"""`insgd-lab study status`, `merge` and `export`: what is done with the folders of studies."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insgd_lab.cli.common import StudyDir, plain_errors, refuse

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from insgd_lab.studies.status import ArmState, Best, Lab, StudyState

__all__ = ["add_to", "doing", "gaps", "present_lab"]

_SHOWN = 5
_STAGES = {"trial": "trials", "final": "final runs"}
_SELDOM = {"interrupted", "damaged"}  # counted only where there are some
_WIDTH = 160  # of what goes into a file, which has no width of its own


def add_to(app: typer.Typer) -> None:
    """Add these commands to the group `study`."""
    app.command()(status)
    app.command()(merge)
    app.command()(export)


def present_lab() -> Lab:
    """The version of the lab that runs now."""
    from insgd_lab.studies.status import Lab
    from insgd_lab.training import provenance

    return Lab(provenance.versions()["insgd_lab"], provenance.commit()[0] or "")


# ------------------------------------------------------------------------------------------------ status


def status(
    study_dir: StudyDir,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again every 2 s until the study ends.")] = False,
) -> None:
    """Show how far a study has got: counts, the best settings so far and the time left, arm by arm."""
    with plain_errors():
        from insgd_lab.store import StudyFolder
        from insgd_lab.studies.status import Survey
        from insgd_lab.studies.watching import watch as watch_survey

        survey, console = Survey(StudyFolder(study_dir), present_lab()), _console()
        if watch:
            state = watch_survey(survey, _table, console)
        else:
            state = survey.state()
            console.print(_table(state))
    for note in _notes(state):
        typer.echo(note)


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)


def _table(state: StudyState) -> Table:
    from rich.table import Table
    from rich.text import Text

    words = [word for word in state.arms[0].counts if word not in _SELDOM or any(a.counts[word] for a in state.arms)]
    search = any(arm.stage for arm in state.arms)
    named = ["arm", "stage"] if search else ["arm"]
    columns = [*named, "runs", *words, *(["stale"] if state.stale else []), "best on validation", "time left"]
    table = Table(*columns, title=Text(state.title), title_justify="left", caption=_caption(state))
    for arm in state.arms:
        stale = [arm.stale] if state.stale else []
        names = [arm.name, _STAGES[arm.stage]] if search else [arm.name]
        row = (*names, arm.runs, *(arm.counts[word] for word in words), *stale, _best(arm.best), _left(arm))
        table.add_row(*(Text(str(cell)) for cell in row))  # as it is: rich would read [low, high] as a style
    return table


def _caption(state: StudyState) -> str | None:
    from insgd_lab.studies.progress import duration

    return None if state.seconds_left is None else f"about {duration(state.seconds_left)} left in all"


def _best(best: Best | None) -> str:
    from insgd_lab.analysis.labels import describe

    if best is None:
        return ""
    seeds = f"{best.seeds} seed" + ("s" if best.seeds > 1 else "")
    settings = describe(best.settings)
    value = f"{best.value:.3g}" if best.metric == "loss" else f"{best.value:.4f}"
    return f"{best.metric} {value} ({settings + '; ' if settings else ''}{seeds})"


def _left(arm: ArmState) -> str:
    from insgd_lab.studies.progress import duration

    return "" if arm.seconds_left is None else duration(arm.seconds_left)


def _notes(state: StudyState) -> Iterable[str]:
    """What must be told beside the counts: every reason for failure, as nothing else lists them all."""
    yield from (f"failed: {failure}" for failure in state.failures)
    yield from _listed("damaged", state.damaged)
    if state.stale:
        makers = ", ".join(f"{lab} ({runs})" for lab, runs in sorted(state.stale.items()))
        yield (
            f"stale: {sum(state.stale.values())} runs are by other versions of the lab than {state.lab}: {makers}; "
            "`insgd-lab study run … --rerun stale` does them again"
        )


def gaps(study_dir: Path) -> Iterable[str]:
    """What a report on a study lacks: every damaged run, and how many runs have no result."""
    from insgd_lab.store import FINISHED, StudyFolder
    from insgd_lab.studies.status import Lab, Survey

    state = Survey(StudyFolder(study_dir), Lab("", "")).state()  # by which version runs are does not matter here
    yield from _listed("damaged", state.damaged)
    runs = sum(arm.runs for arm in state.arms)
    finished = sum(arm.counts[word] for arm in state.arms for word in FINISHED)
    if finished < runs:
        yield f"incomplete: {finished} of {runs} runs"


@contextmanager
def doing() -> Iterator[Callable[[str], object] | None]:
    """A line on the terminal that says what is being done; None where there is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:
        yield status.update


def _listed(word: str, messages: Mapping[str, str]) -> Iterable[str]:
    yield from (f"{word}: {message}" for message in list(messages.values())[:_SHOWN])
    if len(messages) > _SHOWN:
        yield f"and {len(messages) - _SHOWN} more"


# ------------------------------------------------------------------------------------------------ merge, export


def merge(
    sources: Annotated[list[Path], typer.Argument(metavar="STUDY_DIR...", help="Folders of one study.")],
    out: Annotated[Path, typer.Option("--out", help="The folder that gets the runs of all of them.")],
) -> None:
    """Join the results of one study from several machines; what is there already is kept."""
    with plain_errors():
        from insgd_lab.store import StudyFolder
        from insgd_lab.studies.merging import merge as merge_studies

        merged = merge_studies([StudyFolder(source) for source in sources], StudyFolder(out))
    for note in merged.notes:
        typer.echo(note, err=True)
    counts = [f"{merged.copied} runs copied"]
    counts += [f"{n} {words}" for n, words in ((merged.there, "there already"), (merged.unfinished, "unfinished")) if n]
    rest = f"; {merged.missing} have no result yet: run the study with --out {out}" if merged.missing else ""
    typer.echo(f"{out}: {', '.join(counts)}{rest}")


def export(
    study_dir: StudyDir,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.parquet", help="Write all metrics as one tidy table.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="LOGDIR", help="Write curves for TensorBoard.")
    ] = None,
) -> None:
    """Write a study's metrics for other tools."""
    with plain_errors():
        from insgd_lab.store import StudyFolder
        from insgd_lab.studies.exporting import export_parquet, export_tensorboard

        if out is None and tensorboard is None:
            refuse("nothing to write; give --out FILE.parquet, --tensorboard LOGDIR or both")
        folder = StudyFolder(study_dir)
        for write, path in ((export_parquet, out), (export_tensorboard, tensorboard)):
            if path is not None:
                exported = write(folder, path)
                for note in _listed("left out", exported.damaged):
                    typer.echo(note, err=True)
                typer.echo(f"{path}: {exported.runs} runs, {exported.rows:,} values")
