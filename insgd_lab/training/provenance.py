"""What a result must carry to be traced: versions, commit, device. No torch; looked up once per process."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import insgd_lab


@functools.cache
def versions() -> Mapping[str, str]:
    """Versions of the lab, of Python, and of the libraries whose arithmetic the numbers come from."""
    libraries = {
        name.replace("-", "_"): version(name) for name in ("insgd-lab", "torch", "torchvision", "pillow", "numpy")
    }
    return MappingProxyType({**libraries, "python": platform.python_version()})


@functools.cache
def commit() -> tuple[str | None, bool | None]:
    """Commit of the lab's own checkout, and whether tracked files differ; (None, None) if not known.

    An installed lab knows it from whoever installed it: INSGD_LAB_COMMIT is a commit, with "-dirty" behind it
    where tracked files differed.
    """
    told = os.environ.get("INSGD_LAB_COMMIT")
    if told:
        return told.removesuffix("-dirty"), told.endswith("-dirty")
    root = Path(insgd_lab.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None, None
    head, changes = _git(root, "rev-parse", "--verify", "HEAD"), _git(root, "status", "--porcelain", "-uno")
    return (head or None, None if changes is None else bool(changes))


def _git(root: Path, *arguments: str) -> str | None:
    # A hook's GIT_DIR would point git at another repository; the lock is for whoever works in this one.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@functools.cache
def device_name(device: str) -> str:
    """A device in words: the processor's model for the CPU, the card's for a GPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
