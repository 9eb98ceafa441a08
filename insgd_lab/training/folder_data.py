"""The data sets that are folders of image files: anyone's own, and ImageNet.

>>> data = image_folder("/data", path="scans", size=128)       # decoded once, held as uint8
>>> data = image_folder("/data", path="scans", stream=True)    # decoded again whenever an image is wanted
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from insgd_lab.training.decoding import fitted, pixels, read_rgb
from insgd_lab.training.files import DataError
from insgd_lab.training.image_folders import ImageFiles, Layout, complain, digest, find_folder, read_layout
from insgd_lab.training.imagenet import ILSVRC2012, ImageNet, find_imagenet
from insgd_lab.training.splits import ImageSplits, Indices, Split, shuffled_by_class, stratified_split
from insgd_lab.training.streaming import MEAN, STD, StreamedSplits
from insgd_lab.training.subsets import Subset, SubsetError

__all__ = ["image_folder", "imagenet"]

_PER_CLASS = 50
_SHARE = 0.1


def image_folder(
    data_dir: Path | str | None = None,
    path: str = "",
    size: int = 224,
    stream: bool = False,
    val_share: float = _SHARE,
    test_share: float = _SHARE,
    fraction: float = 1.0,
    shots: int | None = None,
    imbalance: str = "none",
    imbalance_ratio: float = 10.0,
) -> ImageSplits | StreamedSplits:
    """Anyone's own images, in folders named after their classes; `image_folders` says how they must lie.

    An image is made RGB and its shorter side resized to `size`, and the middle is cut out. Normalisation is by
    ImageNet's constants. A split without a folder is held out of the training images, every class in proportion and
    always the same as long as the files are. A run's name knows the path, not what lies there.

    Args:
        data_dir: what a relative `path` lies in; None as in `files.data_folder`.
        path: the folder.
        size: height and width of what the model sees, in pixels.
        stream: whether images are decoded when they are wanted, and not all at once and held in memory, which takes
            3 * size * size bytes an image. Streamed training images are cropped at random scales if they are
            augmented (see `StreamedFeed`); held ones are shifted by up to 4 pixels.
        val_share: what part of the training images becomes the validation split, where that has no folder; where it
            has one, it is refused unless it is the default.
        test_share: likewise the test split.
        fraction: what is kept of the training split; this and the rest as in `Subset`.
        shots: as there.
        imbalance: as there.
        imbalance_ratio: as there.

    Raises:
        DataError: the folder is not there or not as it must be, or an image cannot be read; all are named.
        ValueError: shares that leave a split without images, or an impossible subset.
    """
    subset = Subset(fraction, shots, imbalance, imbalance_ratio)
    layout = read_layout(find_folder(path, data_dir))
    if stream:
        parts = _splits(layout, val_share, test_share)
        return _kept(subset, StreamedSplits("image-folder", *parts, size, size, layout.fingerprint))
    return subset.of(_held(layout, size, val_share, test_share))


def imagenet(
    data_dir: Path | str | None = None,
    fraction: float = 1.0,
    shots: int | None = None,
    imbalance: str = "none",
    imbalance_ratio: float = 10.0,
    *,
    expected: ImageNet = ILSVRC2012,
) -> StreamedSplits:
    """ImageNet-1K (ILSVRC2012) at 224 x 224: 50 training images of each class are the validation split.

    That leaves 1,231,167 to train. The test split is the authors' validation split of 50,000: of their test images the
    labels are not published, and it is what papers report on. Evaluation resizes the shorter side to 256 and cuts the
    middle out.

    Args:
        data_dir: the folder that holds `imagenet`, or that folder; None as in `files.data_folder`.
        fraction: what is kept of the training split; this and the rest as in `Subset`.
        shots: as there.
        imbalance: as there.
        imbalance_ratio: as there.
        expected: how many images there must be.

    Raises:
        DataError: images are missing; the message says how to get them.
        ValueError: an impossible subset.
    """
    subset = Subset(fraction, shots, imbalance, imbalance_ratio)
    train, test = find_imagenet(data_dir, expected)
    rows = shuffled_by_class(train.labels, "split of imagenet")
    kept, held_out = (
        train.take(np.sort(np.concatenate([of_class[part] for of_class in rows])))
        for part in (slice(_PER_CLASS, None), slice(_PER_CLASS))
    )
    sizes = [images.stats()[:, 0] for images in (train, test)]
    fingerprint = digest(train.folder.parent, (train, test), sizes)
    return _kept(subset, StreamedSplits("imagenet", kept, held_out, test, 224, 256, fingerprint))


def _kept(subset: Subset, data: StreamedSplits) -> StreamedSplits:
    """The set with this subset for its training split, as `Subset.of` gives it of images in memory."""
    if subset == Subset():
        return data
    rows = subset.rows(data.train.labels, data.name)
    return replace(data, train=data.train.take(rows), by_class=subset.by_class)


@functools.lru_cache(maxsize=1)
def _held(layout: Layout, size: int, val_share: float, test_share: float) -> ImageSplits:
    """The folder's images, decoded once as long as they stay as they are; all that cannot be are named at once."""
    parts = _splits(layout, val_share, test_share)
    problems: list[str] = []
    train, val, test = (_decoded(images, size, problems) for images in parts)
    complain(layout.folder, problems)
    classes, fingerprint = len(layout.train.classes), layout.fingerprint
    return ImageSplits("image-folder", classes, train, val, test, MEAN, STD, fingerprint=fingerprint)


def _decoded(images: ImageFiles, size: int, problems: list[str]) -> Split:
    batch = torch.zeros((len(images), 3, size, size), dtype=torch.uint8)
    for row in range(len(images)):
        try:
            batch[row] = torch.from_numpy(pixels(fitted(read_rgb(images.path(row)), size, size)))
        except DataError as error:
            problems.append(str(error))
    return Split(batch, torch.from_numpy(images.labels))


def _splits(layout: Layout, val_share: float, test_share: float) -> tuple[ImageFiles, ImageFiles, ImageFiles]:
    """Train, validation and test images; what has no folder is held out of the training images."""
    there = {"val_share": layout.val, "test_share": layout.test}
    shares = {"val_share": val_share, "test_share": test_share}
    for option, part in there.items():
        if part is not None and shares[option] != _SHARE:
            reason = f"is not read, for {part.folder} has that split already; leave it out"
            raise SubsetError(option, shares[option], reason)
    wanted = {option: share for option, share in shares.items() if there[option] is None}
    rest, *held_out = _shared_out(layout.train, wanted)
    parts = {**there, **{option: layout.train.take(rows) for option, rows in zip(wanted, held_out, strict=True)}}
    val, test = (part for part in parts.values() if part is not None)
    return layout.train.take(rest), val, test


def _shared_out(train: ImageFiles, shares: Mapping[str, float]) -> list[Indices]:
    """Rows that stay for training, then those of each share."""
    count, sizes = len(train), {option: round(share * len(train)) for option, share in shares.items()}
    for option, size in sizes.items():
        if not size:
            raise SubsetError(option, shares[option], f"is less than one of the {count} images; choose a larger share")
    option = max(shares, key=lambda name: shares[name], default="")
    if sum(sizes.values()) >= count:
        raise SubsetError(option, shares[option], f"leaves none of the {count} images to train on; choose a smaller")
    rows = stratified_split(train.labels, list(sizes.values()), "image-folder")
    left = train.take(rows[0]).counts()
    if 0 in left:
        name = train.classes[left.index(0)]
        reason = f"leaves no image of class {name!r} to train on; choose a smaller share, or add images"
        raise SubsetError(option, shares[option], reason)
    return rows
