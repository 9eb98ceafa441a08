"""Many figures saved at once: by this process, and by a helper that takes turns with it where there is a second core.

    with Saver(folder) as saver:
        for drawing in drawings(...):
            saver.save(drawing.figure, drawing.name)
    saver.paths["curves"]["svg"]

Writing one figure in three formats takes longer than all the numbers in it. The helper is a fresh process that is
spoken to by pipes: a fork would inherit the threads of pyarrow, and a spawned one would import the caller's script.
"""

from __future__ import annotations

import os
import pickle
import selectors
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from matplotlib.figure import Figure

from insgd_lab.analysis.canvas import save_figure

__all__ = ["Saver", "serve"]

_HELPER = "from insgd_lab.analysis.saving import serve; serve()"


class Saver:
    """Saves figures into a folder.

    Attributes:
        paths: of each figure by name and format, complete once the saver has been left.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: dict[str, dict[str, Path]] = {}
        self._sent: tuple[Figure, str] | None = None  # what the helper is at
        self._ready = False
        self._helper = _start() if _cores() > 1 else None

    def __enter__(self) -> Saver:
        return self

    def save(self, figure: Figure, name: str) -> None:
        """Save a figure, or have the helper do so while this process goes on.

        Raises:
            OSError: it cannot be written.
        """
        if self._helper and self._has_time():
            self._send(figure, name)
        else:
            self.paths[name] = save_figure(figure, self.folder, name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._helper is None:
            return
        try:
            if error is None and self._sent:
                self._await()
        finally:
            self._helper.kill()  # it has answered, or nobody waits for its answer
            for pipe in (self._helper.stdin, self._helper.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):
                    pipe.close()
            self._helper.wait()

    def _has_time(self) -> bool:
        """Whether the helper is done with what it had, or has only now come up."""
        assert self._helper is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._helper.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
            if selector.select(0):
                self._await()
        return self._ready and self._sent is None

    def _send(self, figure: Figure, name: str) -> None:
        assert self._helper is not None
        assert self._helper.stdin is not None
        self._sent = (figure, name)
        try:
            pickle.dump((figure, self.folder, name), self._helper.stdin)
            self._helper.stdin.flush()
        except BrokenPipeError:
            self._do_without()

    def _await(self) -> None:
        """Hear that the helper has come up, or has saved its figure; if it is gone, save that here."""
        assert self._helper is not None
        assert self._helper.stdout is not None
        try:
            told = pickle.load(self._helper.stdout)
        except (EOFError, pickle.UnpicklingError):
            self._do_without()
            return
        self._ready = True
        if self._sent and told is not None:
            (_, name), self._sent = self._sent, None
            if isinstance(told, OSError):
                raise told
            self.paths[name] = told

    def _do_without(self) -> None:
        """The helper has failed: whatever the reason, this process can do its work, and meet the reason itself."""
        self._ready = False
        if self._sent:
            (figure, name), self._sent = self._sent, None
            self.paths[name] = save_figure(figure, self.folder, name)


def serve() -> None:
    """Save what comes through standard input, one figure after the other; the helper's side."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may come between the answers
    _answer(answers, None)
    while True:
        try:
            figure, folder, name = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            _answer(answers, save_figure(figure, folder, name))
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
