"""Classification sets with fixed splits: small integers in, normalised by tabled constants.

A data set is three splits of uint8 images and int64 labels. The splits are fixed for ever: they are
stratified, drawn from a frozen numpy stream named after the data set, and depend on no seed of a run. `scale`
maps a pixel to [0, 1], `mean` and `std` normalise on that scale; the training loop does both on the device,
batch by batch.

>>> sets = digits()
>>> sets.train.images.shape, sets.train.images.dtype, sets.scale
(torch.Size([1197, 1, 8, 8]), torch.uint8, 16.0)
"""

from __future__ import annotations

import functools
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from insgd_lab.training.files import (
    CIFAR10,
    DataError,
    FileSet,
    FileStatus,
    incomplete,
    locate,
    read_verified,
)
from insgd_lab.training.streams import derive

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W] and their labels int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> Split:
        """The same split on a device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageSplits:
    """A classification set: fixed train, validation and test splits, and how to normalise them.

    Attributes:
        name: the registry's name of the set.
        classes: number of classes; labels run from 0.
        train: the split to train on; val: the one to choose on; test: the one to report on.
        scale: the pixel value that stands for 1.
        mean: per channel, of the training split on the [0, 1] scale.
        std: likewise.
    """

    name: str
    classes: int
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height, width."""
        return tuple(self.train.images.shape[1:])

    def to(self, device: str | torch.device) -> ImageSplits:
        """The same set on a device, as uint8."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))


def digits(data_dir: Path | str | None = None, fraction: float = 1.0) -> ImageSplits:
    """scikit-learn's handwritten digits, 8 x 8 grey, values 0 to 16: 1197 to train, 300 validation, 300 test.

    Args:
        data_dir: not used; the set is embedded in scikit-learn.
        fraction: the part of the training split to keep, stratified; a smaller part is inside every larger
            one.
    """
    return _digits(fraction)


@functools.lru_cache(maxsize=2)
def _digits(fraction: float) -> ImageSplits:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = found.images.astype(np.uint8)[:, None]
    labels = found.target.astype(np.int64)
    train, val, test = stratified_split(labels, (300, 300), "digits")
    kept = train[stratified_fraction(labels[train], fraction, "digits")]
    return ImageSplits(
        "digits",
        10,
        train=_split(images, labels, kept),
        val=_split(images, labels, val),
        test=_split(images, labels, test),
        mean=(0.3049,),
        std=(0.3758,),
        scale=16.0,
    )


def cifar10(data_dir: Path | str | None = None, fraction: float = 1.0, files: FileSet = CIFAR10) -> ImageSplits:
    """CIFAR-10, 32 x 32 colour: 45000 to train, 5000 taken from the authors' training images, 10000 test.

    Args:
        data_dir: the folder that holds cifar-10-batches-py, or that folder itself; None as in
            `files.data_folder`.
        fraction: the part of the training split to keep, stratified; a smaller part is inside every larger
            one.
        files: the published files with their sums.

    Returns:
        The splits, with the normalisation constants of INSGD, section 4.1.

    Raises:
        DataError: a file is missing or is not the published one; the message says how to get it.
    """
    return _cifar10(locate(files, data_dir), fraction, files)


@functools.lru_cache(maxsize=2)
def _cifar10(folder: Path, fraction: float, files: FileSet) -> ImageSplits:
    contents = _read(folder, files)
    batches = [_unpickle(content) for name, content in contents.items() if name.startswith("data_batch")]
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    train, val = stratified_split(labels, (len(labels) // 10,), "cifar10")
    kept = train[stratified_fraction(labels[train], fraction, "cifar10")]
    return ImageSplits(
        "cifar10",
        10,
        train=_split(images, labels, kept),
        val=_split(images, labels, val),
        test=_split(*_unpickle(contents["test_batch"])),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    )


def _read(folder: Path, files: FileSet) -> dict[str, bytes]:
    """The verified contents of every file by name; all missing and wrong files in one error."""
    contents, wrong = {}, []
    for file in files.files:
        path = folder / file.name
        try:
            contents[file.name] = read_verified(path, file)
        except FileNotFoundError:
            wrong.append(FileStatus(path, "missing", "missing", file.expected))
        except (OSError, DataError) as error:
            wrong.append(FileStatus(path, "wrong", str(error), file.expected))
    if wrong:
        raise incomplete("cifar10", files, wrong, folder)
    return contents


def _unpickle(content: bytes) -> tuple[NDArray[np.uint8], Indices]:
    """Images [N, 3, 32, 32] and labels [N] of one batch; only ever called on verified bytes."""
    with warnings.catch_warnings():
        # The authors' pickles of 2009 spell a dtype flag as an integer, which new numpy versions warn about.
        warnings.filterwarnings("ignore", message=".*align")
        batch = pickle.loads(content, encoding="bytes")
    return batch[b"data"].reshape(-1, 3, 32, 32), np.asarray(batch[b"labels"], dtype=np.int64)


def _split(images: NDArray[np.uint8], labels: Indices, rows: Indices | slice = slice(None)) -> Split:
    return Split(torch.from_numpy(images[rows]), torch.from_numpy(labels[rows]))


def stratified_split(labels: Indices, held_out: Sequence[int], name: str) -> list[Indices]:
    """Row numbers of the rest, then of each held-out part, with every class in proportion.

    Args:
        labels: class of each row, [N].
        held_out: sizes of the parts to take out, in order.
        name: names the random stream; equal names and labels give equal splits.

    Returns:
        Ascending row numbers, the remaining rows first; together they are all N rows, once each.
    """
    rows = _shuffled_by_class(labels, f"split of {name}")
    parts = []
    for size in held_out:
        counts = _proportional([len(found) for found in rows], size)
        parts.append(np.sort(np.concatenate([found[:k] for found, k in zip(rows, counts, strict=True)])))
        rows = [found[k:] for found, k in zip(rows, counts, strict=True)]
    return [np.sort(np.concatenate(rows)), *parts]


def stratified_fraction(labels: Indices, fraction: float, name: str) -> Indices:
    """Ascending row numbers of a fixed part of each class, at least one row; smaller fractions nest.

    Raises:
        ValueError: `fraction` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction = {fraction!r}; expected a part of the training split above 0 and at most 1.")
    rows = _shuffled_by_class(labels, f"fraction of {name}")
    return np.sort(np.concatenate([found[: max(1, round(fraction * len(found)))] for found in rows]))


def _shuffled_by_class(labels: Indices, purpose: str) -> list[Indices]:
    stream = np.random.RandomState(derive(0, purpose) % 2**32)  # numpy keeps RandomState's numbers for ever
    return [stream.permutation(np.flatnonzero(labels == k)) for k in np.unique(labels)]


def _proportional(available: Sequence[int], size: int) -> list[int]:
    """Whole shares of `size` in proportion to `available`, by largest remainder (ties: the first class)."""
    shares = [size * count / sum(available) for count in available]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda k: counts[k] - shares[k])
    for k in by_remainder[: size - sum(counts)]:
        counts[k] += 1
    return counts
