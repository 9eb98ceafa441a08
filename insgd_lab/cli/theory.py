"""`insgd-lab theory`: claims about convergence, measured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from insgd_lab.cli.common import check_out, plain_errors
from insgd_lab.cli.hands import cores
from insgd_lab.cli.studies import study_run

if TYPE_CHECKING:
    from insgd_lab.store import StudyFolder

__all__ = ["theory"]


def theory(
    part: Annotated[
        Literal["all", "regret", "stability", "nlms", "projection"],
        typer.Argument(help="What to measure.", metavar="[PART]"),
    ] = "all",
    out: Annotated[Path, typer.Option("--out", help="Where the studies and the page go.")] = Path("runs/theory"),
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one for each core.")] = None,
) -> None:
    """Measure average regret, largest stable step sizes and NLMS (docs/theory.md), and write a page of findings.

    PART is all, regret, stability, nlms or projection. What is finished is read, not run again.
    """
    with plain_errors():
        check_out(out)
        parts = ("regret", "stability", "nlms", "projection") if part == "all" else (part,)
        for name in parts:
            _measure(name, out / name, workers or cores())
        from insgd_lab.analysis.theory import write_page

        typer.echo(f"Findings: {write_page(out)}")


def _measure(name: str, path: Path, workers: int) -> None:
    if name == "nlms":
        study_run("theory/nlms", out=path, workers=workers)
        return
    from insgd_lab.experiments.theory import projection, regret, stability
    from insgd_lab.store import StudyFolder

    programs: dict[str, tuple[Callable[..., None], str]] = {
        "regret": (regret.work_off, "games"),
        "stability": (stability.work_off, "searches"),
        "projection": (projection.work_off, "paths"),
    }
    program, jobs = programs[name]
    _work_off(program, StudyFolder(path), workers, jobs)


def _work_off(program: Callable[..., None], folder: StudyFolder, workers: int, jobs: str) -> None:
    """Run a program with its progress shown."""
    import torch

    from insgd_lab.studies.ledger import Tally
    from insgd_lab.studies.progress import shown

    torch.set_num_threads(1)  # as each worker has
    tally = Tally(0)
    name = f"theory/{folder.path.name} ({jobs})"
    with shown(name, sys.stdout) as update:

        def tell(done: int, total: int) -> None:
            tally.total, tally.done, tally.executed = total, done, done
            tally.running = min(workers, total - done)
            update(tally)

        program(folder, workers=workers, tell=tell)
    typer.echo(f"{name}: {tally.done} done ({tally.seconds:.0f} s); results in {folder.path}")
