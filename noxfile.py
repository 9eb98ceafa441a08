"""Everything that is run by hand or by a machine: `nox -l` lists it, and every session does its own set-up.

The four everyday sessions share one environment, made by session `lab` with the versions of constraints.txt:
torch brings gigabytes, so one copy must do. The project is installed in it as a user would have it, and only
when something that goes into it has changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint"]

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml("pyproject.toml")
GROUPS = nox.project.dependency_groups(PROJECT, "tests", "lint")
DEPENDENCIES = [*PROJECT["project"]["dependencies"], *GROUPS, *PROJECT["build-system"]["requires"]]
PACKAGED = ("insgd_lab", "analysis", "experiments")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadgroup")  # tests of one xdist_group never at the same time
COMPILED = {"UV_COMPILE_BYTECODE": "1"}  # as pip does; else the first study spends its time on compiling torch


@nox.session(reuse_venv=True, default=False)
def lab(session: nox.Session) -> None:
    """Bring the shared environment up to date (the other sessions call this one)."""
    pinned = ["pyproject.toml", "constraints.txt"]
    if _changed(session, "dependencies", [ROOT / name for name in pinned]):
        session.install("--constraint", "constraints.txt", *DEPENDENCIES, env=COMPILED)
        _remember(session, "dependencies", [ROOT / name for name in pinned])
    if _changed(session, "package", _sources()):
        _install_project(session)
        _remember(session, "package", _sources())


@nox.session(venv_backend="none", requires=["lab"])
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after -- go to pytest."""
    _run(session, "pytest", *SIDE_BY_SIDE, *(session.posargs or ["tests"]))


@nox.session(venv_backend="none", requires=["lab"])
def lint(session: nox.Session) -> None:
    """Check style and types; the types are those of the installed package."""
    _run(session, "ruff", "check", ".")
    _run(session, "ruff", "format", "--check", ".")
    with session.chdir(_lab(session)):  # from here, `insgd_lab` is the installed one
        _run(session, "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "insgd_lab")


@nox.session(venv_backend="none", requires=["lab"], default=False)
def study(session: nox.Session) -> None:
    """Run the digits study and write its report; arguments after -- go to `insgd-lab study run`."""
    _run(session, "insgd-lab", "study", "run", "digits", "--out", "runs/digits", *session.posargs)
    _run(session, "insgd-lab", "report", "runs/digits")


@nox.session(venv_backend="none", requires=["lab"], default=False)
def bench(session: nox.Session) -> None:
    """Measure speed beside peers, studies and reports against the targets; arguments after -- go to the benchmarks."""
    for arguments in [session.posargs] if session.posargs else [[], ["studies"], ["report"]]:
        _run(session, "python", "-m", "benchmarks", *arguments)


@nox.session(venv_backend="none", requires=["lab"], default=False)
def soak(session: nox.Session) -> None:
    """Kill a study's schedulers and workers fifty times; arguments after -- (`--kill-seed 7`) go to pytest."""
    _run(session, "pytest", "-s", "tests/studies/test_soak.py", "--kills", "50", *session.posargs)


@nox.session(venv_backend="none", requires=["lab"], default=False)
def mutants(session: nox.Session) -> None:
    """Show which laws catch which wrong rule; an argument after -- is a pattern of the mutants' names."""
    _run(session, "python", "tests/mutants.py", *session.posargs)


@nox.session(name="tests-oldest", default=False)
def tests_oldest(session: nox.Session) -> None:
    """Run the tests with the oldest dependencies that pyproject.toml allows."""
    session.install(*(name.replace(">=", "==") for name in PROJECT["project"]["dependencies"]))
    session.install(*GROUPS, *PROJECT["build-system"]["requires"])
    _install_project(session)
    session.run("pytest", *SIDE_BY_SIDE, *(session.posargs or ["tests"]), env=ONE_THREAD)


@nox.session(name="tests-latest", default=False)
def tests_latest(session: nox.Session) -> None:
    """Run the tests with the newest dependencies there are."""
    session.install("--upgrade", *DEPENDENCIES)
    _install_project(session)
    session.run("pytest", *SIDE_BY_SIDE, *(session.posargs or ["tests"]), env=ONE_THREAD)


def _lab(session: nox.Session) -> Path:
    """The shared environment, beside the session's own."""
    return (ROOT / session.env_dir).parent / "lab"  # env_dir may be relative, and `lint` changes the directory


def _run(session: nox.Session, command: str, *arguments: str) -> None:
    folder = next(path for path in (_lab(session) / "bin", _lab(session) / "Scripts") if path.is_dir())
    session.run(str(folder / command), *arguments, env={**ONE_THREAD, **_commit()})


def _commit() -> dict[str, str]:
    """What the installed package cannot know of itself, for run.json; nothing without git or its checkout."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        return {}
    head, changes = _git("rev-parse", "--verify", "HEAD"), _git("status", "--porcelain", "-uno")
    return {"INSGD_LAB_COMMIT": head + ("-dirty" if changes else "")} if head else {}


def _git(*arguments: str) -> str:
    # A hook's GIT_DIR would point git at another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()


def _install_project(session: nox.Session) -> None:
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # else setuptools packs modules deleted since
    session.install("--no-deps", "--no-build-isolation", "--force-reinstall", str(ROOT), env=COMPILED)
    shutil.rmtree(ROOT / "build", ignore_errors=True)


def _sources() -> list[Path]:
    """What goes into the package."""
    packaged = [path for folder in PACKAGED for path in (ROOT / folder).rglob("*") if path.is_file()]
    sources = [path for path in packaged if "__pycache__" not in path.parts]
    return [ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE", *sorted(sources)]


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _stamp(session: nox.Session, name: str) -> Path:
    return session.env_dir / f".{name}.sha256"


def _changed(session: nox.Session, name: str, files: Iterable[Path]) -> bool:
    stamp = _stamp(session, name)
    return not stamp.is_file() or stamp.read_text() != _digest(files)


def _remember(session: nox.Session, name: str, files: Iterable[Path]) -> None:
    _stamp(session, name).write_text(_digest(files))
