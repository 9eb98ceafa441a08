"""An arm crossed in full whose scores are given by a function of its levels and the seed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from types import MappingProxyType

import numpy as np
import pandas as pd

from insgd_lab.analysis.runs import Arm, Cell, Study, key_of

ARM = "arm"


def crossed_study(study: Study, axes: dict, score: Callable[..., float], seeds: int = 4, tune=MappingProxyType({})):
    """`study` with one arm whose test and validation error is `score(seed, **settings)`, as a fraction."""
    tunes = [dict(zip(tune, values, strict=True)) for values in itertools.product(*tune.values())]
    cells = [Cell(ARM, dict(zip(axes, values, strict=True)), None) for values in itertools.product(*axes.values())]
    rows = []
    for cell, tuned, seed in itertools.product(cells, tunes, range(seeds)):
        error = score(seed, **cell.settings, **tuned)
        run = f"{cell.key}{key_of(tuned)}{seed}"
        rows.append((ARM, cell.key, key_of(tuned), seed, run, "done", run, error, error, error, error, error))
    names = ["arm", "cell", "tune", "seed", "run", "status", "digest"]
    scores = ["val_error", "val_loss", "test_error", "test_loss", "best_test_error"]
    frame = pd.DataFrame(rows, columns=[*names, *scores])
    first = {name: values[0] for name, values in axes.items()}
    fixed = {name: values[0] for name, values in tune.items()}
    arm = Arm(ARM, ARM, "insgd-lp", {}, "full", axes, first, dict(tune), fixed)
    made = dataclasses.replace(
        study,
        arms={ARM: arm},
        cells={(ARM, cell.key): cell for cell in cells},
        plan=frame[["arm", "cell", "tune", "seed", "run"]],
        tunes={key_of(tuned): tuned for tuned in tunes},
    )
    made.__dict__["scores"] = frame
    return made


def noise(*words: object) -> float:
    """A number from the standard normal distribution, the same for the same words."""
    return float(np.random.default_rng(list(str(words).encode())).normal())
