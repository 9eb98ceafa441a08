"""One compute thread, the same examples every time, and the command line as a user calls it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # read when torch and numpy are first imported
os.environ["PYTHONSAFEPATH"] = "1"  # a Python that a test starts imports the installed package, not this folder's

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci")

# Every warning of a process that a test starts is an error there too, in a study's workers as well.
STRICT = {"PYTHONWARNINGS": "error"}
COMMAND = [sys.executable, "-m", "insgd_lab"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the soak test of studies kills, and when."""
    parser.addoption("--kills", type=int, default=6, help="kills of schedulers and workers in the soak test")
    parser.addoption("--kill-seed", type=int, default=0, help="what their instants are drawn with")


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call `insgd-lab` with the given arguments in an empty folder; keywords are environment variables."""

    def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **STRICT, "XDG_CACHE_HOME": str(tmp_path / "cache"), **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def vision() -> Iterator[None]:
    """torchvision's Python part, also beside a torch that its C++ part was not built for.

    There the import asks for operators that nobody defined. Nothing of ours calls one, so stubs will do; where
    torchvision fits torch this does nothing.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        found = importlib.util.find_spec("torchvision")
        assert found is not None
        assert found.origin is not None
        source = (Path(found.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
        library = torch.library.Library("torchvision", "DEF")  # the stubs live as long as it does
        for name in sorted(set(re.findall(r'register_fake\("torchvision::(\w+)"', source))):
            library.define(f"{name}() -> ()")
        importlib.import_module("torchvision")
        yield
        library._destroy()
    else:
        yield


def _hear_ctrl_c() -> None:
    """Undo what tests started in the background inherit: a shell has them, and all they start, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start_cli(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `insgd-lab` there in a process group of its own, as a shell does; what still runs is ended."""
    started = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **STRICT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_hear_ctrl_c,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()
