"""`insgd-lab study` and `insgd-lab report`: many runs, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from insgd_lab.cli.common import (
    FAILED,
    INTERRUPTED,
    SETTINGS,
    DataDir,
    Device,
    Loaders,
    Out,
    Plugins,
    StudyDir,
    StudyName,
    check_data,
    check_device,
    check_out,
    images_now,
    plain_errors,
    print_table,
    refuse,
)
from insgd_lab.cli.hands import Engine, Hands, RayAddress, Retries, Workers, local_workers, use_ray
from insgd_lab.cli.settings import StudySettings, put_settings, study_path

if TYPE_CHECKING:
    from insgd_lab.config import Problem, StudySpec
    from insgd_lab.store import StudyFolder
    from insgd_lab.studies.ledger import Tally
    from insgd_lab.studies.planning import Plan
    from insgd_lab.studies.search import SearchPlan, Verdict

app = typer.Typer(help="Run a study, look at its plan or its state.", **SETTINGS)
_SHOWN_FAILURES = 5


@app.command("run")
def study_run(
    study: StudyName,
    out: Out = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    device: Device = "cpu",
    loaders: Loaders = 0,
    engine: Engine = None,
    ray: RayAddress = None,
    retries: Retries = 1,
    rerun: Annotated[
        Literal["stale"] | None,
        typer.Option(help="Also redo what other versions of the lab, or other images, have made; that is set aside."),
    ] = None,
    settings: StudySettings = [],  # noqa: B006
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Run all runs of a study that have no result yet; several such commands share the work."""
    with plain_errors():
        from insgd_lab.store import StudyFolder
        from insgd_lab.studies.presence import at_work
        from insgd_lab.studies.search import next_plan

        spec = _study(study, settings, plugin)
        hands = Hands(workers, device, data_dir, loaders, retries, use_ray(engine, ray), ray)
        folder = StudyFolder(out or Path("runs") / spec.name)
        check_out(folder.path)
        _check_same_study(spec, folder)
        for damage in folder.set_damage_aside():
            typer.echo(f"set aside: {damage.path}, which could not be read ({damage.why})", err=True)
        plan = next_plan(spec, folder)
        images = images_now(plan.runs.values(), data_dir)
        stale = _stale(folder, images) if rerun == "stale" else []
        if rerun is None:
            _tell_other_data(plan, folder, images)
        if stale or _unfinished(plan, folder):
            hands.check(plan.runs.values(), spec)
        with at_work(folder) as number:
            others = _join(spec, folder, number)
            if others:
                who = "another process is" if others == 1 else f"{others} other processes are"
                typer.echo(f"{spec.name}: {who} at work on it; sharing what is left")
            if rerun == "stale":  # once nothing is left to refuse
                _set_stale_aside(folder, stale, images)
                plan = next_plan(spec, folder)
            plan, tally = _work_off(plan, folder, hands, number, {"study": study, "settings": list(settings)})
        for note in tally.notes:
            typer.echo(note, err=True)
        if tally.failed:
            _print_failures(plan, folder)
            for cell in _waiting(plan):
                typer.echo(f"{cell}: no winner while trials have failed; the same command tries them again", err=True)
        if tally.left:
            message = f"no worker is left for {tally.left} runs; the same command goes on"
            typer.echo(f"{plan.study.name}: {message}", err=True)
        if tally.failed or tally.left:
            raise typer.Exit(FAILED)


def _study(study: str, settings: Sequence[str], plugins: Sequence[str]) -> StudySpec:
    """A study with settings over it, checked as far as it can be before it is planned."""
    from insgd_lab.config import ConfigError, parse_study, read_study

    raw, source = read_study(study)
    put_settings(raw, settings, study_path)
    source, problems = " with ".join([source, *settings]), _comparison_problems(raw)
    try:
        spec = parse_study(raw, source, plugins)
    except ConfigError as error:
        raise ConfigError(source, [*error.problems, *problems]) from None
    if problems:
        raise ConfigError(source, problems)
    return spec


def _comparison_problems(raw: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with a study that is to be put beside a published table which is not on record."""
    from insgd_lab.analysis.published import PublishedError, load_paper
    from insgd_lab.config import Problem

    compare = raw.get("compare")
    if not isinstance(compare, dict) or not all(isinstance(compare.get(key), str) for key in ("paper", "table")):
        return []  # there is none, or the study is refused for it
    try:
        load_paper(compare["paper"]).find_table(compare["table"])
    except PublishedError as error:
        return [Problem(("compare",), compare, str(error))]
    return []


def _unfinished(plan: Plan, folder: StudyFolder) -> int:
    from insgd_lab.studies.ledger import tally_of

    return len(plan.runs) - tally_of(plan, folder).finished


def _check_same_study(study: StudySpec, folder: StudyFolder) -> None:
    from insgd_lab.store import Damaged

    try:
        there = folder.info().get("name") if folder.exists else study.name
    except Damaged:  # it is about to be set aside
        return
    if there != study.name:
        refuse(f"{folder.path} holds the study {there!r}, not {study.name!r}; name another --out")


def _stale(folder: StudyFolder, images: Mapping[str, str]) -> list[str]:
    """The runs that `--rerun stale` does again; `images` are those that there are now."""
    from insgd_lab.cli.study_tools import present_lab
    from insgd_lab.studies.status import runs_of_other_data, stale_runs

    infos = folder.infos()
    return list(dict.fromkeys([*stale_runs(infos, present_lab()), *runs_of_other_data(infos, images)]))


def _set_stale_aside(folder: StudyFolder, runs: Sequence[str], images: Mapping[str, str]) -> None:
    from insgd_lab.cli.study_tools import present_lab
    from insgd_lab.studies.status import set_stale_aside

    aside = set_stale_aside(folder, runs, present_lab(), images)
    whose = "other versions of the lab" + (", or of other images," if images else "")
    typer.echo(f"{folder.path}: {len(aside)} runs of {whose} are set aside, to be done again")


def _tell_other_data(plan: Plan, folder: StudyFolder, images: Mapping[str, str]) -> None:
    """Say which finished runs have learnt from other images than their folder holds now."""
    from insgd_lab.studies.status import runs_of_other_data

    others = runs_of_other_data(folder.infos(list(images)), images) if images else []
    paths = sorted({str(plan.runs[run].task.data.options.get("path")) for run in others})
    if others:
        names = ", ".join(others[:_SHOWN_FAILURES]) + (", …" if len(others) > _SHOWN_FAILURES else "")
        typer.echo(
            f"{plan.study.name}: the images in {', '.join(paths)} have changed since {len(others)} finished runs "
            f"learnt from them: {names}; their results are kept, and `--rerun stale` does them again",
            err=True,
        )


def _work_off(
    plan: Plan, folder: StudyFolder, hands: Hands, number: int, asked: Mapping[str, Any]
) -> tuple[Plan, Tally]:
    """Run a plan, and what follows from its results where the study searches; the last plan and how it went."""
    from insgd_lab.studies.ledger import sweep
    from insgd_lab.studies.search import SearchPlan, next_plan

    while True:
        plan = _write_plan(plan, folder, asked)
        sweep(plan, folder)
        tally = _execute(plan, folder, hands, number)
        if not isinstance(plan, SearchPlan):
            return plan, tally
        further = next_plan(plan.study, folder)
        if further.runs.keys() == plan.runs.keys():
            return plan, tally
        _tell_verdicts(plan, further)
        plan = further


def _tell_verdicts(plan: SearchPlan, further: Plan) -> None:
    """Say which trials have won since `plan` was made."""
    from insgd_lab.studies.search import SearchPlan

    told = {(verdict.arm, str(verdict.cell)) for verdict in plan.verdicts if verdict.trial is not None}
    for verdict in further.verdicts if isinstance(further, SearchPlan) else ():
        if verdict.trial is None or (verdict.arm, str(verdict.cell)) in told:
            continue
        where = _cell(verdict)
        if verdict.diverged == verdict.trials:
            typer.echo(f"{where}: all {verdict.trials} trials diverged; the first one stands for the arm")
            continue
        found, score = ", ".join(_named(verdict.settings)), f"{verdict.metric} {verdict.score:.4f}"
        typer.echo(f"{where}: best of {verdict.trials} trials: {found} (validation {score}); now on fresh seeds")


def _waiting(plan: Plan) -> list[str]:
    """The cells of a search that have no winner yet."""
    from insgd_lab.studies.search import SearchPlan

    return [_cell(v) for v in plan.verdicts if v.trial is None] if isinstance(plan, SearchPlan) else []


def _cell(verdict: Verdict) -> str:
    return ", ".join([verdict.arm, *_named(verdict.cell)])


def _named(settings: Mapping[str, Any]) -> list[str]:
    return [f"{path} = {value}" for path, value in settings.items()]


def _join(spec: StudySpec, folder: StudyFolder, number: int) -> int:
    """Say what this process works on; how many others do. Refuse to if they run the study as another file has it."""
    from insgd_lab.store import run_id, to_json_value
    from insgd_lab.studies.planning import essence_of
    from insgd_lab.studies.presence import join

    digest = run_id(essence_of(to_json_value(spec.model_dump())))
    with folder.writing():
        others = join(folder, number, digest)
    if any(other != digest for other in others):
        refuse(
            f"{folder.path} is being run by another process, from another version of this study; wait for it, or give "
            "another folder with --out"
        )
    return len(others)


def _write_plan(plan: Plan, folder: StudyFolder, asked: Mapping[str, Any]) -> Plan:
    """Write `study.json` unless it says the same already, and tell which runs an edited study leaves out.

    Args:
        plan: of the study.
        folder: its folder.
        asked: the command's words: the study's name or file, and the settings over it.

    Returns:
        The plan: that of a search is made anew, as others at work may have brought it further.
    """
    from datetime import UTC, datetime

    from insgd_lab.store import to_json_value
    from insgd_lab.studies.history import primary_changes, remembered, told
    from insgd_lab.studies.planning import study_info
    from insgd_lab.studies.search import SearchPlan, next_plan
    from insgd_lab.training import provenance

    with folder.writing():
        plan = next_plan(plan.study, folder) if isinstance(plan, SearchPlan) else plan
        before = remembered(folder)
        created = before.get("created") or datetime.now(UTC).isoformat(timespec="seconds")
        info = to_json_value({**study_info(plan, versions=provenance.versions(), created=created), "asked": asked})
        if changes := primary_changes(folder, before, info):
            info["primary_changes"] = changes
        if {**info, "versions": None} != {**before, "versions": None}:
            folder.write_info(info)
    if line := told(info):
        typer.echo(line)
    left_out = sum(run.id not in plan.runs for run in folder.runs())
    if left_out:
        typer.echo(f"{plan.study.name}: {left_out} runs of an earlier plan are kept and ignored")
    return plan


def _execute(plan: Plan, folder: StudyFolder, hands: Hands, number: int) -> Tally:
    from insgd_lab.studies import executor, ledger, progress

    before = ledger.tally_of(plan, folder)
    name, report = plan.study.name, "" if _waiting(plan) else f"; see insgd-lab report {folder.path}"
    if before.finished == before.total:
        typer.echo(f"{name}: all {before.total} runs are finished ({before.diverged} diverged){report}")
        return before
    kept = f", {before.finished} of them finished earlier" if before.finished else ""
    there = progress.stages(before) or f"{before.total} runs{kept}"
    typer.echo(f"{name}: {there}; {hands.described(plan)}; results in {folder.path}")
    try:
        with progress.shown(name) as update:
            tally = hands.execute(plan, folder, number, update)
    except executor.Interrupted as stop:
        typer.echo(f"{name}: interrupted after {progress.summary(stop.tally)}; the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"{name}: {progress.summary(tally)} ({tally.seconds:.0f} s){report}")
    return tally


def _print_failures(plan: Plan, folder: StudyFolder) -> None:
    from insgd_lab.studies.failures import failures

    found = failures(folder, plan.rows, folder.infos(list(plan.runs)))
    for failure in found[:_SHOWN_FAILURES]:
        typer.echo(f"failed: {failure}", err=True)
    if len(found) > _SHOWN_FAILURES:
        more = sum(failure.runs for failure in found[_SHOWN_FAILURES:])
        typer.echo(f"and {more} more; `insgd-lab study status {folder.path}` lists why", err=True)


@app.command("plan")
def study_plan(
    study: StudyName,
    settings: StudySettings = [],  # noqa: B006
    plugin: Plugins = [],  # noqa: B006
    pilot: Annotated[bool, typer.Option("--pilot", help="Train some steps, and estimate the time from them.")] = False,
    workers: Workers = None,
    device: Device = "cpu",
    data_dir: DataDir = None,
) -> None:
    """Show what a study would run, and with --pilot about how long it would take."""
    with plain_errors():
        from insgd_lab.studies.search import next_plan

        spec = _study(study, settings, plugin)
        plan = next_plan(spec)
        _print_arms(plan)
        _print_runs(plan)
        if pilot:
            check_device(device)
            check_data(plan.runs.values(), data_dir)
            _print_estimate(plan, workers or local_workers(plan, device), device, data_dir)


def _print_arms(plan: Plan) -> None:
    spec = plan.study
    tuned, runs_of = ("searched", "trial runs") if spec.search else ("tuned", "runs")
    columns = ["arm", "optimizer", "grid", "axes", "cells", tuned, runs_of]
    rows: list[list[object]] = []
    for arm in spec.arm:
        levels = spec.space(arm) if spec.search else arm.tune
        runs = len({row["run"] for row in plan.rows if row["arm"] == arm.name})
        axes, cells = _axes(arm.axes), len(spec.cells(arm))
        rows.append([arm.name, arm.optimizer.name, arm.grid, axes, cells, _axes(levels), runs])
    if any(spec.resources_of(arm).model_dump(exclude_defaults=True) for arm in spec.arm):
        columns.append("a run takes")
        rows = [[*row, spec.resources_of(arm)] for row, arm in zip(rows, spec.arm, strict=True)]
    print_table(columns, rows, spec.title or spec.name)


def _axes(axes: Mapping[str, Any]) -> str:
    return "; ".join(f"{path}: {_levels(levels)}" for path, levels in axes.items())


def _print_runs(plan: Plan) -> None:
    from insgd_lab.studies.search import final_runs

    spec = plan.study
    what = f"{spec.train.epochs} epochs of {spec.task.data.name} with {spec.task.model.name}"
    if any(arm.task or arm.train for arm in spec.arm):
        what += ", but for what arms change"
    if spec.search is None:
        typer.echo(f"{len(plan.runs)} runs in all (shared ones counted once), {len(spec.seeds)} seeds, {what}")
        return
    trials = f"{spec.search.trials} {spec.search.method} trials"
    if spec.search.method == "optuna":
        trials += " (some at a time: only the first are planned)"
    typer.echo(
        f"{len(plan.runs)} runs of trials: {trials} in each cell, {len(spec.search.seeds)} seeds; then "
        f"{final_runs(spec)} final runs of the winners, {len(spec.seeds)} fresh seeds; {what}"
    )


def _print_estimate(plan: Plan, workers: int, device: str, data_dir: Path | None) -> None:
    """Time a few steps of each family of runs, and say what all would take."""
    import torch

    from insgd_lab.studies.estimate import families, in_words, study_seconds
    from insgd_lab.training.pilot import pilot

    torch.set_num_threads(1)  # as each worker has
    parts, rows = [], []
    for family in families(plan):
        pace, run = pilot(family.example, data_dir=data_dir, device=device), family.example
        parts.append((family, pace.seconds))
        total = family.seconds(pace.seconds)
        what = (run.optimizer.name, run.task.data.name, run.task.model.name, run.train.batch_size, family.count)
        times = (pace.step, pace.evaluation, total / family.count, total)
        rows.append((*what, f"{pace.steps}", *map(in_words, times)))
    columns = ("optimizer", "data", "model", "batch", "runs", "steps", "a step", "an evaluation", "a run", "all")
    print_table(columns, rows, "A pilot of each kind of run")
    typer.echo(
        f"about {in_words(study_seconds(parts, workers))} on {workers} workers ({device}): steps times epochs, "
        "evaluations and the start of each run; workers' own start, the writing of results and packing are left out"
    )


def _levels(levels: Any) -> str:
    if isinstance(levels, list):
        return ", ".join(map(str, levels))
    return f"{levels.low:g} to {levels.high:g}{' by its logarithm' if levels.log else ''}"


def report(
    study_dir: StudyDir,
    force: Annotated[bool, typer.Option("--force", help="Write it even if it is up to date.")] = False,
) -> None:
    """Write a study's report: HTML, figures and tables."""
    with plain_errors():
        from insgd_lab.analysis.report import is_current, report_path, write_report
        from insgd_lab.cli.study_tools import doing, gaps
        from insgd_lab.store import StudyFolder
        from insgd_lab.studies.history import told

        if not force and is_current(study_dir):
            typer.echo(f"The report is up to date: {report_path(study_dir)}")
        else:
            with doing() as tell:
                path = write_report(study_dir, force, tell)
            typer.echo(f"Report: {path}")
        for note in gaps(study_dir):
            typer.echo(note)
        if line := told(StudyFolder(study_dir).info()):
            typer.echo(line)
