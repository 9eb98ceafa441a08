"""The command `insgd-lab`: optimizers, single runs, studies, reports, data; each thin over the library.

Exit codes: 0 done (a diverged run is a result), 1 a run failed or is left, 2 bad input, 130 interrupted. Heavy modules
are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from insgd_lab.config import RunSpec, StudySpec
    from insgd_lab.registry import OptimizerSpec
    from insgd_lab.store import StudyFolder
    from insgd_lab.studies.executor import Tally
    from insgd_lab.studies.planning import Plan
    from insgd_lab.testing.laws import Outcome

__all__ = ["app", "main"]

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
_SHOWN_FAILURES = 5
_SHOWN_METRICS = {
    "loss": "loss", "accuracy": "accuracy", "top5_accuracy": "top-5", "balanced_accuracy": "balanced",
    "misalignment": "misalignment (dB)",
}  # fmt: skip


class _ListByDefault(TyperGroup):
    """A group whose command `list` may be left out: `optimizers "adam*"` is `optimizers list "adam*"`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


_settings: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "pretty_exceptions_enable": False,
}
app = typer.Typer(help="A laboratory for input- and gradient-normalised optimizers.", **_settings)
study_app = typer.Typer(help="Run a study, look at its plan or its state.", **_settings)
data_app = typer.Typer(help="Look for the data sets' files, or put them in place.", **_settings)
optimizers_app = typer.Typer(help="List optimizers, or show one.", cls=_ListByDefault, add_completion=False)
app.add_typer(optimizers_app, name="optimizers")
app.add_typer(study_app, name="study")
app.add_typer(data_app, name="data")

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="A packaged study (digits) or a .toml file.")]
StudyDir = Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="The study's folder, such as runs/digits.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where the data sets lie. Default: $INSGD_LAB_DATA, else the user's cache."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Where results go. Default: runs/NAME.")]
Plugins = Annotated[
    list[str],
    typer.Option("--plugin", metavar="MODULE", help="Import a module that registers things; repeatable."),
]
Device = Annotated[str, typer.Option("--device", help="The torch device: cpu, cuda, cuda:1.")]
Loaders = Annotated[
    int, typer.Option("--loaders", min=0, help="Processes that decode image files that are streamed (imagenet).")
]


def main() -> None:
    """Run the command line."""
    warnings.formatwarning = lambda message, *rest, **named: f"warning: {message}\n"
    app()


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        import importlib.metadata

        typer.echo(importlib.metadata.version("insgd-lab"))


# ---------------------------------------------------------------------------------------------- errors


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn mistakes of the user into a message and exit code 2, Ctrl-C into 130; anything else is ours."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        if error.filename is None:  # a closed pipe, say: no path of the user's
            raise
        _refuse(f"{error.filename}: {error.strerror}; check the path, its permissions and the space on its disk")
    except Exception as error:
        if not isinstance(error, _input_errors()):
            raise
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(BAD_INPUT)


def _input_errors() -> tuple[type[Exception], ...]:
    from insgd_lab.analysis.published import PublishedError
    from insgd_lab.config import ConfigError
    from insgd_lab.registry import UnknownName
    from insgd_lab.store import StoreError
    from insgd_lab.studies.executor import ExecutionError
    from insgd_lab.training.files import DataError

    return ConfigError, UnknownName, StoreError, ExecutionError, DataError, PublishedError


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        # As it is: rich would read [low, high] as a style.
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console.print(table)


# ------------------------------------------------------------------------------------------ optimizers


@optimizers_app.command("list")
def optimizers_list(
    pattern: Annotated[str, typer.Argument(help='Names to show; wildcards allowed, such as "insgd-*".')] = "*",
    plugin: Plugins = [],  # noqa: B006  (typer reads the default, nobody writes to it)
) -> None:
    """List the optimizers whose names match."""
    from insgd_lab import registry

    with _plain_errors():
        _load_plugins(plugin)
        names = registry.list_optimizers(pattern)
        if not names:
            registry.check_known(pattern, registry.list_optimizers(), "optimizer")
        specs = [registry.get_optimizer(name) for name in names]
        _print_table(("name", "family", "source"), [(s.name, s.family, s.citation) for s in specs])


@optimizers_app.command("show")
def optimizers_show(
    name: Annotated[str, typer.Argument(help="The exact name.")],
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Show an optimizer's source, its chain rule by rule, its options and capabilities."""
    from insgd_lab import registry

    with _plain_errors():
        _load_plugins(plugin)
        spec = registry.get_optimizer(name)
        from insgd_lab import describe

        chain, meanings = describe.rules_of(spec), describe.meanings(spec)
    typer.echo(f"{spec.name} ({spec.family}, revision {spec.revision})\n{spec.citation}\n\n  {spec.equation}\n")
    if chain:
        typer.echo("The chain: u starts as the gradient g, and at the end theta <- theta - u.\n")
    for number, rule in enumerate(chain, 1):
        settings = ", ".join(f"{name} = {value}" for name, value in rule.settings.items())
        note = "  (nothing to do by default)" if rule.idle else ""
        typer.echo(f"  {number}. {rule.name}{note}\n     {rule.equation}\n     {settings}".rstrip() + "\n")
    searched = {key: ", ".join(map(str, _listed(values))) for key, values in spec.search.items()}
    rows = [
        (option, default, meanings.get(option, ""), searched.get(option, ""))
        for option, default in spec.defaults.items()
    ]
    _print_table(("option", "default", "meaning", "values worth trying"), rows)
    typer.echo("capabilities: " + ", ".join(_capabilities(spec)))


def _listed(values: object) -> Iterable[object]:
    return values if isinstance(values, (list, tuple)) else [values]


def _capabilities(spec: OptimizerSpec) -> list[str]:
    found = []
    for name, value in vars(spec.capabilities).items():
        if value is True:
            found.append(name.replace("_", " "))
        elif value:
            shown = ", ".join(value) if isinstance(value, tuple) else value
            found.append(f"{name}: {dict(shown) if isinstance(shown, Mapping) else shown}")
    return found or ["none"]


def _load_plugins(modules: Sequence[str]) -> None:
    from insgd_lab import registry

    try:
        registry.load_plugins(modules)
    except ImportError as error:
        _refuse(str(error))


# ------------------------------------------------------------------------------------------------ laws


@app.command()
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
    with _plain_errors():
        from insgd_lab import registry

        _load_plugins(plugin)
        registry.get_optimizer(name)  # a misspelt one is refused before torch is imported
        from insgd_lab.testing import report

        outcomes = _tried(name, law, examples, replay)
    for columns, rows in (
        (("law", "verdict", "what it says"), report.tried(outcomes)),
        (("not applicable, since", "laws"), report.inapplicable(outcomes)),
    ):
        if rows:
            _print_table(columns, rows)
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
        _refuse(str(error))


# ------------------------------------------------------------------------------------------- one run


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="A .toml file that describes one run.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="The optimizer's name.")] = None,
    data: Annotated[str | None, typer.Option(help="The data set. Default: digits.")] = None,
    model: Annotated[str | None, typer.Option(help="The model. Default: digits-cnn.")] = None,
    epochs: Annotated[int | None, typer.Option(help="How many epochs. Default: 8.")] = None,
    seed: Annotated[int | None, typer.Option(help="The seed. Default: 0.")] = None,
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="lr=0.1, train.batch_size=64, task.model.batch_norm=true"),
    ] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="Write the run into a folder below this one.")] = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    loaders: Loaders = 0,
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Train one run, described by options, by a file, or by a file with options on top.

    On several processes: torchrun --nproc-per-node 2 -m insgd_lab train ...
    """
    with _plain_errors():
        from insgd_lab.config import parse_run, read_toml

        raw = read_toml(config) if config else {}
        chosen = {"optimizer": optimizer, "data": data, "model": model, "epochs": epochs, "seed": seed}
        raw = _with_options(raw, chosen, settings)
        spec = parse_run(raw, str(config or "options"), plugin)
        _check_device(device)
        _check_data([spec], data_dir)
        _train(spec, out, data_dir, device, loaders)


def _with_options(raw: dict[str, Any], chosen: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Put the command line's options over the tables of a file, and defaults under them."""
    if "optimizer" not in raw and chosen["optimizer"] is None:
        _refuse("no optimizer is named; add --optimizer NAME (`insgd-lab optimizers` lists them)")
    paths = {"data": "task.data", "model": "task.model", "epochs": "train.epochs", "seed": "seed"}
    defaults = {"data": "digits", "model": "digits-cnn", "epochs": 8, "seed": 0}
    if chosen["optimizer"] is not None:
        raw["optimizer"] = {"name": chosen["optimizer"]}
    for name, path in paths.items():
        _put(raw, path, defaults[name], keep=True)
        if chosen[name] is not None:
            _put(raw, path, chosen[name])
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            _refuse(f"--set {setting}: expected KEY=VALUE, such as lr=0.1")
        _put(raw, key if key.startswith(("task.", "train.", "record.")) else f"optimizer.{key}", _value(text))
    return raw


def _put(tables: dict[str, Any], path: str, value: Any, *, keep: bool = False) -> None:
    """Set the value at a dotted path; a text on the way becomes a table. `keep` spares what is there."""
    *parents, last = path.split(".")
    for key in parents:
        inner = tables.setdefault(key, {})
        if isinstance(inner, str):
            inner = tables[key] = {"path" if key == "init_from" else "name": inner}
        if not isinstance(inner, dict):
            _refuse(f"{path}: {key} is not a table, but {inner!r}")
        tables = inner
    if not (keep and last in tables):
        tables[last] = value


def _value(text: str) -> Any:
    """Read a value as TOML does; what is none of its types is a text, without need of quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _train(spec: RunSpec, out: Path | None, data_dir: Path | None, device: str, loaders: int) -> None:
    from insgd_lab.store import FINISHED, StudyFolder

    if out is not None:
        _check_out(out)
    folder = StudyFolder(out).run(spec.id) if out else None
    if folder is not None and folder.exists and folder.info()["status"] in FINISHED:
        _say(f"This run is {folder.info()['status']} already: {folder.path}")
        return
    from insgd_lab.training.loop import train as train_run

    with _stopping(kept=folder is not None) as stop:
        outcome = train_run(
            spec, folder, data_dir=data_dir, device=device, on_epoch=_print_epoch, stop=stop, loaders=loaders
        )
    for line in _result_lines(outcome.results):
        _say(line)
    _say(outcome.status + (f": {folder.path}" if folder is not None else " (not kept; --out FOLDER keeps it)"))


def _say(line: str) -> None:
    """Print a line, once where torchrun started several processes."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(line)


@contextmanager
def _stopping(*, kept: bool) -> Iterator[Callable[[], bool]]:
    """Have Ctrl-C ask a run that is kept to stop at its next step, with a checkpoint; a second one ends it at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        typer.echo("Stopping after this step; the same command goes on from there.", err=True)

    if not kept:
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def _result_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """The final and the best result on the test split, and on which split the best was chosen."""
    for metric in ("accuracy", "loss"):
        if (final := results.get(f"final_test_{metric}")) is None:
            continue
        yield f"final test {metric} {final:.4f}"
        if (best := results.get(f"best_test_{metric}")) is not None:
            epoch = results[f"best_test_{metric}_epoch"]
            yield f"best test {metric} {best:.4f}, at epoch {epoch}: chosen on the test split, as the papers report it"
        if (chosen := results.get(f"test_{metric}_at_best_val")) is not None:
            epoch = results[f"best_val_{metric}_epoch"]
            yield f"test {metric} {chosen:.4f} at epoch {epoch}, the best on the validation split"


def _print_epoch(report: Mapping[str, Any]) -> None:
    shown = [f"epoch {report['epoch']}/{report['epochs']}"]
    for split in ("train", "val", "test"):
        told = [
            f"{words} {report[f'{split}_{metric}']:.4f}"
            for metric, words in _SHOWN_METRICS.items()
            if f"{split}_{metric}" in report
        ]
        shown += [f"{split} {', '.join(told)}"] if told else []
    rate = report["images_per_second"]
    shown.append(f"{report['seconds']:.1f} s" + (f", {rate:,.0f} a second" if rate else ""))
    typer.echo("; ".join(shown))


def _check_device(device: str) -> None:
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        _refuse(f"device {device!r} cannot be used ({reason}); use cpu, or cuda where torch sees a GPU")


def _check_data(runs: Iterable[RunSpec], data_dir: Path | None) -> None:
    """Refuse while data are missing: for our own sets by checksum, for a plugin's by presence."""
    from insgd_lab.training import availability

    wanted = [run.task.data for run in runs]
    for name, path in sorted({(data.name, str(data.options.get("path", ""))) for data in wanted}):
        availability.check(name, path, data_dir)


# ------------------------------------------------------------------------------------------- studies


@study_app.command("run")
def study_run(
    study: StudyName,
    out: Out = None,
    data_dir: DataDir = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one per core.")] = None,
    device: Device = "cpu",
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Run all runs of a study that have no result yet."""
    with _plain_errors():
        from insgd_lab.store import StudyFolder
        from insgd_lab.studies.executor import locked, sweep

        plan = _plan(study, plugin)
        folder = StudyFolder(out or Path("runs") / plan.study.name)
        _check_out(folder.path)
        _check_same_study(plan, folder)
        if _unfinished(plan, folder):
            _check_device(device)
            _check_data(plan.runs.values(), data_dir)
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


def _check_out(path: Path) -> None:
    """Refuse a place for results that is, or lies in, something other than a folder."""
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not there.is_dir():
        _refuse(f"--out {path}: {there} is a file; expected a folder, there or to be made: name another one")


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
        _refuse(f"{folder.path} holds the study {there!r}, not {plan.study.name!r}; name another --out")


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


@study_app.command("plan")
def study_plan(
    study: StudyName,
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Show what a study would run."""
    with _plain_errors():
        from insgd_lab.studies.planning import cells

        plan = _plan(study, plugin)
    spec, rows = plan.study, []
    for arm in spec.arm:
        tuned = "; ".join(f"{path}: {_levels(levels)}" for path, levels in arm.tune.items())
        axes = "; ".join(f"{path}: {_levels(levels)}" for path, levels in arm.axes.items())
        runs = len({row["run"] for row in plan.rows if row["arm"] == arm.name})
        rows.append((arm.name, arm.optimizer.name, arm.grid, axes, len(cells(spec, arm)), tuned, runs))
    _print_table(("arm", "optimizer", "grid", "axes", "cells", "tuned", "runs"), rows, spec.title or spec.name)
    typer.echo(
        f"{len(plan.runs)} runs in all (shared ones counted once), {len(spec.seeds)} seeds, "
        f"{spec.train.epochs} epochs of {spec.task.data.name} with {spec.task.model.name}"
    )


def _levels(levels: Sequence[object]) -> str:
    return ", ".join(str(level) for level in levels)


@study_app.command("status")
def study_status(study_dir: StudyDir) -> None:
    """Count what is done, diverged, failed and still to do, arm by arm."""
    with _plain_errors():
        from insgd_lab.store import StudyFolder
        from insgd_lab.studies.executor import in_use

        folder = StudyFolder(study_dir)
        try:
            rows, title = _counts(folder.info(), folder.statuses())
        except (KeyError, TypeError, AttributeError) as error:
            _refuse(
                f"{folder.info_path} is not a study as this version writes it ({type(error).__name__}: {error}); "
                "run the study again into a new folder"
            )
        started = "running" if in_use(folder) else "interrupted"
    _print_table(("arm", "runs", "done", "diverged", "failed", started, "not started"), rows, title)


def _counts(info: Mapping[str, Any], statuses: Mapping[str, str]) -> tuple[list[tuple[object, ...]], str]:
    """Each arm's row of `study status`, and the title above them."""
    rows = []
    for arm in info["arms"]:
        runs = {row["run"] for row in info["plan"] if row["arm"] == arm["name"]}
        counts = [sum(statuses.get(run) == s for run in runs) for s in ("done", "diverged", "failed", "running")]
        rows.append((arm["name"], len(runs), *counts, len(runs) - sum(counts)))
    return rows, info["title"] or info["name"]


@app.command()
def report(
    study_dir: StudyDir,
    force: Annotated[bool, typer.Option("--force", help="Write it even if it is up to date.")] = False,
) -> None:
    """Write a study's report: HTML, figures and tables."""
    with _plain_errors():
        from insgd_lab.analysis.report import is_current, report_path, write_report

        if not force and is_current(study_dir):
            typer.echo(f"The report is up to date: {report_path(study_dir)}")
            return
        typer.echo(f"Report: {write_report(study_dir, force=force)}")


# ---------------------------------------------------------------------------------------------- data


@data_app.command("status")
def data_status(
    name: Annotated[str | None, typer.Argument(help="A data set; all if left out.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Show which files of the data sets are there and right."""
    with _plain_errors():
        from insgd_lab import registry
        from insgd_lab.training import availability

        names = registry.list_data() if name is None else [registry.get_data(name).name]
        rows: list[tuple[str, str, str]] = []
        for known in names:
            found = availability.statuses(known, data_dir)
            rows += [(known, str(status.path), status.state) for status in found]
            if not found:
                rows.append((known, registry.get_data(known).description, availability.remedy(known)))
    _print_table(("data", "file", "state"), rows)


@data_app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="A data set, such as cifar10.")],
    source: Annotated[Path, typer.Option(help="The authors' archive, or the folder that holds their files.")],
    data_dir: DataDir = None,
) -> None:
    """Check a data set's files and put them in place, decoded where they are images."""
    with _plain_errors():
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


if __name__ == "__main__":
    main()
