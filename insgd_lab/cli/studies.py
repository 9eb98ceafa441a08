"""`insgd-lab study` and `insgd-lab report`: many runs, and what they say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insgd_lab.cli.common import (
    FAILED,
    INTERRUPTED,
    SETTINGS,
    DataDir,
    Device,
    Out,
    Plugins,
    StudyDir,
    StudyName,
    check_data,
    check_device,
    check_out,
    plain_errors,
    print_table,
    refuse,
)

if TYPE_CHECKING:
    from insgd_lab.config import StudySpec
    from insgd_lab.store import StudyFolder
    from insgd_lab.studies.executor import Tally
    from insgd_lab.studies.planning import Plan

app = typer.Typer(help="Run a study, look at its plan or its state.", **SETTINGS)
_SHOWN_FAILURES = 5


@app.command("run")
def study_run(
    study: StudyName,
    out: Out = None,
    data_dir: DataDir = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one per core.")] = None,
    device: Device = "cpu",
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Run all runs of a study that have no result yet."""
    with plain_errors():
        from insgd_lab.store import StudyFolder
        from insgd_lab.studies.executor import locked, sweep

        plan = _plan(study, plugin)
        folder = StudyFolder(out or Path("runs") / plan.study.name)
        check_out(folder.path)
        _check_same_study(plan, folder)
        if _unfinished(plan, folder):
            check_device(device)
            check_data(plan.runs.values(), data_dir)
        with locked(folder):
            _write_plan(plan, folder)
            sweep(plan, folder)
            tally = _execute(plan, folder, workers or _cores(), device, data_dir)
        for note in tally.notes:
            typer.echo(note, err=True)
        if tally.failed:
            _print_failures(plan, folder)
        if tally.left:
            message = f"no worker is left for {tally.left} runs; the same command goes on"
            typer.echo(f"{plan.study.name}: {message}", err=True)
        if tally.failed or tally.left:
            raise typer.Exit(FAILED)


def _check_comparison(spec: StudySpec) -> None:
    """Refuse a study that is to be put beside a published table that is not on record."""
    from insgd_lab.analysis.published import load_paper

    if spec.compare is not None:
        load_paper(spec.compare.paper).find_table(spec.compare.table)


def _plan(study: str, plugins: Sequence[str]) -> Plan:
    """What a study asks for, checked as far as it can be before anything runs."""
    from insgd_lab.config import load_study
    from insgd_lab.studies.planning import make_plan

    spec = load_study(study, plugins)
    _check_comparison(spec)
    return make_plan(spec)


def _unfinished(plan: Plan, folder: StudyFolder) -> int:
    from insgd_lab.studies.executor import tally_of

    return len(plan.runs) - tally_of(plan, folder).finished


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_same_study(plan: Plan, folder: StudyFolder) -> None:
    if folder.exists and (there := folder.info().get("name")) != plan.study.name:
        refuse(f"{folder.path} holds the study {there!r}, not {plan.study.name!r}; name another --out")


def _write_plan(plan: Plan, folder: StudyFolder) -> None:
    """Write `study.json` unless it says the same already, and tell which runs an edited study leaves out."""
    from datetime import UTC, datetime

    from insgd_lab.store import to_json_value
    from insgd_lab.studies.planning import study_info
    from insgd_lab.training import provenance

    before = folder.info() if folder.exists else {}
    created = before.get("created") or datetime.now(UTC).isoformat(timespec="seconds")
    info = to_json_value(study_info(plan, versions=provenance.versions(), created=created))
    if {**info, "versions": None} != {**before, "versions": None}:
        folder.write_info(info)
    left_out = sum(run.id not in plan.runs for run in folder.runs())
    if left_out:
        typer.echo(f"{plan.study.name}: {left_out} runs of an earlier plan are kept and ignored")


def _execute(plan: Plan, folder: StudyFolder, workers: int, device: str, data_dir: Path | None) -> Tally:
    from insgd_lab.studies import executor, progress

    before = executor.tally_of(plan, folder)
    name, report = plan.study.name, f"insgd-lab report {folder.path}"
    if before.finished == before.total:
        typer.echo(f"{name}: all {before.total} runs are finished ({before.diverged} diverged); see {report}")
        return before
    kept = f", {before.finished} of them finished earlier" if before.finished else ""
    typer.echo(f"{name}: {before.total} runs{kept}; {workers} workers; results in {folder.path}")
    try:
        with progress.shown(name) as update:
            tally = executor.execute(plan, folder, workers=workers, device=device, data_dir=data_dir, on_change=update)
    except executor.Interrupted as stop:
        typer.echo(f"{name}: interrupted after {progress.summary(stop.tally)}; the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"{name}: {progress.summary(tally)} ({tally.seconds:.0f} s); see {report}")
    return tally


def _print_failures(plan: Plan, folder: StudyFolder) -> None:
    failed = [name for name, status in folder.statuses(list(plan.runs)).items() if status == "failed"]
    for name in failed[:_SHOWN_FAILURES]:
        arms = {row["arm"] for row in plan.rows if row["run"] == name}
        reason = str(folder.run(name).info()["error"]).strip().splitlines()
        typer.echo(f"failed: {', '.join(sorted(arms))}: {folder.run(name).info_path}: {reason[-1]}", err=True)
    if len(failed) > _SHOWN_FAILURES:
        typer.echo(f"and {len(failed) - _SHOWN_FAILURES} more; `insgd-lab study status` counts them", err=True)


@app.command("plan")
def study_plan(
    study: StudyName,
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Show what a study would run."""
    with plain_errors():
        from insgd_lab.studies.planning import cells

        plan = _plan(study, plugin)
    spec, rows = plan.study, []
    for arm in spec.arm:
        tuned = "; ".join(f"{path}: {_levels(levels)}" for path, levels in arm.tune.items())
        axes = "; ".join(f"{path}: {_levels(levels)}" for path, levels in arm.axes.items())
        runs = len({row["run"] for row in plan.rows if row["arm"] == arm.name})
        rows.append((arm.name, arm.optimizer.name, arm.grid, axes, len(cells(spec, arm)), tuned, runs))
    print_table(("arm", "optimizer", "grid", "axes", "cells", "tuned", "runs"), rows, spec.title or spec.name)
    typer.echo(
        f"{len(plan.runs)} runs in all (shared ones counted once), {len(spec.seeds)} seeds, "
        f"{spec.train.epochs} epochs of {spec.task.data.name} with {spec.task.model.name}"
    )


def _levels(levels: Sequence[object]) -> str:
    return ", ".join(str(level) for level in levels)


def report(
    study_dir: StudyDir,
    force: Annotated[bool, typer.Option("--force", help="Write it even if it is up to date.")] = False,
) -> None:
    """Write a study's report: HTML, figures and tables."""
    with plain_errors():
        from insgd_lab.analysis.report import is_current, report_path, write_report

        if not force and is_current(study_dir):
            typer.echo(f"The report is up to date: {report_path(study_dir)}")
            return
        typer.echo(f"Report: {write_report(study_dir, force=force)}")
