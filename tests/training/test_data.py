import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab.training.data import cifar10, digits, stratified_fraction, stratified_split
from insgd_lab.training.files import DataError, data_status

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


@given(label_lists, st.floats(0.01, 1), st.floats(0.01, 1))
def test_fractions_nest_and_hold_every_class(labels, one, two):
    labels = np.array(labels)
    smaller, larger = (set(stratified_fraction(labels, f, "test")) for f in sorted((one, two)))
    assert smaller <= larger
    assert set(labels[list(smaller)]) == set(labels)
    assert set(stratified_fraction(labels, 1.0, "test")) == set(range(len(labels)))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_an_impossible_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=r"fraction = .*above 0 and at most 1"):
        digits(fraction=fraction)


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


def test_a_fraction_shortens_the_training_split_only():
    whole, part = digits(), digits(fraction=0.25)
    assert len(part.train) == pytest.approx(0.25 * len(whole.train), abs=5)
    assert rows(part.train) < rows(whole.train)
    assert torch.equal(part.test.images, whole.test.images)
    assert torch.equal(part.val.images, whole.val.images)


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


@pytest.fixture(scope="module")
def real_cifar(tmp_path_factory) -> Path:
    """The real files: below $INSGD_LAB_DATA or ../shared/data, unpacked if they are packed there."""
    checkout = Path(__file__).resolve().parents[2]
    for place in filter(None, (os.environ.get("INSGD_LAB_DATA"), checkout.parent / "shared" / "data")):
        if all(status.state == "ok" for status in data_status("cifar10", place)):
            return Path(place)
        if (Path(place) / "unpack.py").is_file():
            pytest.importorskip("PIL", reason="the packed CIFAR-10 needs Pillow")
            target = tmp_path_factory.mktemp("data")
            command = [sys.executable, str(Path(place) / "unpack.py"), "--dest", str(target), "cifar10"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return target
    pytest.skip("no CIFAR-10 in $INSGD_LAB_DATA or ../shared/data")


def test_the_real_cifar10_is_read_whole(real_cifar):
    sets = cifar10(real_cifar)
    assert [len(sets.train), len(sets.val), len(sets.test)] == [45000, 5000, 10000]
    for split, each in ((sets.train, 4500), (sets.val, 500), (sets.test, 1000)):
        assert split.labels.bincount().tolist() == [each] * 10
    pixels = sets.train.images.float().mean((0, 2, 3)) / sets.scale
    assert pixels.tolist() == pytest.approx(sets.mean, abs=5e-4)
