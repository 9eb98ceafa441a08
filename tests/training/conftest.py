import gzip
import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from insgd_lab.training.data import ImageSplits, cifar10, cifar100, fashion_mnist
from insgd_lab.training.file_sets import CIFAR10, CIFAR100, FASHION_MNIST, DataFile, FileSet


class Tiny(NamedTuple):
    """A small set of random images in the authors' format: where it lies, its sums, and who reads it."""

    name: str
    data: Path
    files: FileSet
    factory: Callable[..., ImageSplits]

    @property
    def folder(self) -> Path:
        return self.data / self.files.folder

    @property
    def sets(self) -> Mapping[str, FileSet]:
        return {self.name: self.files}


def written(data: Path, files: FileSet, contents: Mapping[str, bytes]) -> FileSet:
    """Write the contents where `files` belong; the same set with their sizes and sums."""
    (data / files.folder).mkdir(parents=True)
    for name, content in contents.items():
        (data / files.folder / name).write_bytes(content)
    sums = [DataFile(name, len(content), hashlib.md5(content).hexdigest()) for name, content in contents.items()]
    return replace(files, files=tuple(sums))


def labels_of(stream: np.random.RandomState, count: int, classes: int) -> np.ndarray:
    return stream.permutation(np.arange(count) % classes)


def cifar_batch(stream: np.random.RandomState, count: int, classes: int, key: bytes) -> bytes:
    pixels = stream.randint(0, 256, (count, 3072)).astype(np.uint8)
    return pickle.dumps({b"data": pixels, key: labels_of(stream, count, classes).tolist()}, protocol=2)


def idx(array: np.ndarray) -> bytes:
    """As the authors write it: two zeros, the type, the number of dimensions, their sizes, the bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes(), mtime=0)


def tiny_cifar10_at(data: Path) -> Tiny:
    """Forty images a batch."""
    stream = np.random.RandomState(0)
    contents = {
        file.name: pickle.dumps({b"label_names": []}, protocol=2)
        if file.name == "batches.meta"
        else cifar_batch(stream, 40, 10, b"labels")
        for file in CIFAR10.files
    }
    return Tiny("cifar10", data, written(data, CIFAR10, contents), cifar10)


def tiny_cifar100_at(data: Path) -> Tiny:
    """A thousand images to train, a hundred to test."""
    stream = np.random.RandomState(1)
    parts = {name: cifar_batch(stream, n, 100, b"fine_labels") for name, n in (("train", 1000), ("test", 100))}
    contents = {**parts, "meta": pickle.dumps({b"fine_label_names": []}, protocol=2)}
    return Tiny("cifar100", data, written(data, CIFAR100, contents), cifar100)


def tiny_fashion_at(data: Path) -> Tiny:
    """Two hundred images to train, forty to test; the first pixel of each is its label."""
    stream, contents = np.random.RandomState(2), {}
    for part, count in (("train", 200), ("t10k", 40)):
        labels, images = labels_of(stream, count, 10), stream.randint(0, 256, (count, 28, 28))
        images[:, 0, 0] = labels
        contents[f"{part}-images-idx3-ubyte.gz"] = idx(images)
        contents[f"{part}-labels-idx1-ubyte.gz"] = idx(labels)
    return Tiny("fashion-mnist", data, written(data, FASHION_MNIST, contents), fashion_mnist)


@pytest.fixture(params=[tiny_cifar10_at, tiny_cifar100_at, tiny_fashion_at], ids=["cifar10", "cifar100", "fashion"])
def tiny_set(request: pytest.FixtureRequest, tmp_path: Path) -> Tiny:
    """Each set with files, one after the other."""
    made: Tiny = request.param(tmp_path / "data")
    return made


@pytest.fixture
def tiny_cifar(tmp_path: Path) -> tuple[Path, FileSet]:
    """A data folder with a CIFAR-10, and its sums."""
    made = tiny_cifar10_at(tmp_path / "data")
    return made.data, made.files


@pytest.fixture
def tiny_cifar100(tmp_path: Path) -> Tiny:
    return tiny_cifar100_at(tmp_path / "data")


@pytest.fixture
def tiny_fashion(tmp_path: Path) -> Tiny:
    return tiny_fashion_at(tmp_path / "data")
