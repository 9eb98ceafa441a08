"""One worker process: read runs from stdin as lines of JSON, train them, answer on stdout in lines of JSON.

    python -P -m insgd_lab.studies.worker STUDY_DIR --device cpu [--data-dir DIR] [--loaders N]

    <- {"runs": [{"run": "0123456789abcdef", "spec": {…}, "plugins": […], "init_from": null}, …], "always": true}
    -> {"event": "ready"}
    -> {"event": "ended", "run": "0123456789abcdef", "status": "done"}

Several runs of one line train side by side. If they cannot, or need not (`always` is false and it would not be
faster), the worker gives them back, to get them one by one:

    -> {"event": "returned", "reason": "…"}

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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from insgd_lab.config import RunSpec
    from insgd_lab.store import RunFolder

Tell = Callable[..., None]


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
    arguments = parser.parse_args()
    jobs = _listen()
    _prepare_torch()
    _tell(channel, event="ready")
    while True:
        _work(jobs.get(), arguments, partial(_tell, channel))


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


def _work(job: dict[str, Any], arguments: argparse.Namespace, tell: Tell) -> None:
    waiting = {asked["run"]: asked for asked in job["runs"]}
    if len(waiting) > 1:
        try:
            _train_side_by_side(job, waiting, arguments, tell)
        except Exception as error:  # of a run or a plugin: alone, each will show whose it is
            traceback.print_exc()
            tell(event="broke", reason=f"a pack broke and its runs were trained one by one: {error!r}")
    for asked in list(waiting.values()):
        tell(event="ended", run=asked["run"], **_outcome(asked, arguments))


def _outcome(asked: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    from insgd_lab.store import DiskError, InUse

    try:
        return {"status": _train(asked, arguments)}
    except InUse:  # by a worker of another scheduler
        return {"status": "busy"}
    except DiskError as error:  # every other run would meet it too
        return {"status": "stopped", "error": str(error)}
    except Exception:  # whatever a run or a plugin raises is that run's failure, not the worker's
        return {"status": "failed", "error": traceback.format_exc()}


def _train(asked: dict[str, Any], arguments: argparse.Namespace) -> str:
    from insgd_lab.training.loop import train

    spec = _spec(asked)
    folder, device = _folder(spec, arguments), arguments.device
    return train(spec, folder, data_dir=arguments.data_dir, device=device, loaders=arguments.loaders).status


def _train_side_by_side(
    job: dict[str, Any], waiting: dict[str, dict[str, Any]], arguments: argparse.Namespace, tell: Tell
) -> None:
    """Train runs together, telling of each when it ends; `waiting` is left with those that have not been told of."""
    from insgd_lab.store import InUse
    from insgd_lab.training.loop import Outcome
    from insgd_lab.training.packing import NotPackable, train_packed, worth_packing

    specs = [_spec(asked) for asked in waiting.values()]

    def ended(spec: RunSpec, outcome: Outcome) -> None:
        del waiting[spec.id]
        tell(event="ended", run=spec.id, status=outcome.status)

    try:
        if not job["always"] and not worth_packing(specs[0], arguments.device, arguments.data_dir):
            raise NotPackable("")
        folders = [_folder(spec, arguments) for spec in specs]
        train_packed(specs, folders, data_dir=arguments.data_dir, device=arguments.device, on_end=ended)
    except InUse:  # a worker of another scheduler has been faster with one of them
        waiting.clear()
        tell(event="returned", reason="")
    except NotPackable as reason:
        waiting.clear()
        tell(event="returned", reason=f"not packed: {reason}" if job["always"] else "")


def _spec(asked: dict[str, Any]) -> RunSpec:
    from insgd_lab.config import RunSpec

    spec = RunSpec.from_canonical(asked["spec"], asked["plugins"], asked["init_from"])
    if spec.id != asked["run"]:
        raise RuntimeError(f"run {asked['run']} came out as {spec.id}: the registry changed since it was planned")
    return spec


def _folder(spec: RunSpec, arguments: argparse.Namespace) -> RunFolder:
    from insgd_lab.store import StudyFolder

    return StudyFolder(arguments.study).run(spec.id)


def _tell(channel: TextIO, **message: Any) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
