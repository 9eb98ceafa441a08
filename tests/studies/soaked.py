"""A plugin for studies that are killed: runs that leave traces of who trains them, and processes that kill at an event.

It is copied to where a study's processes find it. Environment variables say what it is to do:

- SOAK_WITNESS: a folder for what is seen: `begun` has a line for each time that a run begins, with its first step;
  `….twice` is of a run inside of which two processes were at the same time, `….again` of one whose run.json was written
  over after it had said that the run was finished;
- SOAK_SIGN: a file that is made when the first optimizer is;
- SOAK_PAUSE: seconds that each step takes longer, so that a kill comes in the middle;
- SOAK_FATES: `[[file, pattern, nth, target], …]`. The first process that comes to its `nth` event of the pattern and
  can make the file, kills the target. Events are what Python's audit hooks tell of, "os.rename /path/.run.json.new".
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from insgd_lab import Capabilities, register_optimizer

_AUDITED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
_CHECKPOINT_SECONDS = 0.05

if "insgd_lab.training.loop" in sys.modules:  # a worker: no run here is as long as the 30 s that it leaves between two
    defaults = sys.modules["insgd_lab.training.loop"].train.__kwdefaults__
    assert "checkpoint_seconds" in defaults, "train has no checkpoint_seconds any more, which is to be set here"
    defaults["checkpoint_seconds"] = _CHECKPOINT_SECONDS


# ------------------------------------------------------------------------------------------------ witnesses


@register_optimizer("soaked", capabilities=Capabilities(reads_inputs=True))
def soaked(model: Any, lr: float = 0.1, p: float = 2.0) -> Any:
    """INSGD, watched. Each run of the study must have options of its own: they are what it is known by here."""
    from insgd_lab import INSGD

    optimizer = INSGD(model, lr=lr, p=p)
    if "SOAK_WITNESS" in os.environ:
        os.close(os.open(os.environ["SOAK_SIGN"], os.O_CREAT))
        watch = _Watch(f"lr={lr},p={p}")
        optimizer.register_state_dict_post_hook(watch.save)
        optimizer.register_load_state_dict_pre_hook(watch.load)
        optimizer.register_step_pre_hook(watch.enter)
        optimizer.register_step_post_hook(watch.leave)
    return optimizer


class _Watch:
    """Holds a lock of the run's during each of its steps, which it counts."""

    def __init__(self, run: str) -> None:
        self.run, self.path = run, f"{os.environ['SOAK_WITNESS']}/{run}"
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT)
        self.step = 0
        self.begun = False

    def save(self, optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "soaked": self.step}

    def load(self, optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
        self.step = state["soaked"]
        return {key: value for key, value in state.items() if key != "soaked"}

    def enter(self, *_: Any) -> None:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _append(f"{self.path}.twice", f"{os.getpid()}")
        if not self.begun:
            self.begun = True
            _append(f"{os.environ['SOAK_WITNESS']}/begun", f"{self.run} {self.step}")
        time.sleep(float(os.environ["SOAK_PAUSE"]))

    def leave(self, *_: Any) -> None:
        self.step += 1
        fcntl.flock(self.file, fcntl.LOCK_UN)

    def __del__(self) -> None:
        os.close(self.file)


def _append(path: str, line: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


# ------------------------------------------------------------------------------------------------ fates


def _strike(target: str) -> None:
    if target == "self":
        os.kill(os.getpid(), signal.SIGKILL)
    elif target == "scheduler":  # it leads the group; the parent of a worker that it has left behind is someone else
        with suppress(ProcessLookupError):
            os.kill(os.getpgrp(), signal.SIGKILL)
            return
        _strike("self")
    else:
        os.killpg(0, signal.SIGKILL)


_seen: Counter[str] = Counter()


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _AUDITED or not isinstance(arguments[0], (str, os.PathLike)):
        return
    what = f"{event} {os.fspath(arguments[0])}"
    if what.startswith("os.rename") and what.endswith("/.run.json.new"):
        _look_at(Path(arguments[1]))
    for file, pattern, nth, target in _fates:
        if not re.search(pattern, what):
            continue
        _seen[file] += 1
        if _seen[file] == nth:
            with suppress(FileExistsError):
                os.close(os.open(file, os.O_CREAT | os.O_EXCL))
                _strike(target)


def _look_at(info: Path) -> None:
    """Tell of a run.json that is about to be written over although it says that the run is finished."""
    if info.exists() and (status := json.loads(info.read_bytes())["status"]) in ("done", "diverged"):
        _append(f"{os.environ['SOAK_WITNESS']}/{info.parent.name}.again", status)


_fates = json.loads(os.environ.get("SOAK_FATES", "[]"))
if "SOAK_WITNESS" in os.environ:
    sys.addaudithook(_on_event)
