"""Many figures saved at once: by this process, and by a helper that takes turns with it where there is a second core.

    with Saver(folder) as saver:
        for drawing in drawings(...):
            saver.save(drawing.figure, drawing.name)
        saver.finish()["curves"]["svg"]

Writing one figure in three formats takes longer than all the numbers in it. The helper is a fresh process that is
spoken to by pipes: a fork would inherit the threads of pyarrow, and a spawned one would import the caller's script.
Figures wait in a queue, out of which a thread feeds the helper; once all are drawn, this process saves from it too.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Saver", "serve"]

_HELPER = "from insgd_lab.analysis.saving import serve; serve()"


class Saver:
    """Saves figures into a folder. Made early, its helper comes up while something else is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[str, dict[str, Path]] = {}
        self._waiting: queue.SimpleQueue[tuple[Figure, str] | None] = queue.SimpleQueue()
        self._helper = _start() if _cores() > 1 else None
        self._ready = False  # the helper has come up, so the thread may hold a figure
        self._error: Exception | None = None
        self._feeder = Thread(target=self._feed, daemon=True)

    def __enter__(self) -> Saver:
        self._feeder.start()
        return self

    def save(self, figure: Figure, name: str) -> None:
        """Have a figure saved by `finish` at the latest; nobody may change it any more."""
        self._waiting.put((figure, name))

    def finish(self) -> dict[str, dict[str, Path]]:
        """Save what still waits, together with the helper; returns the paths by name and format.

        Raises:
            OSError: a figure cannot be written.
        """
        self._save_waiting()
        if self._ready:
            self._waiting.put(None)
            self._feeder.join()
            self._save_waiting()  # what a helper that died was at
        if self._error:
            raise self._error
        return self._paths

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Part from helper and thread: they are done, or nobody waits for them any more."""
        if self._helper is not None:
            self._helper.kill()
        self._waiting.put(None)
        self._feeder.join()
        if self._helper is not None:
            for pipe in (self._helper.stdin, self._helper.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):
                    pipe.close()
            self._helper.wait()

    def _save_waiting(self) -> None:
        """Save one figure after the other; this process's side."""
        with suppress(queue.Empty):
            while self._error is None:
                if item := self._waiting.get_nowait():
                    self._paths[item[1]] = _save(*item, self.folder)

    def _feed(self) -> None:
        """Give the helper one figure after the other; the thread's side. If it is gone, leave them to this process."""
        if self._helper is None or self._hear() is None:
            return
        self._ready = True
        while item := self._waiting.get():
            try:
                told = self._ask(*item)
            except Exception as error:  # `finish` raises it
                self._error = error
                return
            if told is None:
                self._waiting.put(item)
                return
            self._paths[item[1]] = told

    def _ask(self, figure: Figure, name: str) -> dict[str, Path] | None:
        """Have the helper save a figure; None if it is gone, whose reason this process will meet itself."""
        assert self._helper is not None
        assert self._helper.stdin is not None
        try:
            pickle.dump((figure, name, self.folder), self._helper.stdin)
            self._helper.stdin.flush()
        except BrokenPipeError:
            return None
        told: dict[str, Path] | OSError | None = self._hear()
        if isinstance(told, OSError):
            raise told
        return told

    def _hear(self) -> Any:
        """The helper's next word: nothing but a sign of life at first, then what `_save` returned or raised."""
        assert self._helper is not None
        assert self._helper.stdout is not None
        try:
            return pickle.load(self._helper.stdout)
        except (EOFError, pickle.UnpicklingError):
            return None


def _save(figure: Figure, name: str, folder: Path) -> dict[str, Path]:
    from insgd_lab.analysis.canvas import save_figure  # seaborn takes a second; the helper must start before

    return save_figure(figure, folder, name)


def serve() -> None:
    """Save what comes through standard input, one figure after the other; the helper's side."""
    import insgd_lab.analysis.canvas  # noqa: F401  # before it says that it is there

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may come between the answers
    _answer(answers, {})
    while True:
        try:
            asked = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            _answer(answers, _save(*asked))
        except OSError as error:
            _answer(answers, error)


def _answer(answers: BinaryIO, told: object) -> None:
    pickle.dump(told, answers)
    answers.flush()


def _start() -> subprocess.Popen[bytes] | None:
    """Start the helper; None where there is no process to be had."""
    command, pipe, nowhere = [sys.executable, "-P", "-c", _HELPER], subprocess.PIPE, subprocess.DEVNULL
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere)
    except OSError:
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
