"""Where ImageNet (ILSVRC2012) lies, as torchvision unpacks it, and whether it is all there. No torch.

Of its 1.3 million files none is opened: one that is damaged is named when it is met.

>>> train, val = find_imagenet("/data")
>>> len(train), train.path(0)
(1281167, PosixPath('/data/imagenet/train/n01440764/n01440764_10026.JPEG'))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from insgd_lab.training.files import DATA_VARIABLE, DataError, FileStatus, data_folder
from insgd_lab.training.image_folders import ImageFiles, list_images

__all__ = ["ILSVRC2012", "ImageNet", "find_imagenet", "imagenet_status"]


@dataclass(frozen=True)
class ImageNet:
    """How many classes and images there must be, and the archives that they come in, with their MD5s."""

    classes: int = 1000
    train: int = 1_281_167
    val: int = 50_000
    archives: tuple[tuple[str, str], ...] = (
        ("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e"),
        ("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622"),
        ("ILSVRC2012_devkit_t12.tar.gz", "fa75699e90414af021442c21a62c3abf"),
    )
    page: str = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"


ILSVRC2012 = ImageNet()


def imagenet_folder(data_dir: Path | str | None = None) -> Path:
    """The folder that has, or will have, `train` and `val`: `imagenet` below the data folder, or that one itself."""
    base = data_folder(data_dir).absolute()
    return base if base.name == "imagenet" and not (base / "imagenet").is_dir() else base / "imagenet"


def imagenet_status(data_dir: Path | str | None = None, expected: ImageNet = ILSVRC2012) -> list[FileStatus]:
    """The state of the two folders."""
    return [status for status, _ in _look(imagenet_folder(data_dir), expected)]


def find_imagenet(data_dir: Path | str | None = None, expected: ImageNet = ILSVRC2012) -> tuple[ImageFiles, ImageFiles]:
    """The authors' training and validation images.

    Raises:
        DataError: there are not as many classes and images as there must be; the message says how to get them.
    """
    folder = imagenet_folder(data_dir)
    found = _look(folder, expected)
    wrong = [status for status, _ in found if status.state != "ok"]
    if wrong:
        raise _incomplete(folder, wrong, expected)
    train, val = (images for _, images in found)
    if train.classes != val.classes:
        name = min(set(train.classes) ^ set(val.classes))
        raise DataError(f"{folder}: only one of train and val has the folder {name}; unpack the archives again")
    return train, val


def _look(folder: Path, expected: ImageNet) -> list[tuple[FileStatus, ImageFiles]]:
    parts = (("train", expected.train), ("val", expected.val))
    return [_part(folder / name, expected.classes, count) for name, count in parts]


def _part(folder: Path, classes: int, count: int) -> tuple[FileStatus, ImageFiles]:
    images = list_images(folder)
    right = (len(images.classes), len(images)) == (classes, count)
    state: Literal["ok", "missing", "wrong"] = "ok" if right else "wrong" if folder.is_dir() else "missing"
    found = f"found {len(images.classes)} folders with {len(images)} images" if folder.is_dir() else "missing"
    return FileStatus(folder, state, found, f"{classes} folders with {count} images"), images


def _incomplete(folder: Path, wrong: list[FileStatus], expected: ImageNet) -> DataError:
    lines = [f"ImageNet (ILSVRC2012) is not complete in {folder}:"]
    lines += [f"  {status.path.name}: {status.found}, expected {status.expected}" for status in wrong]
    lines += [f"The images are in three archives from {expected.page} (after registration):"]
    lines += [f"  {name} (MD5 {md5})" for name, md5 in expected.archives]
    lines += [
        f"Put them into {folder}, and have them checked and unpacked by",
        f"  torchvision.datasets.ImageNet({str(folder)!r}, split='train')",
        f"  torchvision.datasets.ImageNet({str(folder)!r}, split='val')",
        f"If the images lie elsewhere, name the folder above imagenet with --data-dir or ${DATA_VARIABLE}.",
    ]
    return DataError("\n".join(lines))
