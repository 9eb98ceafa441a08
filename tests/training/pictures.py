"""Folders of small pictures for the tests: of each, the class can be told from the colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("apple", "pear", "plum")
STEP = 80  # the level of red is this many times the class


def picture(path: Path, number: int, seed: int, size: tuple[int, int] = (40, 24)) -> None:
    """A noisy picture whose red is of class `number` everywhere, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    levels[:, :, 0] = STEP * number
    Image.fromarray(levels).save(path)


def pictures(folder: Path, counts: Mapping[str, int], ending: str = ".png", **options: tuple[int, int]) -> Path:
    """So many pictures of each class in its folder; the classes are numbered as sorted."""
    for number, (name, count) in enumerate(sorted(counts.items())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture(folder / name / f"{i:03}{ending}", number, seed=1000 * number + i, **options)
    return folder


def each(count: int) -> dict[str, int]:
    """So many of every class."""
    return dict.fromkeys(CLASSES, count)
