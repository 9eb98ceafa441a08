"""Which data files are there, and are they the right ones? No torch, so that a command can refuse at once.

A set is either the very files that its authors publish, or what `insgd-lab data prepare` decoded from their archive;
of the latter a manifest beside them has the sizes and sums.

>>> [status.state for status in data_status("cifar10", Path("/nowhere"))][:2]
['missing', 'missing']
>>> check("digits", Path("/nowhere"))    # embedded in scikit-learn: nothing to check
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from insgd_lab.store import StoreError, read_json, write_json
from insgd_lab.training.file_sets import FILE_SETS, DataFile, FileSet

BLOCK = 1 << 20
DATA_VARIABLE = "INSGD_LAB_DATA"
_MANIFEST = "the list of what `insgd-lab data prepare` decoded"


class DataError(Exception):
    """Data files are missing or wrong; the message names each, and says how to get it right."""


@dataclass(frozen=True)
class FileStatus:
    """What was found at one path: "ok", "missing" or "wrong"."""

    path: Path
    state: Literal["ok", "missing", "wrong"]
    found: str
    expected: str


@dataclass(frozen=True)
class Manifest:
    """What `prepare` decoded from an archive: the names of the classes, and the files with their sums."""

    classes: tuple[str, ...]
    files: tuple[DataFile, ...]


def data_folder(data_dir: Path | str | None = None) -> Path:
    """The folder to look for data in: `data_dir`, else $INSGD_LAB_DATA, else the user's cache folder."""
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "insgd-lab"


def locate(files: FileSet, data_dir: Path | str | None = None) -> Path:
    """The folder the files are, or will be, in: below `data_dir`, or `data_dir` itself if they lie there."""
    base, parts = data_folder(data_dir), Path(files.folder).parts
    below = base / files.folder
    if below.is_dir():
        return below
    # Two names: a file called "train" or "test" may be anyone's.
    if sum((base / file.name).is_file() for file in files.files) > 1:
        return base
    for known in range(len(parts), 0, -1):
        if base.parts[-known:] == parts[:known]:
            return base.joinpath(*parts[known:])
    return below


def data_status(
    name: str, data_dir: Path | str | None = None, sets: Mapping[str, FileSet] = FILE_SETS
) -> list[FileStatus]:
    """The state of every file of the data set `name`; empty for a set without files of its own."""
    files = sets.get(name)
    return [] if files is None else statuses(files, locate(files, data_dir))


def statuses(files: FileSet, folder: Path) -> list[FileStatus]:
    """The state of every file of a set in `folder`: the published ones, or those that its manifest lists."""
    if not files.manifest:
        return [status_of(folder / file.name, file) for file in files.files]
    manifest = folder / files.manifest
    if not manifest.is_file():
        return [FileStatus(manifest, "missing", "missing", _MANIFEST)]
    try:
        listed = read_manifest(files, folder)
    except DataError as error:
        return [FileStatus(manifest, "wrong", str(error), _MANIFEST)]
    read = FileStatus(manifest, "ok", f"lists {len(listed.files)} files", _MANIFEST)
    return [read, *(status_of(folder / file.name, file) for file in listed.files)]


def write_manifest(files: FileSet, folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a decoded set; the last thing to do, as the set is there when its manifest is."""
    listed = [vars(file) for file in manifest.files]
    content = {"archive_md5": files.archive_md5, "classes": list(manifest.classes), "files": listed}
    write_json(folder / files.manifest, content)


def read_manifest(files: FileSet, folder: Path) -> Manifest:
    """The manifest of a decoded set.

    Raises:
        DataError: it is missing or not one of this set (the message is only what was found).
    """
    try:
        content = read_json(folder / files.manifest)
        listed = tuple(DataFile(str(file["name"]), int(file["size"]), str(file["md5"])) for file in content["files"])
        classes, archive = tuple(map(str, content["classes"])), content["archive_md5"]
    except (OSError, StoreError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"found no such list ({type(error).__name__}: {error})") from error
    if archive != files.archive_md5:
        raise DataError(f"found one of an archive with MD5 {archive}")
    return Manifest(classes, listed)


def check(name: str, data_dir: Path | str | None = None, sets: Mapping[str, FileSet] = FILE_SETS) -> None:
    """Raise `DataError` unless every file of the data set `name` is there with its size and MD5."""
    if name in sets:
        check_in(name, sets[name], locate(sets[name], data_dir))


def check_in(name: str, files: FileSet, folder: Path) -> None:
    """Raise `DataError` unless every file of a set is in `folder` with its size and MD5."""
    wrong = [status for status in statuses(files, folder) if status.state != "ok"]
    if wrong:
        raise incomplete(name, files, wrong, folder)


def incomplete(name: str, files: FileSet, wrong: list[FileStatus], folder: Path) -> DataError:
    """The error that names each missing or wrong file in `folder`, what belongs there, and how to get it."""
    parts = Path(files.folder).parts
    target = folder.parents[len(parts) - 1] if parts and folder.parts[-len(parts) :] == parts else folder
    lines = [f"{files.title} is not complete in {folder}:"]
    lines += [f"  {status.path.name}: {status.found}, expected {status.expected}" for status in wrong]
    if files.manifest:
        lines += [
            f"The images are in {files.archive} (MD5 {files.archive_md5}) from {files.page}.",
            "With the archive at hand:",
            f"  insgd-lab data prepare {name} --source {files.archive} --data-dir {target}",
        ]
    elif files.archive:
        lines += [
            f"The files are in {files.archive} (MD5 {files.archive_md5}) from {files.page}.",
            "With the archive at hand:",
            f"  insgd-lab data prepare {name} --source {files.archive} --data-dir {target}",
            f"or unpack it in {target}, or have it fetched by",
        ]
    else:
        lines += [
            f"The files are published one by one at {files.page}.",
            "With them at hand in a folder:",
            f"  insgd-lab data prepare {name} --source FOLDER --data-dir {target}",
            f"or put them in {folder}, or have them fetched by",
        ]
    if files.torchvision:
        lines += [f"  torchvision.datasets.{files.torchvision}({str(target)!r}, download=True)"]
    lines += [f"If they lie elsewhere, name that folder with --data-dir or ${DATA_VARIABLE}."]
    return DataError("\n".join(lines))


def read_verified(path: Path, file: DataFile) -> bytes:
    """The bytes of a file with the published size and MD5.

    Raises:
        OSError: it cannot be read.
        DataError: it is not the published file (the message is only what was found).
    """
    if path.stat().st_size != file.size:
        raise DataError(describe(path.stat().st_size))
    content = path.read_bytes()
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if digest != file.md5:
        raise DataError(describe(len(content), digest))
    return content


def read_all(name: str, files: FileSet, folder: Path) -> dict[str, bytes]:
    """The verified contents of every file of the data set `name`, by file name.

    Raises:
        DataError: files are missing or wrong; all of them, in one message.
    """
    contents, wrong = {}, []
    for file in files.files:
        path = folder / file.name
        try:
            contents[file.name] = read_verified(path, file)
        except FileNotFoundError:
            wrong.append(FileStatus(path, "missing", "missing", file.expected))
        except (OSError, DataError) as error:
            wrong.append(FileStatus(path, "wrong", str(error), file.expected))
    if wrong:
        raise incomplete(name, files, wrong, folder)
    return contents


def status_of(path: Path, file: DataFile) -> FileStatus:
    """The state of one file that should be at `path`."""
    if not path.is_file():
        return FileStatus(path, "missing", "missing", file.expected)
    found = path.stat()
    size = found.st_size
    if size != file.size:
        return FileStatus(path, "wrong", describe(size), file.expected)
    digest = _remembered(path.absolute(), size, found.st_mtime_ns)
    state: Literal["ok", "wrong"] = "ok" if digest == file.md5 else "wrong"
    return FileStatus(path, state, describe(size, digest), file.expected)


@functools.lru_cache(maxsize=64)
def _remembered(path: Path, size: int, modified: int) -> str:
    """`md5_of`, once for each state of a file: a command checks the data before a run of it reads them."""
    return md5_of(path)


def md5_of(path: Path) -> str:
    """The MD5 of a file's content, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def describe(size: int, digest: str | None = None) -> str:
    """What was found, in words."""
    if size == 0:
        return "found an empty file"
    return f"found {size} bytes" + (f" with MD5 {digest}" if digest else "")
