"""Which data files are there, and are they the right ones? No torch, so that a command can refuse at once.

>>> [status.state for status in data_status("cifar10", Path("/nowhere"))][:2]
['missing', 'missing']
>>> check("digits", Path("/nowhere"))    # embedded in scikit-learn: nothing to check
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from insgd_lab.store import replacing
from insgd_lab.training.file_sets import FILE_SETS, DataFile, FileSet

BLOCK = 1 << 20
DATA_VARIABLE = "INSGD_LAB_DATA"


class DataError(Exception):
    """Data files are missing or wrong; the message names each, and says how to get it right."""


@dataclass(frozen=True)
class FileStatus:
    """What was found at one path: "ok", "missing" or "wrong"."""

    path: Path
    state: Literal["ok", "missing", "wrong"]
    found: str
    expected: str


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
    if files is None:
        return []
    folder = locate(files, data_dir)
    return [_status(folder / file.name, file) for file in files.files]


def check(name: str, data_dir: Path | str | None = None, sets: Mapping[str, FileSet] = FILE_SETS) -> None:
    """Raise `DataError` unless every file of the data set `name` is there with its published MD5."""
    wrong = [status for status in data_status(name, data_dir, sets) if status.state != "ok"]
    if wrong:
        raise incomplete(name, sets[name], wrong, locate(sets[name], data_dir))


def incomplete(name: str, files: FileSet, wrong: list[FileStatus], folder: Path) -> DataError:
    """The error that names each missing or wrong file in `folder`, what belongs there, and how to get it."""
    parts = Path(files.folder).parts
    target = folder.parents[len(parts) - 1] if parts and folder.parts[-len(parts) :] == parts else folder
    lines = [f"{files.title} is not complete in {folder}:"]
    lines += [f"  {status.path.name}: {status.found}, expected {status.expected}" for status in wrong]
    if files.archive:
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
    lines += [
        f"  torchvision.datasets.{files.torchvision}({str(target)!r}, download=True)",
        f"If they lie elsewhere, name that folder with --data-dir or ${DATA_VARIABLE}.",
    ]
    return DataError("\n".join(lines))


def read_verified(path: Path, file: DataFile) -> bytes:
    """The bytes of a file with the published size and MD5.

    Raises:
        OSError: it cannot be read.
        DataError: it is not the published file (the message is only what was found).
    """
    if path.stat().st_size != file.size:
        raise DataError(_describe(path.stat().st_size))
    content = path.read_bytes()
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if digest != file.md5:
        raise DataError(_describe(len(content), digest))
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


def prepare(
    name: str, data_dir: Path | str | None, source: Path | str, sets: Mapping[str, FileSet] = FILE_SETS
) -> list[FileStatus]:
    """Put the files of the data set `name` in place from a local archive or folder, checking each MD5 first.

    Args:
        name: a data set that has files, such as "cifar10".
        data_dir: where to put them; None as in `data_folder`.
        source: a folder that holds the files, or the authors' archive (cifar-10-python.tar.gz) where they made one.

    Returns:
        The state of every file, all "ok". Files that are right already are left alone.

    Raises:
        DataError: the set has no files, or the source is not there, is damaged, or lacks a file.
    """
    files, source = sets.get(name), Path(source).expanduser()
    if files is None or not files.files:
        known = ", ".join(sorted(key for key, value in sets.items() if value.files))
        raise DataError(f"{name!r} has no files to prepare; data sets that have: {known}.")
    folder = locate(files, data_dir)
    wanted = {file.name: file for file in files.files if _status(folder / file.name, file).state != "ok"}
    if wanted and source.is_dir():
        _from_folder(files, source, folder, wanted)
    elif wanted and source.is_file() and files.archive:
        _from_archive(files, source, folder, wanted)
    elif wanted:
        state = "is one file" if source.is_file() else "is not there"
        remedy = f"the path of {files.archive} or of its unpacked folder" if files.archive else _the_folder_of(files)
        raise DataError(f"{source} {state}; give --source {remedy}.")
    check(name, data_dir, sets)
    return data_status(name, data_dir, sets)


def _the_folder_of(files: FileSet) -> str:
    return f"the folder that holds {', '.join(file.name for file in files.files)}"


def _from_folder(files: FileSet, source: Path, folder: Path, wanted: Mapping[str, DataFile]) -> None:
    origin = locate(files, source)
    for name, file in wanted.items():
        if not (origin / name).is_file():
            raise DataError(f"{origin / name} is not there; {files.title} needs {file.expected}.")
        with (origin / name).open("rb") as stream:
            _install(stream, folder / name, file, f"{origin / name}")


def _from_archive(files: FileSet, source: Path, folder: Path, wanted: Mapping[str, DataFile]) -> None:
    """Take the known members only, under our own names: no path, mode or link of the archive is ever used."""
    left = dict(wanted)
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                name = member.name.removeprefix("./").removeprefix(f"{files.folder}/")
                stream = archive.extractfile(member) if name in left and member.isreg() else None
                if stream is not None:
                    with stream:
                        _install(stream, folder / name, left.pop(name), f"{source}, member {member.name}")
                if not left:
                    return
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{source} is damaged or not a tar archive ({error}); fetch {files.archive} again.") from error
    raise DataError(
        f"{source} has no {', '.join(left)}; expected {files.archive} (MD5 {files.archive_md5}) from {files.page}."
    )


def _install(stream: IO[bytes], target: Path, file: DataFile, origin: str) -> None:
    """Copy a stream beside its target, and move it into place only if it is the published file."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    with replacing(target) as temporary:
        with temporary.open("wb") as out:
            while block := stream.read(BLOCK):
                digest.update(block)
                size += out.write(block)
        if (size, digest.hexdigest()) != (file.size, file.md5):
            raise DataError(f"{origin}: {_describe(size, digest.hexdigest())}, expected {file.expected}.")


def _status(path: Path, file: DataFile) -> FileStatus:
    if not path.is_file():
        return FileStatus(path, "missing", "missing", file.expected)
    size = path.stat().st_size
    if size != file.size:
        return FileStatus(path, "wrong", _describe(size), file.expected)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    state: Literal["ok", "wrong"] = "ok" if digest == file.md5 else "wrong"
    return FileStatus(path, state, _describe(size, digest), file.expected)


def _describe(size: int, digest: str | None = None) -> str:
    if size == 0:
        return "found an empty file"
    return f"found {size} bytes" + (f" with MD5 {digest}" if digest else "")
