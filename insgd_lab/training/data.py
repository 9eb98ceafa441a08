"""The classification sets with fixed splits: small integers in, normalised by tabled constants.

A data set is three splits of uint8 images and int64 labels (see `splits`); of the training split a part may be kept
(see `subsets`). `scale` maps a pixel to [0, 1], `mean` and `std` normalise on that scale; the training loop does both
on the device, batch by batch. The files of a set are read and verified once per process.

>>> sets = digits()
>>> sets.train.images.shape, sets.train.images.dtype, sets.scale
(torch.Size([1197, 1, 8, 8]), torch.uint8, 16.0)
"""

from __future__ import annotations

import functools
import gzip
import pickle
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from insgd_lab.training.file_sets import CIFAR10, CIFAR100, FASHION_MNIST, TINY_IMAGENET, FileSet
from insgd_lab.training.files import check_in, locate, read_all, read_manifest
from insgd_lab.training.splits import ImageSplits, Indices, Split, stratified_split
from insgd_lab.training.subsets import Subset

__all__ = ["ImageSplits", "Split", "cifar10", "cifar100", "digits", "fashion_mnist", "tiny_imagenet"]

Arrays = tuple[NDArray[np.uint8], Indices]


def digits(
    data_dir: Path | str | None = None,
    fraction: float = 1.0,
    shots: int | None = None,
    imbalance: str = "none",
    imbalance_ratio: float = 10.0,
) -> ImageSplits:
    """scikit-learn's handwritten digits, 8 x 8 grey, values 0 to 16: 1197 to train, 300 validation, 300 test.

    Args:
        data_dir: not used; the set is embedded in scikit-learn.
        fraction: what is kept of the training split; this and the rest as in `Subset`.
        shots: as there.
        imbalance: as there.
        imbalance_ratio: as there.

    Raises:
        ValueError: an impossible subset.
    """
    return Subset(fraction, shots, imbalance, imbalance_ratio).of(_digits())


@functools.cache
def _digits() -> ImageSplits:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = found.images.astype(np.uint8)[:, None]
    labels = found.target.astype(np.int64)
    train, val, test = stratified_split(labels, (300, 300), "digits")
    return ImageSplits(
        "digits",
        10,
        train=_split(images, labels, train),
        val=_split(images, labels, val),
        test=_split(images, labels, test),
        mean=(0.3049,),
        std=(0.3758,),
        scale=16.0,
    )


def fashion_mnist(
    data_dir: Path | str | None = None,
    fraction: float = 1.0,
    shots: int | None = None,
    imbalance: str = "none",
    imbalance_ratio: float = 10.0,
    *,
    files: FileSet = FASHION_MNIST,
) -> ImageSplits:
    """Fashion-MNIST, 28 x 28 grey: 54000 to train, 6000 taken from the authors' training images, 10000 test.

    Args:
        data_dir: the folder that holds FashionMNIST/raw, or a folder on the way there; None as in `files.data_folder`.
        fraction: what is kept of the training split; this and the next three as in `Subset`.
        shots: as there.
        imbalance: as there.
        imbalance_ratio: as there.
        files: the published files with their sums.

    Raises:
        DataError: a file is missing or is not the published one; the message says how to get it.
        ValueError: an impossible subset.
    """
    return Subset(fraction, shots, imbalance, imbalance_ratio).of(_fashion_mnist(locate(files, data_dir), files))


@functools.lru_cache(maxsize=1)
def _fashion_mnist(folder: Path, files: FileSet) -> ImageSplits:
    contents = read_all("fashion-mnist", files, folder)

    def part(name: str) -> tuple[NDArray[np.uint8], Indices]:
        images, labels = (_idx(contents[f"{name}-{what}-ubyte.gz"]) for what in ("images-idx3", "labels-idx1"))
        return images[:, None], labels.astype(np.int64)  # one channel

    return _tenth_held_out("fashion-mnist", 10, part("train"), part("t10k"), (0.2862,), (0.3531,))


def cifar10(
    data_dir: Path | str | None = None,
    fraction: float = 1.0,
    shots: int | None = None,
    imbalance: str = "none",
    imbalance_ratio: float = 10.0,
    *,
    files: FileSet = CIFAR10,
) -> ImageSplits:
    """CIFAR-10, 32 x 32 colour: 45000 to train, 5000 taken from the authors' training images, 10000 test.

    Arguments and errors as in `fashion_mnist`; the files lie in cifar-10-batches-py. The normalisation constants are
    those of INSGD, section 4.1.
    """
    return Subset(fraction, shots, imbalance, imbalance_ratio).of(_cifar10(locate(files, data_dir), files))


@functools.lru_cache(maxsize=1)
def _cifar10(folder: Path, files: FileSet) -> ImageSplits:
    contents = read_all("cifar10", files, folder)
    batches = [_unpickle(content, b"labels") for name, content in contents.items() if name.startswith("data_batch")]
    train = np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])
    test = _unpickle(contents["test_batch"], b"labels")
    return _tenth_held_out("cifar10", 10, train, test, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def cifar100(
    data_dir: Path | str | None = None,
    fraction: float = 1.0,
    shots: int | None = None,
    imbalance: str = "none",
    imbalance_ratio: float = 10.0,
    *,
    files: FileSet = CIFAR100,
) -> ImageSplits:
    """CIFAR-100 with its 100 fine labels, 32 x 32 colour: split as `cifar10`, 450 of each class to train.

    Arguments and errors as in `fashion_mnist`; the files lie in cifar-100-python.
    """
    return Subset(fraction, shots, imbalance, imbalance_ratio).of(_cifar100(locate(files, data_dir), files))


@functools.lru_cache(maxsize=1)
def _cifar100(folder: Path, files: FileSet) -> ImageSplits:
    contents = read_all("cifar100", files, folder)
    train, test = (_unpickle(contents[name], b"fine_labels") for name in ("train", "test"))
    return _tenth_held_out("cifar100", 100, train, test, (0.5069, 0.4864, 0.4406), (0.2674, 0.2565, 0.2762))


def tiny_imagenet(
    data_dir: Path | str | None = None,
    fraction: float = 1.0,
    shots: int | None = None,
    imbalance: str = "none",
    imbalance_ratio: float = 10.0,
    *,
    files: FileSet = TINY_IMAGENET,
) -> ImageSplits:
    """Tiny ImageNet, 64 x 64 colour, 200 classes: 90000 to train, 10000 taken from the authors' training images.

    The test split is the authors' validation split of 10000: of their test images the labels are not published.
    Arguments and errors as in `fashion_mnist`; the files in tiny-imagenet are those that `insgd-lab data prepare`
    decodes from the authors' archive. The normalisation constants are those that others give for the training images;
    this lab has not measured them.
    """
    return Subset(fraction, shots, imbalance, imbalance_ratio).of(_tiny_imagenet(locate(files, data_dir), files))


@functools.lru_cache(maxsize=1)
def _tiny_imagenet(folder: Path, files: FileSet) -> ImageSplits:
    check_in("tiny-imagenet", files, folder)
    # Mapped: of a gigabyte of training images each is copied once, into its split.
    images = np.asarray(np.load(folder / "train-images.npy", mmap_mode="r"))
    train = images, np.load(folder / "train-labels.npy")
    test = np.load(folder / "val-images.npy"), np.load(folder / "val-labels.npy")
    classes = len(read_manifest(files, folder).classes)
    mean, std = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)
    return _tenth_held_out("tiny-imagenet", classes, train, test, mean, std)


def _tenth_held_out(
    name: str, classes: int, train: Arrays, test: Arrays, mean: tuple[float, ...], std: tuple[float, ...]
) -> ImageSplits:
    """A set whose authors give no validation split: a tenth of their training images becomes one."""
    kept, held_out = stratified_split(train[1], (len(train[1]) // 10,), name)
    splits = _split(*train, kept), _split(*train, held_out), _split(*test)
    return ImageSplits(name, classes, *splits, mean=mean, std=std)


def _split(images: NDArray[np.uint8], labels: Indices, rows: Indices | slice = slice(None)) -> Split:
    return Split(torch.from_numpy(images[rows]), torch.from_numpy(labels[rows]))


def _unpickle(content: bytes, labels: bytes) -> Arrays:
    """Images [N, 3, 32, 32] and the labels of that name, [N]; only ever called on verified bytes."""
    with warnings.catch_warnings():
        # The authors' pickles of 2009 spell a dtype flag as an integer, which new numpy versions warn about.
        warnings.filterwarnings("ignore", message=".*align")
        batch = pickle.loads(content, encoding="bytes")
    return batch[b"data"].reshape(-1, 3, 32, 32), np.asarray(batch[labels], dtype=np.int64)


def _idx(content: bytes) -> NDArray[np.uint8]:
    """The array in a gzipped idx file of bytes; its fourth byte counts the dimensions, whose sizes follow."""
    content = gzip.decompress(content)
    sizes = np.frombuffer(content, ">i4", content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + sizes.nbytes).reshape(sizes).copy()
