"""One worker process: read jobs from stdin as lines of JSON, train their runs, answer on stdout in lines of JSON.

    python -P -m insgd_lab.studies.worker STUDY_DIR --device cpu [--data-dir DIR] [--loaders N]

    <- {"runs": [{"run": "0123456789abcdef", "spec": {…}, "plugins": […], "init_from": null}, …], "always": true}
    -> {"event": "ready"}
    -> {"event": "ended", "run": "0123456789abcdef", "status": "done"}

`jobs` says what a job is and which events there are. The protocol keeps its own copy of stdout, and file descriptor 1
is pointed at stderr (the worker's log), so that nothing that a library or plugin prints can break it. When stdin
closes the worker leaves at once.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from insgd_lab.studies.jobs import Job, Place, prepare_torch, work


def main() -> None:
    """Serve until stdin closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the scheduler decides
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    parser = argparse.ArgumentParser(description="A worker of `insgd-lab study run`; not for direct use.")
    parser.add_argument("study", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--loaders", type=int, default=0)
    place = Place(**vars(parser.parse_args()))
    jobs = _listen()
    prepare_torch()
    _tell(channel, event="ready")
    while True:
        work(jobs.get(), place, partial(_tell, channel))


def _listen() -> queue.Queue[Job]:
    """Read jobs in a thread, so that a closed pipe is noticed in the middle of a run."""
    jobs: queue.Queue[Job] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            jobs.put(json.loads(line))
        os._exit(0)  # every file is renamed into place when it is whole, so there is nothing to tidy

    threading.Thread(target=read, daemon=True).start()
    return jobs


def _tell(channel: TextIO, **message: Any) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
