"""One worker process: read runs from stdin as lines of JSON, train them, answer on stdout in lines of JSON.

    python -P -m insgd_lab.studies.worker STUDY_DIR --device cpu [--data-dir DIR]

    <- {"run": "0123456789abcdef", "spec": {…}, "plugins": […]}
    -> {"event": "ready"}
    -> {"event": "ended", "run": "0123456789abcdef", "status": "done"}

The protocol keeps its own copy of stdout, and file descriptor 1 is pointed at stderr (the worker's log), so
that nothing that a library or plugin prints can break it. When stdin closes the worker leaves at once.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, TextIO


def main() -> None:
    """Serve until stdin closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the scheduler decides
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    parser = argparse.ArgumentParser(description="A worker of `insgd-lab study run`; not for direct use.")
    parser.add_argument("study", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    jobs = _listen()
    _prepare_torch()
    _tell(channel, event="ready")
    while True:
        job = jobs.get()
        _tell(channel, event="ended", run=job["run"], **_work(job, arguments))


def _listen() -> queue.Queue[dict[str, Any]]:
    """Read jobs in a thread, so that a closed pipe is noticed in the middle of a run."""
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            jobs.put(json.loads(line))
        os._exit(0)  # every file is renamed into place when it is whole, so there is nothing to tidy

    threading.Thread(target=read, daemon=True).start()
    return jobs


def _prepare_torch() -> None:
    import torch

    import insgd_lab.training.loop  # noqa: F401  (a worker that cannot import it must not report itself ready)

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)


def _work(job: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        return {"status": _train(job, arguments)}
    except Exception:  # whatever a run or a plugin raises is that run's failure, not the worker's
        return {"status": "failed", "error": traceback.format_exc()}


def _train(job: dict[str, Any], arguments: argparse.Namespace) -> str:
    from insgd_lab.config import RunSpec
    from insgd_lab.store import StudyFolder
    from insgd_lab.training.loop import train

    spec = RunSpec.from_canonical(job["spec"], job["plugins"])
    if spec.id != job["run"]:
        raise RuntimeError(f"run {job['run']} came out as {spec.id}: the registry changed since it was planned")
    folder = StudyFolder(arguments.study).run(spec.id)
    return train(spec, folder, data_dir=arguments.data_dir, device=arguments.device).status


def _tell(channel: TextIO, **message: Any) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
