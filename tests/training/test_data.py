import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab.training.data import cifar10, cifar100, digits, fashion_mnist
from insgd_lab.training.files import DataError, data_status
from insgd_lab.training.splits import Split, stratified_split

label_lists = st.lists(st.integers(0, 4), min_size=10, max_size=200)


@given(label_lists, st.integers(1, 4), st.integers(1, 4))
def test_splits_are_disjoint_complete_and_in_proportion(labels, first, second):
    labels = np.array(labels)
    parts = stratified_split(labels, (first, second), "test")
    assert [len(part) for part in parts] == [len(labels) - first - second, first, second]
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    for k in range(5):
        share = first * (labels == k).mean()
        assert abs((labels[parts[1]] == k).sum() - share) < 1


def rows(split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


def test_digits_are_split_once_and_for_all():
    sets = digits()
    assert [len(sets.train), len(sets.val), len(sets.test)] == [1197, 300, 300]
    assert sets.input_shape == (1, 8, 8)
    assert sets.train.images.dtype == torch.uint8
    assert sets.train.labels.dtype == torch.int64
    assert not rows(sets.train) & rows(sets.test)
    assert not rows(sets.val) & rows(sets.test)
    for split in (sets.train, sets.val, sets.test):
        shares = split.labels.bincount(minlength=10) / len(split)
        assert float((shares - 0.1).abs().max()) < 0.01
    assert sets.val.labels[:8].tolist() == [
        2,
        4,
        8,
        2,
        5,
        7,
        4,
        5,
    ]  # the split itself must not move between versions


def test_digits_constants_are_those_of_the_training_split():
    sets = digits()
    pixels = sets.train.images.double() / sets.scale
    assert float(pixels.max()) == 1
    assert sets.mean == pytest.approx([float(pixels.mean())], abs=5e-5)
    assert sets.std == pytest.approx([float(pixels.std())], abs=5e-5)


def test_cifar10_reads_the_authors_format(tiny_cifar):
    data, files = tiny_cifar
    sets = cifar10(data, files=files)
    assert sets.input_shape == (3, 32, 32)
    assert [len(sets.train), len(sets.val), len(sets.test)] == [180, 20, 40]
    assert sets.val.labels.bincount().tolist() == [2] * 10
    assert len(rows(sets.train) | rows(sets.val) | rows(sets.test)) == 240
    assert sets is cifar10(data, files=files)  # read once per process


def test_cifar10_names_all_bad_files_before_it_unpickles_any(tiny_cifar):
    data, files = tiny_cifar
    folder = data / files.folder
    (folder / "data_batch_2").write_bytes(b"cos\nsystem\n(S'echo unpickled'\ntR.")
    (folder / "test_batch").unlink()
    with pytest.raises(DataError, match=r"(?s)data_batch_2: found 33 bytes.*test_batch: missing"):
        cifar10(data, files=files)


def test_cifar100_reads_the_fine_labels(tiny_cifar100):
    sets = cifar100(tiny_cifar100.data, files=tiny_cifar100.files)
    assert sets.input_shape == (3, 32, 32)
    assert sets.classes == 100
    for split, each in ((sets.train, 9), (sets.val, 1), (sets.test, 1)):
        assert split.labels.bincount().tolist() == [each] * 100
    assert len(rows(sets.train) | rows(sets.val) | rows(sets.test)) == 1100


def test_fashion_mnist_reads_each_label_with_its_image(tiny_fashion):
    sets = fashion_mnist(tiny_fashion.data, files=tiny_fashion.files)
    assert sets.input_shape == (1, 28, 28)
    assert [len(sets.train), len(sets.val), len(sets.test)] == [180, 20, 40]
    for split in (sets.train, sets.val, sets.test):
        assert torch.equal(split.images[:, 0, 0, 0].long(), split.labels)
    assert sets.val.labels.bincount().tolist() == [2] * 10


def test_every_set_is_read_once_however_much_of_it_is_kept(tiny_set):
    whole = tiny_set.factory(tiny_set.data, files=tiny_set.files)
    (tiny_set.folder / tiny_set.files.files[0].name).unlink()
    part = tiny_set.factory(tiny_set.data, shots=2, files=tiny_set.files)
    assert part.test is whole.test
    assert part.name == whole.name == tiny_set.name


def test_no_set_is_read_from_a_wrong_file(tiny_set):
    first, second, *_ = tiny_set.files.files
    path = tiny_set.folder / first.name
    path.write_bytes(path.read_bytes()[:-1])
    (tiny_set.folder / second.name).unlink()
    with pytest.raises(DataError, match=rf"(?s){first.name}: found {first.size - 1} bytes.*{second.name}: missing"):
        tiny_set.factory(tiny_set.data, files=tiny_set.files)


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Callable[[str], Path]:
    """Where a set's real files are: $INSGD_LAB_DATA or ../shared/data, unpacked if they are packed there."""

    def find(name: str) -> Path:
        checkout = Path(__file__).resolve().parents[2]
        for place in filter(None, (os.environ.get("INSGD_LAB_DATA"), checkout.parent / "shared" / "data")):
            if all(status.state == "ok" for status in data_status(name, place)):
                return Path(place)
            if (Path(place) / "unpack.py").is_file():
                pytest.importorskip("PIL", reason="the packed CIFAR sets need Pillow")
                target = tmp_path_factory.mktemp(name)
                command = [sys.executable, str(Path(place) / "unpack.py"), "--dest", str(target), name]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                return target
        pytest.skip(f"no {name} in $INSGD_LAB_DATA or ../shared/data")

    return find


def constants(split, scale) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel on the [0, 1] scale, from the counts of each pixel value."""
    levels = torch.arange(256).double() / scale
    counts = [channel.flatten().bincount(minlength=256).double() for channel in split.images.transpose(0, 1)]
    means = [float(levels @ count / count.sum()) for count in counts]
    spreads = [float((levels - mean).square() @ c / c.sum()) ** 0.5 for mean, c in zip(means, counts, strict=True)]
    return means, spreads


# The first labels of the validation split: the splits must not move between versions.
REAL = {
    "fashion-mnist": (fashion_mnist, (54000, 6000, 10000), 10, [2, 2, 0, 8, 6, 7, 3, 2]),
    "cifar100": (cifar100, (45000, 5000, 10000), 100, [97, 64, 87, 71, 20, 89, 75, 99]),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_are_read_whole_and_the_constants_are_theirs(real, name):
    factory, sizes, classes, first = REAL[name]
    sets = factory(real(name))
    for split, size in zip((sets.train, sets.val, sets.test), sizes, strict=True):
        assert split.labels.bincount().tolist() == [size // classes] * classes
    assert sets.val.labels[:8].tolist() == first
    means, spreads = constants(sets.train, sets.scale)
    assert sets.mean == pytest.approx(means, abs=5.1e-5)
    assert sets.std == pytest.approx(spreads, abs=5.1e-5)


def test_the_real_cifar10_is_read_whole(real):
    sets = cifar10(real("cifar10"))
    assert [len(sets.train), len(sets.val), len(sets.test)] == [45000, 5000, 10000]
    for split, each in ((sets.train, 4500), (sets.val, 500), (sets.test, 1000)):
        assert split.labels.bincount().tolist() == [each] * 10
    means, _ = constants(sets.train, sets.scale)
    assert means == pytest.approx(sets.mean, abs=5e-4)  # the paper's, of all the authors' training images


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (torch.rand(3, 1, 4, 4), torch.arange(3), TypeError, "images of torch.float32: a split expects torch.uint8"),
        (torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.rand(3), TypeError, "labels of torch.float32"),
        (torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.arange(4), ValueError, "3 images and 4 labels"),
    ],
)
def test_a_split_of_other_things_is_refused(images, labels, error, message):
    with pytest.raises(error, match=message):
        Split(images, labels)
