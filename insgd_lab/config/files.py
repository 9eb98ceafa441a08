"""Studies as TOML files: those packaged with insgd_lab, and a reader's own."""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from insgd_lab.config.problems import ConfigError, Missing, Problem, unknown
from insgd_lab.config.study import StudySpec, parse_study

__all__ = ["list_studies", "load_study", "read_toml"]


def list_studies() -> list[str]:
    """Return the names of the studies packaged with insgd_lab."""
    root = importlib.resources.files("insgd_lab.experiments")
    with importlib.resources.as_file(root) as folder:
        found = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.toml"))
        return sorted(name.as_posix() for name in found if name.parts[0] not in ("papers", "results"))


def load_study(name_or_path: str | Path, plugins: Sequence[str] = ()) -> StudySpec:
    """Read and check a study: the path of a .toml file, or the name of a packaged one such as "digits".

    Raises:
        ConfigError: there is no such study, it is not TOML, or it has mistakes (all are listed).
    """
    name = str(name_or_path)
    if name.endswith(".toml"):
        return parse_study(read_toml(name), name, plugins)
    if name not in list_studies():
        message = f"{unknown(name, list_studies(), 'study')} (a file of your own ends in .toml)"
        raise ConfigError("study", [Problem((), Missing(), message)])
    resource = importlib.resources.files("insgd_lab.experiments").joinpath(f"{name}.toml")
    with importlib.resources.as_file(resource) as path:
        return parse_study(read_toml(path), name, plugins)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read the tables of a TOML file.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise ConfigError(str(path), [Problem((), Missing(), f"{reason}; check the path")]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [Problem((), Missing(), f"is not TOML: {error}")]) from None
