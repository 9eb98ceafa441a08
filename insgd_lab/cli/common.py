"""What the commands share: options, plain errors, tables.

Exit codes: 0 done (a diverged run is a result), 1 a run failed or is left, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from insgd_lab.config import RunSpec

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
_FIRST_SECONDS = 5.0
_ERROR_FILE = (
    "TORCHELASTIC_ERROR_FILE"  # torchrun has each of its processes inherit one, and those have theirs inherit it
)
_shared = ContextVar("_shared", default=False)

SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "pretty_exceptions_enable": False,
}

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


@contextmanager
def plain_errors(*, shared: bool = False) -> Iterator[None]:
    """Turn mistakes of the user into a message and exit code 2, Ctrl-C into 130; anything else is ours.

    `shared` is a command that torchrun may start on several processes: they tell a mistake once.
    """
    token = _shared.set(shared)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        if error.filename is None:  # a closed pipe, say: no path of the user's
            raise
        refuse(f"{error.filename}: {error.strerror}; check the path, its permissions and the space on its disk")
    except Exception as error:
        if not isinstance(error, input_errors()):
            raise
        refuse(str(error))
    finally:
        _shared.reset(token)


def refuse(message: str) -> NoReturn:
    """End with a message about bad input, and its exit code."""
    told = f"error: {message}"
    if not _left_to_torchrun(told):
        typer.echo(told, err=True)
    raise typer.Exit(BAD_INPUT)


def _left_to_torchrun(message: str) -> bool:
    """Leave a message where torchrun looks for it; whether it will be told.

    When one of its processes ends with an error torchrun prints a traceback of its own, and below it the error of the
    process that was the first to fail. All of ours fail alike: the others give the first one time, and torchrun ends
    them.
    """
    file = os.environ.get(_ERROR_FILE)
    if not (file and _is_rank(file)):
        return False
    if os.environ.get("RANK", "0") != "0":
        time.sleep(_FIRST_SECONDS)
    try:
        told = {"message": {"message": message, "extraInfo": {"timestamp": int(time.time())}}}
        Path(file).write_text(json.dumps(told), encoding="utf-8")
    except OSError:
        return False
    return True


def _is_rank(file: str) -> bool:
    """Whether this is a process of torchrun's, in a command that shares its work, and none that such a one started."""
    if not _shared.get() or "RANK" not in os.environ:
        return False
    try:
        theirs = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:  # then it is better told twice than not at all
        return False
    return f"{_ERROR_FILE}={file}".encode() not in theirs.split(b"\0")


def input_errors() -> tuple[type[Exception], ...]:
    """What is the user's mistake, and is told in a line."""
    from insgd_lab.analysis.published import PublishedError
    from insgd_lab.config import ConfigError
    from insgd_lab.registry import UnknownName
    from insgd_lab.store import StoreError
    from insgd_lab.studies.executor import ExecutionError
    from insgd_lab.training.files import DataError

    return ConfigError, UnknownName, StoreError, ExecutionError, DataError, PublishedError


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        # As it is: rich would read [low, high] as a style.
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console.print(table)


def load_plugins(modules: Sequence[str]) -> None:
    """Import modules that register things, or refuse."""
    from insgd_lab import registry

    try:
        registry.load_plugins(modules)
    except ImportError as error:
        refuse(str(error))


def say(line: str, *, err: bool = False) -> None:
    """Print a line, once where torchrun started several processes."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(line, err=err)


def check_out(path: Path) -> None:
    """Refuse a place for results that is, or lies in, something other than a folder."""
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not there.is_dir():
        refuse(f"--out {path}: {there} is a file; expected a folder, there or to be made: name another one")


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use."""
    if device == "cpu":
        return
    import torch

    from insgd_lab.training.ranks import own_device

    try:
        torch.empty(0, device=own_device(device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        refuse(f"device {device!r} cannot be used ({reason}); use cpu, or cuda where torch sees a GPU")


def check_data(runs: Iterable[RunSpec], data_dir: Path | None) -> None:
    """Refuse while data are missing: for our own sets by checksum, for a plugin's by presence."""
    from insgd_lab.training import availability

    wanted = [run.task.data for run in runs]
    for name, path in sorted({(data.name, str(data.options.get("path", ""))) for data in wanted}):
        availability.check(name, path, data_dir)


def images_now(runs: Iterable[RunSpec], data_dir: Path | None) -> dict[str, str]:
    """By the names of runs that learn from the user's own images, what tells those that are there now from others."""
    own = [run for run in runs if run.task.data.name == "image-folder"]
    if not own:  # and nothing is imported for it
        return {}
    from insgd_lab.training.availability import fingerprints

    return fingerprints(own, data_dir)
