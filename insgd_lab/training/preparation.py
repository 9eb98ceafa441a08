"""Put a data set's files in place from what its authors publish, checking every sum first. No torch.

What is published is copied as it is, or, where its images are a zip of JPEGs, decoded once (see `tiny_imagenet`).

>>> prepare("cifar10", None, "downloads/cifar-10-python.tar.gz")
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from insgd_lab.store import replacing
from insgd_lab.training import tiny_imagenet
from insgd_lab.training.file_sets import FILE_SETS, DataFile, FileSet
from insgd_lab.training.files import (
    BLOCK,
    DataError,
    FileStatus,
    check,
    data_status,
    describe,
    locate,
    status_of,
    statuses,
)
from insgd_lab.training.tiny_imagenet import Counted

__all__ = ["prepare"]


def prepare(
    name: str,
    data_dir: Path | str | None,
    source: Path | str,
    sets: Mapping[str, FileSet] = FILE_SETS,
    counted: Counted = iter,
) -> list[FileStatus]:
    """Put the files of the data set `name` in place from a local archive or folder, checking each MD5 first.

    Args:
        name: a data set that has files, such as "cifar10".
        data_dir: where to put them; None as in `files.data_folder`.
        source: a folder that holds the files, or the authors' archive (cifar-10-python.tar.gz) where they made one.
        sets: the sets with files, by name.
        counted: passes on the images that are decoded, where any are, and may show how far that is.

    Returns:
        The state of every file, all "ok". Files that are right already are left alone.

    Raises:
        DataError: the set has no files, or the source is not there, is damaged, or lacks a file.
    """
    files, source = sets.get(name), Path(source).expanduser()
    if files is None or not (files.files or files.manifest):
        known = ", ".join(sorted(key for key, value in sets.items() if value.files or value.manifest))
        raise DataError(f"{name!r} has no files to prepare; data sets that have: {known}.")
    folder = locate(files, data_dir)
    if any(status.state != "ok" for status in statuses(files, folder)):
        if files.manifest:
            tiny_imagenet.decode(files, source, folder, counted)
        else:
            _copy(files, source, folder)
    check(name, data_dir, sets)
    return data_status(name, data_dir, sets)


def _copy(files: FileSet, source: Path, folder: Path) -> None:
    """Install the files that are missing or wrong."""
    wanted = {file.name: file for file in files.files if status_of(folder / file.name, file).state != "ok"}
    if source.is_dir():
        _from_folder(files, source, folder, wanted)
    elif source.is_file() and files.archive:
        _from_archive(files, source, folder, wanted)
    else:
        state = "is one file" if source.is_file() else "is not there"
        remedy = f"the path of {files.archive} or of its unpacked folder" if files.archive else _the_folder_of(files)
        raise DataError(f"{source} {state}; give --source {remedy}.")


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
            raise DataError(f"{origin}: {describe(size, digest.hexdigest())}, expected {file.expected}.")
