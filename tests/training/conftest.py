import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from insgd_lab.training.files import CIFAR10, DataFile, FileSet


@pytest.fixture
def tiny_cifar(tmp_path) -> tuple[Path, FileSet]:
    """A data folder with a CIFAR-10 of 40 random images a batch in the authors' format, and its sums."""
    folder = tmp_path / "data" / CIFAR10.folder
    folder.mkdir(parents=True)
    stream = np.random.RandomState(0)
    files = []
    for file in CIFAR10.files:
        batch = {b"label_names": []} if file.name == "batches.meta" else tiny_batch(stream)
        content = pickle.dumps(batch, protocol=2)
        (folder / file.name).write_bytes(content)
        files.append(DataFile(file.name, len(content), hashlib.md5(content).hexdigest()))
    return tmp_path / "data", replace(CIFAR10, files=tuple(files))


def tiny_batch(stream: np.random.RandomState) -> dict[bytes, object]:
    labels = stream.permutation(np.arange(40) % 10)
    return {b"data": stream.randint(0, 256, (40, 3072)).astype(np.uint8), b"labels": labels.tolist()}
