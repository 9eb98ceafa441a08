"""Tiny ImageNet as its authors publish it, but tiny: three classes of 20 training images, and a few for the rest."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from insgd_lab.training.data import tiny_imagenet
from insgd_lab.training.file_sets import TINY_IMAGENET, FileSet
from insgd_lab.training.files import DataError, check, data_status
from insgd_lab.training.preparation import prepare

WNIDS = ("n02", "n01", "n03")  # the authors' list is not sorted either
TRAIN, VAL = 20, 4
ARRAYS = [f"{part}-{what}.npy" for part in ("train", "val") for what in ("images", "labels")]


def jpeg(stream: np.random.RandomState, level: int, mode: str = "RGB") -> bytes:
    """An image of one level of grey, so that decoding gives it back, with a little noise in one corner."""
    out, image = io.BytesIO(), Image.new(mode, (64, 64), level if mode == "L" else (level,) * 3)
    image.putpixel((0, 0), level + stream.randint(0, 10) if mode == "L" else (level + stream.randint(0, 10),) * 3)
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


def contents() -> dict[str, bytes]:
    """The members of the archive: the level of grey is 50 times the class, in the order of names."""
    stream, members, annotations = np.random.RandomState(0), {}, []
    members["wnids.txt"] = "\n".join(WNIDS).encode()
    for k, wnid in enumerate(sorted(WNIDS)):
        for i in range(TRAIN):
            mode = "L" if i == 3 else "RGB"  # some of the authors' are grey
            members[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg(stream, 50 * k, mode)
        members[f"train/{wnid}/{wnid}_boxes.txt"] = b""
        for i in range(VAL):
            name = f"val_{i * len(WNIDS) + k}.JPEG"
            members[f"val/images/{name}"] = jpeg(stream, 50 * k)
            annotations.append(f"{name}\t{wnid}\t0\t0\t62\t62")
    members["val/val_annotations.txt"] = "\n".join(annotations).encode() + b"\n"
    members["test/images/test_0.JPEG"] = jpeg(stream, 9)
    return members


def zipped(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"tiny-imagenet-200/{name}", content)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return zipped(tmp_path / "tiny-imagenet-200.zip", contents())


@pytest.fixture
def files(archive: Path) -> FileSet:
    return replace(TINY_IMAGENET, archive_md5=hashlib.md5(archive.read_bytes()).hexdigest())


@pytest.fixture
def prepared(archive: Path, files: FileSet, tmp_path: Path) -> Path:
    """A data folder with the set."""
    prepare("tiny-imagenet", tmp_path / "data", archive, {"tiny-imagenet": files})
    return tmp_path / "data"


def states(files: FileSet, data: Path) -> dict[str, str]:
    return {status.path.name: status.state for status in data_status("tiny-imagenet", data, {"tiny-imagenet": files})}


def test_every_image_is_decoded_once_with_its_label(prepared, files):
    sets = tiny_imagenet(prepared, files=files)
    assert (sets.classes, sets.input_shape) == (3, (3, 64, 64))
    for split, each in ((sets.train, 18), (sets.val, 2), (sets.test, VAL)):
        assert split.images.dtype == torch.uint8
        assert split.labels.bincount().tolist() == [each] * 3
        assert torch.equal(split.images[:, :, 32, 32].long(), (50 * split.labels)[:, None].expand(-1, 3))
    assert sets is tiny_imagenet(prepared, files=files)
    few = tiny_imagenet(prepared, shots=2, files=files)
    assert few.train.labels.bincount().tolist() == [2] * 3
    assert few.test is sets.test


def test_the_archive_is_decoded_image_by_image_in_a_fixed_order(archive, files, tmp_path):
    seen = []

    def counted(members):
        for member in members:
            seen.append(member)
            yield member

    prepare("tiny-imagenet", tmp_path / "data", archive, {"tiny-imagenet": files}, counted)
    assert len(seen) == 3 * (TRAIN + VAL)
    assert [name.rpartition("/")[2] for name, _ in seen[:3]] == ["n01_0.JPEG", "n01_1.JPEG", "n01_10.JPEG"]
    assert [label for _, label in seen] == [w for n in (TRAIN, VAL) for w in sorted(WNIDS) for _ in range(n)]
    assert set(states(files, tmp_path / "data").values()) == {"ok"}
    assert set(states(files, tmp_path / "data")) == {"manifest.json", *ARRAYS}
    prepare("tiny-imagenet", tmp_path / "data", archive, {"tiny-imagenet": files}, counted)  # right already
    assert len(seen) == 3 * (TRAIN + VAL)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def swapped(path: Path) -> None:
    other = path.with_name("train-images.npy" if path.name.startswith("val") else "val-images.npy")
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def changed(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def lost(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", [ARRAYS[0], ARRAYS[3]])
@pytest.mark.parametrize(
    ("spoil", "found"),
    [(truncated, "bytes,"), (emptied, "empty"), (swapped, "bytes,"), (changed, "with MD5"), (lost, "missing")],
)
def test_a_bad_array_is_named_with_the_remedy_and_mended(prepared, files, archive, name, spoil, found):
    sets, spoiled = {"tiny-imagenet": files}, prepared / "tiny-imagenet" / name
    expected = {path.name: path.read_bytes() for path in spoiled.parent.iterdir()}
    spoil(spoiled)
    with pytest.raises(DataError) as caught:
        tiny_imagenet(prepared, files=files)
    line = next(line for line in str(caught.value).splitlines() if f" {name}:" in line)
    assert found in line
    remedy = f"insgd-lab data prepare tiny-imagenet --source tiny-imagenet-200.zip --data-dir {prepared}\n"
    assert remedy in str(caught.value)
    assert "torchvision" not in str(caught.value)
    with pytest.raises(DataError, match=name):
        check("tiny-imagenet", prepared, sets)
    prepare("tiny-imagenet", prepared, archive, sets)
    assert {path.name: path.read_bytes() for path in spoiled.parent.iterdir()} == expected


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "manifest.json: missing, expected the list of what"),
        ("", "found no such list"),
        ("[]", "found no such list"),
        ('{"archive_md5": "0", "classes": []}', "found no such list"),
        ('{"archive_md5": "0", "classes": [], "files": []}', "found one of an archive with MD5 0"),
    ],
)
def test_a_bad_manifest_is_named_with_the_remedy(prepared, files, content, found):
    manifest = prepared / "tiny-imagenet" / "manifest.json"
    manifest.write_text(content) if content is not None else manifest.unlink()
    with pytest.raises(DataError, match=rf"(?s){found}.*insgd-lab data prepare tiny-imagenet --source"):
        tiny_imagenet(prepared, files=files)


def test_what_is_missing_is_named_with_the_published_archive(tmp_path):
    with pytest.raises(DataError) as caught:
        tiny_imagenet(tmp_path)
    for words in ("Tiny ImageNet is not complete", "tiny-imagenet-200.zip (MD5 90528d7ca1a48142e341f4ef8d21d0de)"):
        assert words in str(caught.value)


@pytest.mark.parametrize("spoil", [truncated, emptied, changed])
def test_only_the_published_archive_is_decoded(archive, files, tmp_path, spoil):
    spoil(archive)
    with pytest.raises(DataError, match=rf"found .*expected tiny-imagenet-200.zip \(MD5 {files.archive_md5}\)"):
        prepare("tiny-imagenet", tmp_path / "data", archive, {"tiny-imagenet": files})
    assert not (tmp_path / "data").exists()


def test_prepare_says_what_to_give_it(files, tmp_path):
    for source, state in ((tmp_path, "is a folder"), (tmp_path / "absent.zip", "is not there")):
        with pytest.raises(DataError, match=f"{state}; give --source the path of tiny-imagenet-200.zip"):
            prepare("tiny-imagenet", tmp_path / "data", source, {"tiny-imagenet": files})


def test_an_interrupted_decoding_leaves_no_manifest_and_is_taken_up_again(archive, files, tmp_path):
    def interrupted(members):
        yield from members[:5]
        raise KeyboardInterrupt

    sets, data = {"tiny-imagenet": files}, tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        prepare("tiny-imagenet", data, archive, sets, interrupted)
    assert list((data / "tiny-imagenet").iterdir()) == []
    prepare("tiny-imagenet", data, archive, sets)
    check("tiny-imagenet", data, sets)
    assert json.loads((data / "tiny-imagenet" / "manifest.json").read_text())["classes"] == sorted(WNIDS)


def test_files_are_checked_and_prepared_without_torch():
    code = "import sys, insgd_lab.training.preparation; assert not {'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
