"""Images that lie in folders named after their classes: which there are, in a fixed order. No torch.

Two layouts are read. Either the splits have folders, `train/CLASS/*.jpg` and, where there are such, `val/CLASS/*.jpg`
and `test/CLASS/*.jpg`; or the classes lie in the folder itself, `CLASS/*.jpg`, and are all for training. What no
folder is there for is held out of the training images later (see `folder_data`). Classes are numbered, and images
ordered, by their sorted names. Names that begin with a dot, and files that do not end like an image, are passed over.

>>> layout = read_layout(Path("/data/scans"))
>>> layout.train.classes, len(layout.train), layout.test
(('benign', 'malignant'), 780, None)
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from insgd_lab.training.files import DataError, data_folder

__all__ = ["ImageFiles", "Layout", "complain", "digest", "find_folder", "list_images", "read_layout"]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_SHOWN = 10


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files FOLDER/CLASS/NAME; equal only to itself.

    Attributes:
        folder: what the folders of the classes lie in.
        classes: their names; class k is the k-th.
        names: each file's name as the file system has it, [N]; an array, which processes share and pickle cheaply.
        labels: each file's class, int64 [N].
    """

    folder: Path
    classes: tuple[str, ...]
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> Path:
        """Where the image of that row is."""
        return self.folder / self.classes[int(self.labels[row])] / os.fsdecode(bytes(self.names[row]))

    def stats(self) -> NDArray[np.int64]:
        """Each file's size in bytes and time of last change in nanoseconds, as they are now, [N, 2].

        Raises:
            OSError: a file is gone, or is kept from us.
        """
        folders = [os.fsencode(self.folder / name) for name in self.classes]
        rows = zip(self.labels.tolist(), self.names.tolist(), strict=True)
        paths = (os.path.join(folders[label], name) for label, name in rows)
        found = [(file.st_size, file.st_mtime_ns) for file in map(os.stat, paths)]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def take(self, rows: NDArray[np.int64]) -> ImageFiles:
        """Those rows, in that order."""
        return replace(self, names=self.names[rows], labels=self.labels[rows])

    def counts(self) -> list[int]:
        """How many images each class has."""
        return [int(count) for count in np.bincount(self.labels, minlength=len(self.classes))]


@dataclass(frozen=True)
class Layout:
    """The images of each split that has a folder of its own; equal as long as no file has changed.

    Attributes:
        folder: what it was read from.
        state: a digest of the files' names, sizes and times of change.
        fingerprint: a digest of the files' names below the folder and sizes, the same wherever the folder lies.
        train: training images are always there.
        val: None without a folder.
        test: likewise.
    """

    folder: Path
    state: str
    fingerprint: str
    train: ImageFiles = field(compare=False)
    val: ImageFiles | None = field(compare=False)
    test: ImageFiles | None = field(compare=False)


def find_folder(path: str, data_dir: Path | str | None = None) -> Path:
    """The folder that the option `path` names: as it is, or, if it is relative, below the data folder.

    So a study file can name its images wherever it is run, and from whichever folder.

    Raises:
        DataError: no path is given, or no folder is there.
    """
    if not path:
        raise DataError(
            "image-folder needs the path of your images: set task.data.path to a folder that has train/CLASS/*.jpg "
            "(and val, test, if they are split already), or CLASS/*.jpg"
        )
    folder = (data_folder(data_dir) / Path(path).expanduser()).absolute()
    if not folder.is_dir():
        state = "is one file" if folder.is_file() else "is not there"
        raise DataError(
            f"{folder} {state}; expected a folder of images: mend task.data.path ({path!r}; a relative one lies below "
            "--data-dir, else $INSGD_LAB_DATA)"
        )
    return folder


def read_layout(folder: Path) -> Layout:
    """The images in a folder, split by split.

    Raises:
        DataError: there are not two classes, a class has no images, a file is empty, or the folders do not fit
            together; all that is wrong, in one message.
    """
    found = _folders(folder)
    if "train" not in found:
        parts = {"": list_images(folder)}
        problems = [f"{name}: a split, but there is no train beside it" for name in ("val", "test") if name in found]
    else:
        parts = {name: list_images(folder / name) for name in ("train", "val", "test") if name in found}
        strange = [name for name in found if name not in parts]
        problems = [f"{name}: expected only val and test beside train; rename or move it" for name in strange]
    train, *others = parts.values()
    if len(train.classes) < 2:
        count = "no folder" if not train.classes else f"the one folder {train.classes[0]!r}"
        place = train.folder.relative_to(folder)
        problems.append(f"{place}: has {count}; expected one for each of two classes or more")
    images, stats = list(parts.values()), [part.stats() for part in parts.values()]
    sizes = [numbers[:, 0] for numbers in stats]
    problems += [line for part, size in zip(images, sizes, strict=True) for line in _problems(part, size, folder)]
    problems += [line for part in others for line in _differences(part, train)]
    complain(folder, problems)
    state, fingerprint = digest(folder, images, stats), digest(folder, images, sizes)
    return Layout(folder, state, fingerprint, train, parts.get("val"), parts.get("test"))


def list_images(folder: Path) -> ImageFiles:
    """All images in the folders of their classes, none of them opened; of a folder that is not there, none.

    The list is remembered as long as the classes' folders say that no file has come, gone or been renamed.
    """
    classes = tuple(_folders(folder)) if folder.is_dir() else ()
    return _listed(folder.absolute(), classes, tuple((folder / name).stat().st_mtime_ns for name in classes))


@functools.lru_cache(maxsize=6)
def _listed(folder: Path, classes: tuple[str, ...], modified: tuple[int, ...]) -> ImageFiles:
    found = [_images(folder / name) for name in classes]
    names = [os.fsencode(name) for files in found for name in files]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(files) for files in found])
    return ImageFiles(folder, classes, np.array(names, dtype=np.bytes_), labels)


def digest(base: Path, parts: Sequence[ImageFiles], numbers: Sequence[NDArray[np.int64]]) -> str:
    """A digest, in hexadecimal digits, of image files and numbers that belong to them.

    Args:
        base: names are taken below this folder.
        parts: the files.
        numbers: of each part those of its files, [N, ...].
    """
    found = hashlib.sha256()
    for images, values in zip(parts, numbers, strict=True):
        place = images.folder.relative_to(base)
        counts = zip(images.classes, images.counts(), strict=True)
        head = "\n".join([f"{place / name} {count}" for name, count in counts])
        for piece in (os.fsencode(head), b"\n".join(images.names.tolist()), values.astype("<i8").tobytes()):
            found.update(b"%d\n" % len(piece))
            found.update(piece)
    return found.hexdigest()


def complain(folder: Path, problems: Sequence[str]) -> None:
    """Raise an error that lists what is wrong in a folder, if anything is.

    Raises:
        DataError: the first problems, and how many more there are.
    """
    if not problems:
        return
    lines = [f"The images in {folder} cannot be used as they are:", *(f"  {line}" for line in problems[:_SHOWN])]
    lines += [f"  and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    raise DataError("\n".join([*lines, "Replace, mend or remove what is named, and try again."]))


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
        )


def _problems(images: ImageFiles, sizes: NDArray[np.int64], base: Path) -> list[str]:
    """Classes without images, and empty files."""
    place = images.folder.relative_to(base)
    endings = f"a file ending in {', '.join(SUFFIXES)} (folders inside are not searched)"
    counts = zip(images.classes, images.counts(), strict=True)
    without = [f"{place / name}: has no image; expected {endings}" for name, count in counts if not count]
    empty = (images.path(int(row)) for row in np.flatnonzero(sizes == 0))
    return without + [f"{path.relative_to(base)}: is empty" for path in empty]


def _differences(images: ImageFiles, train: ImageFiles) -> list[str]:
    """Classes that only one of a split and the training images has."""
    split, known = images.folder.name, set(train.classes)
    more = [f"{split}/{name}: no such class in train" for name in images.classes if name not in known]
    less = [name for name in train.classes if name not in images.classes]
    return more + [f"{split}: lacks the class {name!r} of train" for name in less]
