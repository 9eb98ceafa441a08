"""Decode Tiny ImageNet's archive of 110,000 small JPEGs once, into arrays that load in a second. No torch.

Of the archive's folders `train` and `val` have labels; `test` has none and is left alone. Classes are in the order of
their names (WordNet's), images in that of their classes and names.

>>> decode(TINY_IMAGENET, Path("tiny-imagenet-200.zip"), folder)
>>> np.load(folder / "train-images.npy").shape
(100000, 3, 64, 64)
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from insgd_lab.store import replacing
from insgd_lab.training.file_sets import DataFile, FileSet
from insgd_lab.training.files import DataError, Manifest, describe, md5_of, write_manifest

__all__ = ["PARTS", "Counted", "decode"]

PARTS = ("train", "val")
"""The parts with labels; of each there are `NAME-images.npy`, uint8 [N, 3, 64, 64], and `NAME-labels.npy`, [N]."""

_SIZE = 64
_TRAIN = re.compile(r"(?:.*/)?train/([^/]+)/images/[^/]+\.JPEG")
_VAL = re.compile(r"(?:.*/)?val/images/([^/]+\.JPEG)")

T = TypeVar("T")
Counted = Callable[[Sequence[tuple[str, str]]], Iterable[tuple[str, str]]]
"""Passes on (member, class) pairs one by one, and may show how many have passed."""


def decode(files: FileSet, source: Path, folder: Path, counted: Counted = iter) -> None:
    """Write the arrays of the archive `source` into `folder`, and last of all their manifest.

    Args:
        files: the set, which has the archive's MD5.
        source: the archive.
        folder: where the arrays belong.
        counted: passes on what is decoded, part by part.

    Raises:
        DataError: the archive is not there or not the published one.
    """
    _check_archive(files, source)
    with zipfile.ZipFile(source) as archive:
        members = {"train": _train_members(archive), "val": _val_members(archive)}
        classes = tuple(sorted({label for _, label in members["train"]}))
        made = [file for part in PARTS for file in _write(archive, members[part], classes, folder, part, counted)]
    write_manifest(files, folder, Manifest(classes, tuple(made)))


def _check_archive(files: FileSet, source: Path) -> None:
    expected = f"expected {files.archive} (MD5 {files.archive_md5}) from {files.page}"
    if not source.is_file():
        state = "is a folder" if source.is_dir() else "is not there"
        raise DataError(f"{source} {state}; give --source the path of {files.archive}: {expected}.")
    digest = md5_of(source)
    if digest != files.archive_md5:
        raise DataError(f"{source}: {describe(source.stat().st_size, digest)}, {expected}; fetch it again.")


def _train_members(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    """The training images in order, each with its class, which is its folder."""
    found = [match for name in archive.namelist() if (match := _TRAIN.fullmatch(name))]
    return sorted(((match[0], match[1]) for match in found), key=lambda pair: pair[::-1])


def _val_members(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    """The validation images in order, each with its class, which is in a table beside them."""
    table = next(name for name in archive.namelist() if name.endswith("val/val_annotations.txt"))
    lines = archive.read(table).decode().splitlines()
    labels = {image: label for image, label, *_ in (line.split("\t") for line in lines if line)}
    found = [match for name in archive.namelist() if (match := _VAL.fullmatch(name))]
    return sorted(((match[0], labels[match[1]]) for match in found), key=lambda pair: pair[::-1])


def _write(
    archive: zipfile.ZipFile,
    members: Sequence[tuple[str, str]],
    classes: Sequence[str],
    folder: Path,
    part: str,
    counted: Counted,
) -> list[DataFile]:
    """Write a part's two arrays, the images one by one, so that no more than one is in memory."""
    from insgd_lab.training.decoding import decoded, pixels  # Pillow: not needed to copy files

    with replacing(folder / f"{part}-images.npy") as temporary:
        shape = (len(members), 3, _SIZE, _SIZE)
        images = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        for row, (member, _) in enumerate(counted(members)):
            images[row] = pixels(decoded(io.BytesIO(archive.read(member))))
        images.flush()
        del images
    numbers = {name: k for k, name in enumerate(classes)}
    with replacing(folder / f"{part}-labels.npy") as temporary, temporary.open("wb") as out:
        np.save(out, np.array([numbers[label] for _, label in members], dtype=np.int64))
    written = [folder / f"{part}-{what}.npy" for what in ("images", "labels")]
    return [DataFile(path.name, path.stat().st_size, md5_of(path)) for path in written]
