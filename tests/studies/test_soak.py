"""A study whose schedulers and workers are killed again and again ends as if nothing had been.

`nox -s soak` kills fifty times; after `--` come `--kills 200`, `--kill-seed 7` and whatever else pytest takes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from insgd_lab.store import StudyFolder

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="workers are found by Linux's /proc")

STUDY = """
name = "soaked"
seeds = 1
plugins = ["soaked"]
task = { data = { name = "digits", fraction = 0.1 }, model = { name = "mlp", hidden = [8] } }
train = { epochs = 6, batch_size = 16, packing = "off" }
record = { every = 1 }
[[arm]]
name = "soaked"
optimizer = "soaked"
axes = { lr = { log_range = [0.01, 0.3], steps = 4 }, p = [1, 2, inf] }
include = [{ lr = 1e30, p = 2 }]
"""
STUDY_RUN = [sys.executable, "-m", "insgd_lab", "study", "run", "soaked.toml"]
SCHEDULERS = 2
PAUSE = 0.02  # seconds a step, of which a run has 54
START = 4.0  # seconds that a scheduler and its workers take to start, or less
WORK = 2.0  # seconds from one kill to the next, or less
PATIENCE = 300.0  # with a machine that has much else to do

# Just before these events, of which Python's audit hooks tell, a process kills itself, its scheduler or all.
EVENTS = [
    r"open .*/\.study\.json\.new", r"rename .*/\.study\.json\.new", r"open .*/logs/worker", r"mkdir .*/[0-9a-f]{16}$",
    r"open .*/[0-9a-f]{16}/\.lock", r"remove .*/[0-9a-f]{16}/\.lock",
    r"open .*/\.run\.json\.new", r"rename .*/\.run\.json\.new",
    r"mkdir .*/layers$", r"rename .*/layers/\.part", r"remove .*/layers/part",
    r"open .*/\.checkpoint\.pt\.new", r"rename .*/\.checkpoint\.pt\.new", r"open .*/checkpoint.pt",
    r"remove .*/checkpoint.pt", r"rename .*/\.metrics\.parquet\.new", r"rename .*/\.layers\.parquet\.new",
    r"open .*/layers\.parquet", r"rmtree .*/layers", r"rmdir .*/layers", r"remove .*\.new",
]  # fmt: skip
AFTER_A_CHECKPOINT = (
    r"open .*/\.run\.json\.new"  # of a worker the second: the first is of the beginning of its first run
)
ORPHANED = r"remove .*/layers/part"
# What a worker must have died at, and for which time, so that another one comes to these events.
BEFORE = {ORPHANED: (r"rename .*/\.checkpoint\.pt\.new", 1), r"open .*/checkpoint.pt": (AFTER_A_CHECKPOINT, 2)}
OFTEN = 50  # kills from which on everything must have been struck
LOOK = 0.25  # seconds between two looks at what has failed
# What run.json says of the clock; `epochs` has the seconds of each.
TIMES = {"started", "finished", "seconds", "images_per_second", "epochs"}


def environment(home: Path) -> dict[str, str]:
    """The plugin is found, warnings are errors, and a commit made meanwhile tells no runs apart."""
    return {**os.environ, "PYTHONPATH": str(home), "PYTHONWARNINGS": "error", "INSGD_LAB_COMMIT": "here"}


class Command:
    """`insgd-lab study run` in a process group of its own, with what its processes are to know."""

    def __init__(
        self, home: Path, out: Path, workers: int = 1, fates: Sequence[tuple[str, str, int, str]] = (), pause: float = 0
    ) -> None:
        self.out = out
        self.fates = {Path(file): pattern for file, pattern, *_ in fates}  # those that have not struck
        self.log = tempfile.TemporaryFile("w+", dir=home)  # noqa: SIM115 - as long as the process
        self.sign = home / "witness" / f"sign-{uuid.uuid4()}"
        self.sign.parent.mkdir(exist_ok=True)
        told = {
            "WITNESS": self.sign.parent,
            "STUDY": out,
            "SIGN": self.sign,
            "PAUSE": pause,
            "FATES": json.dumps(fates),
        }
        self.process = subprocess.Popen(
            [*STUDY_RUN, "--out", out, "--workers", str(workers)],
            cwd=home,
            env={**environment(home), **{f"SOAK_{name}": str(value) for name, value in told.items()}},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def workers(self) -> list[int]:
        pid = self.process.pid
        with contextlib.suppress(FileNotFoundError):
            return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def kill(self, target: str, chance: random.Random) -> bool:
        """Kill the scheduler, all its processes, or one worker; whether there was one."""
        workers = [pid for pid in self.workers() if is_alive(pid)]
        if not self.alive or (target == "worker" and not workers):
            return False
        with contextlib.suppress(ProcessLookupError):
            if target == "worker":
                os.kill(chance.choice(workers), signal.SIGKILL)
            elif target == "scheduler":
                os.kill(self.process.pid, signal.SIGKILL)
            else:
                os.killpg(self.process.pid, signal.SIGKILL)
            return True
        return False  # it has just ended

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class Soak:
    """Keeps schedulers of one study at work, and kills until it has killed so often."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.chance = home, random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.commands: list[Command] = []
        self.due: dict[Command, float] = {}  # when each is to be killed if it has not been
        self.started = self.fates = 0
        self.looked = 0.0

    def run(self, out: Path, kills: int) -> None:
        """Kill until there are so many kills in all, the last of everything, or until the study has ended before."""
        ended = False
        # The first to die leaves a run that can be resumed.
        self.commands.append(self._struck(out, [self._fate(AFTER_A_CHECKPOINT, 2, "self")]))
        while self.kills.total() < kills - 1 and not ended:
            while len(self.commands) < SCHEDULERS:
                self._start(out)
            time.sleep(0.005)
            for command in list(self.commands):
                ended |= self._tend(command)
        if ended:
            self._wait()
        else:
            self.kills["all at the end"] += any(command.alive for command in self.commands)
            self.stop()
            check_failures(out)

    def stop(self) -> None:
        """Kill all that is there."""
        while self.commands:
            self.commands.pop().end()

    def strike(self, out: Path) -> None:
        """Kill once at each of the events, in a study of their own."""
        for event in EVENTS:
            fates = self._prepared(event)
            self._struck(out, fates).end()
            self.kills["at an event"] += len(fates)
            self.events.update(pattern for _, pattern, *_ in fates)

    def _struck(self, out: Path, fates: list[tuple[str, str, int, str]]) -> Command:
        """Start a scheduler and wait until its fates have struck."""
        self.started += 1
        command, files = Command(self.home, out, 1, fates, PAUSE), [Path(file) for file, *_ in fates]
        until = time.monotonic() + PATIENCE
        try:
            while not all(file.exists() for file in files):
                assert command.alive or all(file.exists() for file in files), command.said()
                assert time.monotonic() < until
                time.sleep(0.005)
        except BaseException:
            command.end()
            raise
        return command

    def _start(self, out: Path) -> None:
        self.started += 1
        # Some die at events of three kinds, some as they start, the others at work.
        fates = self._fates() if self.chance.random() < 1 / 2 else []
        command = Command(self.home, out, self.chance.choice([1, 2]), fates, PAUSE)
        self.commands.append(command)
        if not fates and self.chance.random() < 1 / 3:
            self.due[command] = time.monotonic() + self.chance.uniform(0, START)

    def _fates(self) -> list[tuple[str, str, int, str]]:
        """Three of the events that have struck least."""
        chosen = sorted(EVENTS, key=lambda event: (self.events[event], self.chance.random()))[:3]
        if ORPHANED in chosen:
            return self._prepared(ORPHANED)
        return [self._fate(event) for event in chosen]

    def _prepared(self, event: str) -> list[tuple[str, str, int, str]]:
        """A death at an event, after the one without which it does not come."""
        before = [BEFORE[event]] if event in BEFORE else []
        return [self._fate(pattern, nth, "self") for pattern, nth in [*before, (event, 1)]]

    def _fate(self, pattern: str, nth: int = 0, target: str = "") -> tuple[str, str, int, str]:
        self.fates += 1
        nth = nth or self.chance.randint(1, 2 if self.events[pattern] else 1)
        target = target or self.chance.choice(["self", "self", "scheduler", "group"])
        return str(self.home / "witness" / f"fate-{self.fates}"), pattern, nth, target

    def _tend(self, command: Command) -> bool:
        """Kill what is due, count what has died; whether the study has ended."""
        for file in [file for file in command.fates if file.exists()]:
            self.kills["at an event"] += 1
            self.events[command.fates.pop(file)] += 1
            self._postpone(command)
        if not command.alive:
            return self._ended(command)
        if time.monotonic() - self.looked > LOOK:
            self.looked = time.monotonic()
            check_failures(command.out)
        if command not in self.due and command.sign.exists():
            self._postpone(command)
        if time.monotonic() >= self.due.get(command, math.inf):
            target = self.chance.choice(["worker", "worker", "scheduler", "group"])
            self.kills[target] += command.kill(target, self.chance)
            self._postpone(command)
        return False

    def _postpone(self, command: Command) -> None:
        """Kill at some later time, and what is to die at an event only if none comes."""
        self.due[command] = time.monotonic() + (2 * WORK if command.fates else self.chance.uniform(0, WORK))

    def _ended(self, command: Command) -> bool:
        self.commands.remove(command)
        code, said = command.process.returncode, command.said()
        command.log.close()  # workers that it leaves behind leave by themselves
        assert "Traceback" not in said, said
        assert code in (0, 1, -signal.SIGKILL) or "could not start: killed by SIGKILL" in said, said
        check_failures(command.out)
        return code == 0

    def _wait(self) -> None:
        """Call off what has not struck yet, and wait for the others, who have nothing to do either."""
        for command in self.commands:
            for file in command.fates:
                file.touch()
        while self.commands:
            self.commands[0].process.wait(PATIENCE)
            self._ended(self.commands[0])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "soaked.toml").write_text(STUDY)
    shutil.copy(Path(__file__).with_name("soaked.py"), tmp_path)
    return tmp_path


@pytest.fixture
def soak(home: Path, request: pytest.FixtureRequest) -> Iterator[Soak]:
    soak = Soak(home, request.config.getoption("--kill-seed"))
    yield soak
    soak.stop()


# ------------------------------------------------------------------------------------------------ what must be left


def check_failures(out: Path) -> None:
    """No run has failed but for its worker."""
    for info in StudyFolder(out).infos().values():
        assert info["status"] != "failed" or info["error"].startswith("its worker died"), info["error"]


def begun(home: Path) -> list[int]:
    """The first step of each run that was begun, as often as it was."""
    return [int(line.split()[1]) for line in (home / "witness" / "begun").read_text().splitlines()]


def run_undisturbed(home: Path, out: Path) -> None:
    commands = [Command(home, out) for _ in range(SCHEDULERS)]
    try:
        for command in commands:
            assert command.process.wait(PATIENCE) == 0, command.said()
    finally:
        for command in commands:
            command.end()


def files(study: Path) -> set[str]:
    """All that is there but logs, the study's own locks and who held them."""
    found = {str(path.relative_to(study)) for path in study.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(("logs/", ".lock", ".plan-lock", ".work-"))}


def facts(path: Path) -> dict[str, Any]:
    """A JSON file but for its times."""
    return {key: value for key, value in json.loads(path.read_bytes()).items() if key not in TIMES | {"created"}}


def check_same(study: Path, whole: Path) -> None:
    planned = {row["run"] for row in StudyFolder(whole).info()["plan"]}
    assert {name.split("/")[0] for name in files(whole)} == planned | {"study.json"}
    assert files(study) == files(whole), "a run or a file of one is missing, or something was left behind"
    for name in sorted(files(whole)):
        if name.endswith(".json"):
            assert facts(study / name) == facts(whole / name), name
            assert json.loads((study / name).read_bytes()).keys() == json.loads((whole / name).read_bytes()).keys()
        else:
            assert (study / name).read_bytes() == (whole / name).read_bytes(), name


def call(home: Path, *arguments: object) -> str:
    command = [sys.executable, "-m", "insgd_lab", *map(str, arguments)]
    told = subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_a_study_killed_again_and_again_ends_as_if_nothing_had_been(
    home: Path, request: pytest.FixtureRequest, soak: Soak
) -> None:
    kills, began = request.config.getoption("--kills"), time.monotonic()
    run_undisturbed(home, home / "whole")
    assert begun(home) == [0] * 13
    if kills >= OFTEN:
        soak.strike(home / "struck")
        run_undisturbed(home, home / "struck")
        check_same(home / "struck", home / "whole")
    rounds = 0
    while soak.kills.total() < kills:  # a study that has ended before that many is begun again
        rounds += 1
        study = home / f"killed-{rounds}"
        soak.run(study, kills)
        run_undisturbed(home, study)
        check_same(study, home / "whole")
    assert not list((home / "witness").glob("*.twice")), "two processes trained one run at the same time"
    assert not list((home / "witness").glob("*.again")), "a finished run was begun again, or said to have failed"
    resumed = sum(step > 0 for step in begun(home))
    assert resumed
    assert kills < OFTEN or soak.events.keys() == set(EVENTS), set(EVENTS) - soak.events.keys()
    assert "soaked" in call(home, "study", "status", study)
    assert "Report: " in call(home, "report", study)
    counts = ", ".join(f"{count} {what}" for what, count in sorted(soak.kills.items()))
    print(
        f"\n{soak.kills.total()} kills ({counts}) of {soak.started} schedulers in {rounds} studies, "
        f"{resumed} runs resumed, {time.monotonic() - began:.0f} s; events: {dict(soak.events)}"
    )
