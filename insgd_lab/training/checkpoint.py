"""Checkpoints: what a run needs to go on as if it had never stopped, loaded with `weights_only=True`."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from insgd_lab.store import RunFolder, replacing, set_aside

LAYOUT = 3


def save(folder: RunFolder, state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a run beside its place, then rename it."""
    with replacing(folder.checkpoint_path) as temporary, temporary.open("wb") as file:  # so that a full disk is known
        torch.save({"layout": LAYOUT, **state}, file)


def load(folder: RunFolder, run: str) -> dict[str, Any] | None:
    """The checkpoint of the run called `run`, on the CPU; None if there is none to go on from.

    One that is damaged is renamed to checkpoint.pt.damaged-1; one of another layout or run, or that counts on parts
    of the layer records that are gone, is not used. A warning tells: starting over gives the same numbers, only later.
    """
    if not folder.checkpoint_path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(folder.checkpoint_path, map_location="cpu", weights_only=True)
        problem = _problem(state, folder, run)
    except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        problem = f"cannot be read ({reason}) and is set aside as {set_aside(folder.checkpoint_path).name}"
    if problem is None:
        return state
    warnings.warn(f"{folder.checkpoint_path} {problem}; the run starts over", RuntimeWarning, stacklevel=3)
    return None


def _problem(state: Mapping[str, Any], folder: RunFolder, run: str) -> str | None:
    if state["layout"] != LAYOUT:
        return f"has layout {state['layout']}, expected {LAYOUT}"
    if state["run"] != run:
        return f"belongs to run {state['run']}, expected {run}"
    if len(folder.parts()) < state["parts"]:
        return f"counts on {state['parts']} parts of the layer records, of which {len(folder.parts())} are there"
    return None
