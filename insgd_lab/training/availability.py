"""Are the data of a run there? Every kind of data set, one question; no torch, so that a command can refuse at once.

>>> statuses("imagenet", Path("/nowhere"))[0].state
'missing'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from insgd_lab import registry
from insgd_lab.config import RunSpec
from insgd_lab.training import files
from insgd_lab.training.file_sets import FILE_SETS
from insgd_lab.training.files import DataError, FileStatus
from insgd_lab.training.image_folders import find_folder, read_layout
from insgd_lab.training.imagenet import find_imagenet, imagenet_status

__all__ = ["check", "fingerprints", "remedy", "statuses"]

Place = Path | str | None


def check(name: str, path: str = "", data_dir: Place = None) -> None:
    """Raise `DataError` unless the data of a set are there: its files with their sums, or its folders of images.

    Args:
        name: of the data set; of a plugin's the presence of its files is checked.
        path: the option of that name, for sets of one's own images.
        data_dir: as in `files.data_folder`.
    """
    if name in _CHECKS:
        _CHECKS[name](path, data_dir)
        return
    files.check(name, data_dir)
    missing = [status.path for status in _presence(name, data_dir) if status.state != "ok"]
    if missing:
        folder = files.data_folder(data_dir)
        names = ", ".join(str(path.relative_to(folder)) for path in missing)
        raise DataError(f"{name} needs {names} in {folder}; put them there, or name another --data-dir")


def fingerprints(runs: Iterable[RunSpec], data_dir: Place = None) -> dict[str, str]:
    """By the names of runs that learn from anyone's own images, what tells those that are there now from others.

    Nothing is said of runs whose images are not there, or not as they must be, nor of other data, which do not change.
    """
    found: dict[str, str] = {}
    folders: dict[str, str | None] = {}
    for run in runs:
        if run.task.data.name != "image-folder":
            continue
        path = str(run.task.data.options.get("path", ""))
        if path not in folders:
            try:
                folders[path] = read_layout(find_folder(path, data_dir)).fingerprint
            except DataError:
                folders[path] = None
        if (fingerprint := folders[path]) is not None:
            found[run.id] = fingerprint
    return found


def statuses(name: str, data_dir: Place = None) -> list[FileStatus]:
    """What is known of the files of a set; empty where there are none, or none that its name alone tells."""
    if name == "imagenet":
        return imagenet_status(data_dir)
    return files.data_status(name, data_dir) or _presence(name, data_dir)


def remedy(name: str) -> str:
    """What a set of which `statuses` knows no files needs, in words."""
    return "needs a path" if "path" in registry.get_data(name).defaults else "needs no files"


def _presence(name: str, data_dir: Place) -> list[FileStatus]:
    """Whether the files that a plugin lists are there."""
    if name in FILE_SETS:
        return []
    paths = [files.data_folder(data_dir) / path for path in registry.get_data(name).files]
    return [FileStatus(path, "ok" if path.exists() else "missing", "", "") for path in paths]


def _check_folder(path: str, data_dir: Place) -> None:
    read_layout(find_folder(path, data_dir))


def _check_imagenet(path: str, data_dir: Place) -> None:
    find_imagenet(data_dir)


_CHECKS: Mapping[str, Callable[[str, Place], None]] = MappingProxyType(
    {"image-folder": _check_folder, "imagenet": _check_imagenet}
)
