import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from insgd_lab import registry
from insgd_lab.config import ConfigError, RunSpec
from insgd_lab.training import availability, image_folders
from insgd_lab.training.files import DataError
from insgd_lab.training.folder_data import image_folder, imagenet
from insgd_lab.training.image_folders import list_images, read_layout
from insgd_lab.training.imagenet import ImageNet, imagenet_status
from insgd_lab.training.loop import train
from insgd_lab.training.splits import ImageSplits
from insgd_lab.training.streaming import StreamedSplits

from .pictures import CLASSES, STEP, each, picture, pictures

SMALL = {"size": 16}


@pytest.fixture
def fruit(tmp_path: Path) -> Path:
    """A folder of three classes of ten pictures, not split."""
    return pictures(tmp_path / "fruit", each(10))


def right(split) -> bool:
    """Whether every picture has the colour of its label."""
    return bool((split.images[:, 0] == STEP * split.labels[:, None, None]).all())


def images_of(split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


def test_pictures_are_decoded_fitted_and_labelled_by_their_folders(fruit):
    sets = image_folder(path=str(fruit), **SMALL)
    assert isinstance(sets, ImageSplits)
    assert (sets.classes, sets.input_shape) == (3, (3, 16, 16))
    for split, count in ((sets.train, 8), (sets.val, 1), (sets.test, 1)):
        assert split.images.dtype == torch.uint8
        assert split.labels.bincount().tolist() == [count] * 3
        assert right(split)
    assert len(images_of(sets.train) | images_of(sets.val) | images_of(sets.test)) == 30
    assert sets is image_folder(path=str(fruit), **SMALL)


def test_the_split_hangs_on_the_files_and_not_on_where_they_lie(fruit, tmp_path):
    moved = shutil.copytree(fruit, tmp_path / "elsewhere" / "fruit")
    here, there = (image_folder(path=str(folder), **SMALL) for folder in (fruit, moved))
    assert torch.equal(here.val.images, there.val.images)
    assert torch.equal(here.test.images, there.test.images)


def test_folders_of_splits_are_kept_as_they_are(tmp_path):
    for split, count in (("train", 8), ("val", 2), ("test", 3)):
        pictures(tmp_path / split, each(count))
    sets = image_folder(path=str(tmp_path), **SMALL)
    assert [len(split) for split in (sets.train, sets.val, sets.test)] == [24, 6, 9]
    assert right(sets.test)


@pytest.mark.parametrize(("there", "sizes"), [("val", (24, 6, 6)), ("test", (24, 6, 6))])
def test_a_split_without_a_folder_is_held_out_of_the_training_pictures(tmp_path, there, sizes):
    pictures(tmp_path / "train", each(10))
    pictures(tmp_path / there, each(2))
    missing = {"val": "test", "test": "val"}[there]
    sets = image_folder(path=str(tmp_path), **{f"{missing}_share": 0.2}, **SMALL)
    assert tuple(map(len, (sets.train, sets.val, sets.test))) == sizes
    given = {"val": sets.val, "test": sets.test}[there]
    rows = list_images(tmp_path / there)
    assert np.array_equal(given.labels.numpy(), rows.labels)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("there", ["val", "test"])
def test_a_share_of_a_split_that_is_there_is_refused_for_nothing_reads_it(tmp_path, there, stream):
    for split in ("train", there):
        pictures(tmp_path / split, each(10))
    train(spec(tmp_path, stream=stream, **{f"{there}_share": 0.1}))
    found = re.escape(f"task.data.{there}_share = 0.2: is not read, for {tmp_path / there} has that split already")
    with pytest.raises(ConfigError, match=found):
        train(spec(tmp_path, stream=stream, **{f"{there}_share": 0.2}))


def test_a_relative_path_lies_below_the_data_folder(fruit, monkeypatch, tmp_path):
    monkeypatch.setenv("INSGD_LAB_DATA", str(tmp_path))
    monkeypatch.chdir("/")
    assert len(image_folder(path="fruit", **SMALL).train) == 24
    assert len(image_folder(tmp_path, path="fruit", **SMALL).train) == 24
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(image_folder("/nowhere", path="~/fruit", **SMALL).train) == 24


def test_order_is_by_name_and_what_is_no_picture_is_passed_over(fruit):
    (fruit / "notes.txt").write_text("")
    (fruit / ".git").mkdir()
    (fruit / "pear" / "._003.png").write_text("")
    (fruit / "pear" / "Thumbs.db").write_text("")
    (fruit / "pear" / "inside.png").mkdir()
    shutil.copy(fruit / "pear" / "001.png", fruit / "pear" / "000bird.PNG")
    found = list_images(fruit)
    assert found.classes == CLASSES
    assert found.counts() == [10, 11, 10]
    names = [found.path(row).relative_to(fruit).as_posix() for row in range(len(found))]
    assert names == sorted(names)
    assert "pear/000bird.PNG" in names


def test_names_may_be_anything_that_the_file_system_takes(fruit):
    shutil.copy(fruit / "pear" / "001.png", fruit / "pear" / "Größe – 猫.png")
    found = list_images(fruit)
    assert all(found.path(row).is_file() for row in range(len(found)))


@pytest.mark.parametrize("stream", [False, True])
def test_less_can_be_kept_of_the_training_pictures(fruit, stream):
    sets = image_folder(path=str(fruit), shots=2, stream=stream, **SMALL)
    labels = torch.as_tensor(sets.train.labels)
    assert labels.bincount().tolist() == [2] * 3
    assert sets.by_class
    assert (len(sets.val), len(sets.test)) == (3, 3)
    whole = image_folder(path=str(fruit), stream=stream, **SMALL)
    assert len(whole.train) == 24
    assert not whole.by_class


def test_streamed_and_held_splits_are_the_same(fruit):
    held, streamed = (image_folder(path=str(fruit), stream=stream, **SMALL) for stream in (False, True))
    assert isinstance(streamed, StreamedSplits)
    assert (streamed.classes, streamed.input_shape) == (held.classes, held.input_shape)
    for name in ("train", "val", "test"):
        assert getattr(streamed, name).labels.tolist() == getattr(held, name).labels.tolist()


# ------------------------------------------------------------------------------------------- what is remembered


def fingerprints(folder: Path, **options: object) -> set[str]:
    """Those of the folder's images, held and streamed."""
    found = (image_folder(path=str(folder), stream=stream, **SMALL, **options) for stream in (False, True))
    return {sets.fingerprint for sets in found}


def renamed(folder: Path) -> None:
    (folder / "pear" / "003.png").rename(folder / "pear" / "0033.png")


def reclassified(folder: Path) -> None:
    (folder / "pear" / "009.png").rename(folder / "plum" / "010.png")


def exchanged(folder: Path) -> None:
    """Names and folders stay, and the folders' times with them."""
    picture(folder / "pear" / "003.png", 1, seed=3, size=(41, 24))


def lessened(folder: Path) -> None:
    (folder / "pear" / "003.png").unlink()


def enlarged(folder: Path) -> None:
    picture(folder / "pear" / "010.png", 1, seed=3)


@pytest.mark.parametrize("change", [renamed, reclassified, exchanged, lessened, enlarged])
def test_other_pictures_have_another_fingerprint(fruit, change):
    (before,) = fingerprints(fruit)
    change(fruit)
    (after,) = fingerprints(fruit)
    assert before != after


def test_the_fingerprint_is_of_all_pictures_wherever_they_lie_and_whatever_is_kept_of_them(fruit, tmp_path):
    moved = shutil.copytree(fruit, tmp_path / "elsewhere" / "fruit")
    assert fingerprints(fruit) == fingerprints(moved) == fingerprints(fruit, shots=2)
    assert image_folder(path=str(fruit), **SMALL).to("cpu").fingerprint is not None
    assert registry.resolve_factory(registry.get_data("digits").factory)().fingerprint is None


def test_the_split_that_a_picture_lies_in_is_part_of_the_fingerprint(tmp_path):
    for split, count in (("train", 3), ("val", 3), ("test", 2)):
        pictures(tmp_path / split, each(count))
    (before,) = fingerprints(tmp_path)
    (tmp_path / "val" / "pear" / "002.png").rename(tmp_path / "test" / "pear" / "002.png")
    (after,) = fingerprints(tmp_path)
    assert before != after


def test_folders_are_listed_once_as_long_as_no_file_comes_or_goes(fruit, monkeypatch):
    listed, images = [], image_folders._images
    monkeypatch.setattr(image_folders, "_images", lambda folder: listed.append(folder.name) or images(folder))
    availability.check("image-folder", str(fruit))
    for stream in (False, True):
        image_folder(path=str(fruit), stream=stream, **SMALL)
    assert listed == list(CLASSES)
    enlarged(fruit)
    assert len(image_folder(path=str(fruit), stream=True, **SMALL).train) == 25
    assert len(listed) == 6


def test_a_picture_that_is_painted_over_is_decoded_anew(fruit):
    before = image_folder(path=str(fruit), **SMALL)
    path = fruit / "pear" / "003.png"
    time, size = path.stat().st_mtime_ns, path.stat().st_size
    for seed in range(100):
        picture(path, 1, seed=5000 + seed)
        if path.stat().st_size == size:
            break
    else:
        pytest.fail("no other picture takes as many bytes")
    os.utime(path, ns=(time + 10**9, time + 10**9))
    after = image_folder(path=str(fruit), **SMALL)
    assert images_of(after.train) | images_of(after.val) | images_of(after.test) != (
        images_of(before.train) | images_of(before.val) | images_of(before.test)
    )
    assert after is image_folder(path=str(fruit), **SMALL)


def test_an_empty_picture_that_is_mended_in_its_place_is_taken(fruit):
    emptied(fruit / "pear" / "003.png")
    with pytest.raises(DataError, match="is empty"):
        availability.check("image-folder", str(fruit))
    picture(fruit / "pear" / "003.png", 1, seed=3)
    availability.check("image-folder", str(fruit))


# ------------------------------------------------------------------------------------------- what is wrong


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def swapped(path: Path) -> None:
    path.write_text("file,label\n1.png,pear\n")


def deepened(path: Path) -> None:
    Image.fromarray(np.full((9, 9), 1000, dtype=np.uint16)).save(path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(emptied, "is empty"), (truncated, "is damaged"), (swapped, "is not an image"), (deepened, "more than 8 bits")],
)
def test_bad_pictures_are_all_named_with_the_remedy(fruit, spoil, reason):
    bad = [fruit / "pear" / "004.png", fruit / "plum" / "007.png"]
    for path in bad:
        spoil(path)
    with pytest.raises(DataError) as caught:
        image_folder(path=str(fruit), **SMALL)
    message = str(caught.value)
    for path in bad:
        line = next(line for line in message.splitlines() if str(path.relative_to(fruit)) in line)
        assert reason in line
    assert "Replace, mend or remove what is named" in message
    assert message.count(".png") == 2


def test_of_many_bad_pictures_the_first_are_named_and_the_others_counted(fruit):
    for path in fruit.rglob("*.png"):
        swapped(path)
    with pytest.raises(DataError, match="and 20 more"):
        image_folder(path=str(fruit), **SMALL)


def without_class(folder: Path) -> None:
    shutil.rmtree(folder / "test" / "pear")


def with_another_class(folder: Path) -> None:
    (folder / "test" / "pear").rename(folder / "test" / "Pear")


def with_an_empty_class(folder: Path) -> None:
    for path in (folder / "val" / "pear").iterdir():
        path.rename(path.with_suffix(".txt"))


def with_one_class(folder: Path) -> None:
    for split in ("train", "val", "test"):
        for name in CLASSES[1:]:
            shutil.rmtree(folder / split / name)


def with_no_class(folder: Path) -> None:
    for split in ("train", "val", "test"):
        for name in CLASSES:
            shutil.rmtree(folder / split / name)


def with_a_strange_folder(folder: Path) -> None:
    (folder / "val").rename(folder / "valid")


def without_train(folder: Path) -> None:
    (folder / "train").rename(folder / "training")


def with_an_empty_file(folder: Path) -> None:
    emptied(folder / "val" / "plum" / "000.png")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (without_class, "test: lacks the class 'pear' of train"),
        (with_another_class, "test/Pear: no such class in train"),
        (with_an_empty_class, "val/pear: has no image; expected a file ending in .bmp, .jpeg"),
        (with_one_class, "train: has the one folder 'apple'; expected one for each of two classes or more"),
        (with_no_class, "train: has no folder; expected one for each"),
        (with_a_strange_folder, "valid: expected only val and test beside train; rename or move it"),
        (without_train, "val: a split, but there is no train beside it"),
        (with_an_empty_file, "val/plum/000.png: is empty"),
    ],
)
def test_folders_that_cannot_be_read_as_classes_are_named(tmp_path, spoil, found):
    for split in ("train", "val", "test"):
        pictures(tmp_path / split, each(2))
    spoil(tmp_path)
    for call in (read_layout, lambda folder: availability.check("image-folder", str(folder))):
        with pytest.raises(DataError, match=re.escape(found)):
            call(tmp_path)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", "image-folder needs the path of your images: set task.data.path"),
        ("nowhere", r"nowhere is not there; .* mend task.data.path \('nowhere'; a relative one lies below --data-dir"),
        ("file", "file is one file; expected a folder of images"),
    ],
)
def test_a_path_without_a_folder_is_refused_with_the_remedy(tmp_path, path, found):
    (tmp_path / "file").write_text("")
    for call in (image_folder, lambda data_dir, path: availability.check("image-folder", path, data_dir)):
        with pytest.raises(DataError, match=found):
            call(tmp_path, path=path)


def spec(folder: Path, **options: object) -> RunSpec:
    data = {"name": "image-folder", "path": str(folder), **SMALL, **options}
    return RunSpec.model_validate(
        {"task": {"data": data, "model": "linear"}, "train": {"epochs": 1, "batch_size": 8}, "optimizer": "sgd"}
    )


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"val_share": 0.6, "test_share": 0.5}, "task.data.val_share = 0.6: leaves none of the 30 images to train on"),
        ({"test_share": 0.01}, "task.data.test_share = 0.01: is less than one of the 30 images; choose a larger"),
        ({"val_share": 0.85}, "task.data.val_share = 0.85: leaves no image of class 'apple' to train on"),
        ({"shots": 9}, "task.data.shots = 9: the smallest class has 8 training images"),
    ],
)
def test_shares_that_cannot_be_are_refused_with_the_remedy(fruit, options, found):
    with pytest.raises(ConfigError, match=re.escape(found)):
        train(spec(fruit, **options))


@pytest.mark.parametrize("stream", [False, True])
def test_a_run_learns_from_a_folder_of_pictures(fruit, stream):
    outcome = train(spec(fruit, stream=stream))
    assert outcome.status == "done"
    splits = outcome.metrics.groupby("split")["metric"].apply(set)
    assert {"loss", "accuracy"} <= splits["val"]
    assert {"loss", "accuracy"} <= splits["test"]


def test_a_run_learns_the_same_from_streamed_and_held_pictures(fruit):
    held, streamed = (train(spec(fruit, stream=stream)).metrics for stream in (False, True))
    assert held.equals(streamed)


# ------------------------------------------------------------------------------------------- ImageNet

TINY = ImageNet(classes=3, train=3 * 52, val=6)


@pytest.fixture
def tiny_imagenet(tmp_path: Path) -> Path:
    """A data folder with three classes in torchvision's layout; the two last of each class are no images yet."""
    for split, count in (("train", 52), ("val", 2)):
        pictures(tmp_path / "imagenet" / split, each(count), ".JPEG")
    return tmp_path


def test_of_imagenet_fifty_training_images_of_each_class_are_for_validation(tiny_imagenet):
    sets = imagenet(tiny_imagenet, expected=TINY)
    assert (sets.classes, sets.input_shape, sets.shorter) == (3, (3, 224, 224), 256)
    assert [split.counts() for split in (sets.train, sets.val, sets.test)] == [[2] * 3, [50] * 3, [2] * 3]
    paths = {split.path(row) for split in (sets.train, sets.val) for row in range(len(split))}
    assert len(paths) == 156
    again = imagenet(tiny_imagenet / "imagenet", expected=TINY)
    assert again.val.names.tolist() == sets.val.names.tolist()
    assert imagenet(tiny_imagenet, shots=1, expected=TINY).train.counts() == [1] * 3


def test_an_imagenet_of_other_sizes_has_another_fingerprint(tiny_imagenet, tmp_path):
    moved = shutil.copytree(tiny_imagenet / "imagenet", tmp_path / "elsewhere" / "imagenet").parent
    before = imagenet(tiny_imagenet, expected=TINY).fingerprint
    assert imagenet(moved, shots=1, expected=TINY).fingerprint == before
    picture(moved / "imagenet" / "val" / "pear" / "001.JPEG", 1, seed=3, size=(30, 30))
    assert imagenet(moved, expected=TINY).fingerprint != before


def test_the_published_numbers_of_imagenet_are_expected():
    assert (ImageNet().classes, ImageNet().train, ImageNet().val) == (1000, 1_281_167, 50_000)
    assert registry.get_data("imagenet").classes == 1000


def one_image_less(folder: Path) -> None:
    (folder / "train" / "pear" / "000.JPEG").unlink()


def one_class_less(folder: Path) -> None:
    shutil.rmtree(folder / "train" / "pear")


def no_train(folder: Path) -> None:
    shutil.rmtree(folder / "train")


def still_packed(folder: Path) -> None:
    no_train(folder)
    (folder / "train").mkdir()
    (folder / "train" / "n01440764.tar").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (one_image_less, "train: found 3 folders with 155 images, expected 3 folders with 156 images"),
        (one_class_less, "train: found 2 folders with 104 images"),
        (no_train, "train: missing"),
        (still_packed, "train: found 0 folders with 0 images"),
    ],
)
def test_an_imagenet_that_is_not_whole_is_refused_with_its_archives_and_their_sums(tiny_imagenet, spoil, found):
    folder = tiny_imagenet / "imagenet"
    spoil(folder)
    assert [status.state for status in imagenet_status(tiny_imagenet, TINY)][1] == "ok"
    with pytest.raises(DataError) as caught:
        imagenet(tiny_imagenet, expected=TINY)
    message = str(caught.value)
    assert found in message
    assert "  val:" not in message
    for archive in (
        "ILSVRC2012_img_train.tar (MD5 1d675b47d978889d74fa0da5fadfb00e)",
        "ILSVRC2012_img_val.tar (MD5 29b22e2961454d5413ddabcf34fc5622)",
        f"torchvision.datasets.ImageNet({str(folder)!r}, split='train')",
    ):
        assert archive in message


def test_classes_of_imagenet_that_do_not_match_are_named(tiny_imagenet):
    (tiny_imagenet / "imagenet" / "val" / "pear").rename(tiny_imagenet / "imagenet" / "val" / "quince")
    with pytest.raises(DataError, match="only one of train and val has the folder pear"):
        imagenet(tiny_imagenet, expected=TINY)


@pytest.mark.usefixtures("vision")
def test_the_archives_and_their_sums_are_those_that_torchvision_knows():
    from torchvision.datasets.imagenet import ARCHIVE_META

    assert dict(ImageNet().archives) == dict(ARCHIVE_META.values())


# ------------------------------------------------------------------------------------------- availability


def test_availability_tells_every_set_of_the_registry(tmp_path):
    for name in registry.list_data():
        states = {status.state for status in availability.statuses(name, tmp_path)}
        spec = registry.get_data(name)
        assert states == ({"missing"} if spec.files else set())
        if spec.files:
            with pytest.raises(DataError, match=str(tmp_path)):
                availability.check(name, "", tmp_path)
    assert availability.remedy("image-folder") == "needs a path"
    assert availability.remedy("digits") == "needs no files"


def test_a_picture_that_cannot_be_decoded_is_met_only_when_it_is_wanted(fruit):
    swapped(fruit / "pear" / "003.png")
    availability.check("image-folder", str(fruit))
    picture(fruit / "pear" / "003.png", 1, seed=3)
    assert right(image_folder(path=str(fruit), **SMALL).train)
