"""A plugin for studies that are killed: runs that leave traces of who trains them, and processes that kill at an event.

It is copied to where a study's processes find it. Environment variables say what it is to do:

- SOAK_WITNESS: a folder, in which two processes that are inside of one run at the same time leave a line;
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
from typing import Any

from insgd_lab import Capabilities, register_optimizer

_AUDITED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
_CHECKPOINT_SECONDS = 0.05

if "insgd_lab.training.loop" in sys.modules:  # a worker: no run here is as long as the 30 s that it leaves between two
    sys.modules["insgd_lab.training.loop"].train.__kwdefaults__["checkpoint_seconds"] = _CHECKPOINT_SECONDS


# ------------------------------------------------------------------------------------------------ witnesses


@register_optimizer("soaked", capabilities=Capabilities(reads_inputs=True))
def soaked(model: Any, lr: float = 0.1, p: float = 2.0) -> Any:
    """INSGD, watched. Each run of the study must have options of its own: they are what it is known by here."""
    from insgd_lab import INSGD

    optimizer = INSGD(model, lr=lr, p=p)
    if "SOAK_WITNESS" in os.environ:
        os.close(os.open(os.environ["SOAK_SIGN"], os.O_CREAT))
        watch = _Watch(f"{os.environ['SOAK_WITNESS']}/lr={lr},p={p}")
        optimizer.register_step_pre_hook(watch.enter)
        optimizer.register_step_post_hook(watch.leave)
    return optimizer


class _Watch:
    """Holds a lock of the run's during each of its steps."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = os.open(path, os.O_RDWR | os.O_CREAT)

    def enter(self, *_: Any) -> None:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.write(os.open(f"{self.path}.twice", os.O_WRONLY | os.O_CREAT | os.O_APPEND), f"{os.getpid()}\n".encode())
        time.sleep(float(os.environ["SOAK_PAUSE"]))

    def leave(self, *_: Any) -> None:
        fcntl.flock(self.file, fcntl.LOCK_UN)

    def __del__(self) -> None:
        os.close(self.file)


# ------------------------------------------------------------------------------------------------ fates


def _strike(target: str) -> None:
    if target == "self":
        os.kill(os.getpid(), signal.SIGKILL)
    elif target == "scheduler":  # it leads the group; the parent of a worker that it has left behind is someone else
        with suppress(ProcessLookupError):
            os.kill(os.getpgrp(), signal.SIGKILL)
    else:
        os.killpg(0, signal.SIGKILL)


_seen: Counter[str] = Counter()


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _AUDITED or not isinstance(arguments[0], (str, os.PathLike)):
        return
    what = f"{event} {os.fspath(arguments[0])}"
    for file, pattern, nth, target in _fates:
        if not re.search(pattern, what):
            continue
        _seen[file] += 1
        if _seen[file] == nth:
            with suppress(FileExistsError):
                os.close(os.open(file, os.O_CREAT | os.O_EXCL))
                _strike(target)


_fates = json.loads(os.environ.get("SOAK_FATES", "[]"))
if _fates:
    sys.addaudithook(_on_event)
