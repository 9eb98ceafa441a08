"""`insgd-lab train`: one run."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from insgd_lab.cli.common import (
    FAILED,
    DataDir,
    Device,
    Loaders,
    Plugins,
    check_data,
    check_device,
    check_out,
    images_now,
    input_errors,
    plain_errors,
    refuse,
    say,
)
from insgd_lab.cli.settings import put, put_settings, run_path

if TYPE_CHECKING:
    from insgd_lab.config import RunSpec
    from insgd_lab.store import RunFolder, StudyFolder

_SHOWN_METRICS = {
    "loss": "loss", "accuracy": "accuracy", "top5_accuracy": "top-5", "balanced_accuracy": "balanced",
    "misalignment": "misalignment (dB)",
}  # fmt: skip


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
    rerun: Annotated[
        Literal["stale"] | None,
        typer.Option(help="Do it again if another version of the lab, or other images, made it; that is set aside."),
    ] = None,
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Train one run, described by options, by a file, or by a file with options on top.

    On several processes: torchrun --nproc-per-node 2 -m insgd_lab train ...
    """
    with plain_errors(shared=True):
        from insgd_lab.config import parse_run, read_toml
        from insgd_lab.store import StudyFolder

        if rerun is not None and out is None:
            refuse("--rerun stale: without --out nothing is kept that could be stale; give the --out of the result")
        raw = read_toml(config) if config else {}
        _refuse_a_study(config, raw)
        chosen = {"optimizer": optimizer, "data": data, "model": model, "epochs": epochs, "seed": seed}
        raw = _with_options(raw, chosen, settings)
        spec = parse_run(raw, str(config or "options"), plugin)
        check_device(device)
        check_data([spec], data_dir)
        if out is not None:
            check_out(out)
            _look_at_stale(spec, StudyFolder(out), data_dir, again=rerun == "stale")
        _train(spec, out, data_dir, device, loaders)


def _refuse_a_study(config: Path | None, raw: Mapping[str, Any]) -> None:
    """Refuse the file of a study, whose mistakes as a run would say nothing."""
    if "arm" in raw or "base" in raw:
        refuse(
            f"{config} is a study, as it has arms or a base; train takes the file of one run, with an optimizer. "
            f"To train all of the study's runs: insgd-lab study run {config}"
        )


def _with_options(raw: dict[str, Any], chosen: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Put the command line's options over the tables of a file, and defaults under them."""
    if "optimizer" not in raw and chosen["optimizer"] is None:
        refuse("no optimizer is named; add --optimizer NAME (`insgd-lab optimizers` lists them)")
    paths = {"data": "task.data", "model": "task.model", "epochs": "train.epochs", "seed": "seed"}
    defaults = {"data": "digits", "model": "digits-cnn", "epochs": 8, "seed": 0}
    if chosen["optimizer"] is not None:
        raw["optimizer"] = {"name": chosen["optimizer"]}
    for name, path in paths.items():
        put(raw, path, defaults[name], keep=True)
        if chosen[name] is not None:
            put(raw, path, chosen[name])
    put_settings(raw, settings, run_path)
    return raw


def _look_at_stale(spec: RunSpec, folder: StudyFolder, data_dir: Path | None, *, again: bool) -> None:
    """Say that a finished run has learnt from other images than there are now; `again`: set aside what is stale."""
    from insgd_lab.cli.study_tools import present_lab
    from insgd_lab.studies.status import runs_of_other_data, set_stale_aside

    images, run = images_now([spec], data_dir), folder.run(spec.id)
    if again and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        refuse("--rerun stale with several processes, which would not see the same result; give it to one, then share")
    if again and set_stale_aside(folder, [spec.id], present_lab(), images):
        say(f"{run.path}: its stale result is set aside, to be done again")
    elif images and runs_of_other_data(folder.infos([spec.id]), images):
        path = spec.task.data.options["path"]
        say(f"The images in {path} have changed since this run learnt from them; --rerun stale does it again", err=True)


def _train(spec: RunSpec, out: Path | None, data_dir: Path | None, device: str, loaders: int) -> None:
    from insgd_lab.store import FINISHED, StudyFolder

    folder = StudyFolder(out).run(spec.id) if out else None
    if folder is not None and folder.exists and (info := folder.checked_info())["status"] in FINISHED:
        for line in _result_lines(info.get("results") or {}):
            say(line)
        say(f"This run is {info['status']} already: {folder.path}")
        return
    from insgd_lab.training.loop import train as train_run

    with _stopping(kept=folder is not None) as stop, _failure_told(spec, folder):
        outcome = train_run(
            spec, folder, data_dir=data_dir, device=device, on_epoch=_print_epoch, stop=stop, loaders=loaders
        )
    for line in _result_lines(outcome.results):
        say(line)
    say(outcome.status + (f": {folder.path}" if folder is not None else " (not kept; --out FOLDER keeps it)"))


@contextmanager
def _failure_told(spec: RunSpec, folder: RunFolder | None) -> Iterator[None]:
    """End with what a plugin, or we, got wrong: where it happened for its author, and one line for everybody."""
    mistakes: tuple[type[Exception], ...] = (typer.Exit, OSError, *input_errors())  # told elsewhere
    try:
        yield
    except mistakes:
        raise
    except Exception as error:
        where = f"; {folder.info_path} says so too, and the same command tries again" if folder is not None else ""
        typer.echo(traceback.format_exc(), err=True)
        typer.echo(
            f"error: training with {spec.optimizer.name} failed: {type(error).__name__}: {error}{where}", err=True
        )
        raise typer.Exit(FAILED) from None


@contextmanager
def _stopping(*, kept: bool) -> Iterator[Callable[[], bool]]:
    """Have Ctrl-C ask a run that is kept to stop at its next step, with a checkpoint; a second one ends it at once.

    Processes that share a run stop together, after the epoch; that torchrun asks them once more changes nothing.
    """
    asked, process, shared = list[int](), os.getpid(), int(os.environ.get("WORLD_SIZE", "1")) > 1

    def ask(number: int, frame: object) -> None:
        if os.getpid() != process or (asked and not shared):
            raise KeyboardInterrupt
        if not asked:
            when = "this epoch" if shared else "this step"
            say(f"Stopping after {when}; the same command goes on from there.", err=True)
        asked.append(number)

    if not kept:
        yield lambda: False
        return
    signals = (signal.SIGINT, signal.SIGTERM) if shared else (signal.SIGINT,)
    before = [signal.signal(each, ask) for each in signals]
    try:
        yield lambda: bool(asked)
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)


def _result_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """The final and the best result on the test split, and on which split the best was chosen."""
    for metric in ("accuracy", "loss"):
        if (final := results.get(f"final_test_{metric}")) is None:
            continue
        yield f"final test {metric} {final:.4f}"
        if (best := results.get(f"best_test_{metric}")) is not None:
            epoch = results[f"best_test_{metric}_epoch"]
            where = "chosen on the test split" + (", as the papers report it" if metric == "accuracy" else "")
            yield f"best test {metric} {best:.4f}, at epoch {epoch}: {where}"
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
