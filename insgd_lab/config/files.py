"""Studies as TOML files: those packaged with insgd_lab, and a reader's own, each perhaps over another as its base.

base = "digits"           # or a .toml file, relative to this one
name = "digits-long"
train = { epochs = 20 }
"""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from insgd_lab.config.merging import merged_study
from insgd_lab.config.problems import ConfigError, Missing, Problem, unknown
from insgd_lab.config.study import StudySpec, parse_study

__all__ = ["list_studies", "load_study", "read_study", "read_toml"]


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
    raw, source = read_study(name_or_path)
    return parse_study(raw, source, plugins)


def read_study(name_or_path: str | Path) -> tuple[dict[str, Any], str]:
    """Read a study without checking it: its tables, laid over those of its base if it names one, and their source.

    Raises:
        ConfigError: there is no such study, or it or a base of it is missing, is not TOML, or is its own base.
    """
    tables, sources = _read_study(str(name_or_path), Path(), ())
    return tables, " over ".join(sources)


def _read_study(name: str, folder: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], list[str]]:
    """Read a study that is named in a file in `folder`; `above` are the files that have it as a base."""
    with _file_of(name, folder) as path:
        found = path.resolve()
        if found in above:
            chain = " over ".join(file.name for file in (*above, found))
            raise ConfigError(
                str(above[0]), [Problem(("base",), name, f"comes back to itself: {chain}; end the chain")]
            )
        tables = read_toml(path)
        if "base" not in tables:
            return tables, [name]
        base = tables.pop("base")
        if not isinstance(base, str):
            message = "expected the path of a .toml file, or the name of a packaged study"
            raise ConfigError(name, [Problem(("base",), base, message)])
        beneath, sources = _read_study(base, path.parent, (*above, found))
        return merged_study(beneath, tables), [name, *sources]


@contextmanager
def _file_of(name: str, folder: Path) -> Iterator[Path]:
    """The file of a study: a .toml file relative to `folder`, or a packaged one."""
    if name.endswith(".toml"):
        yield folder / name
        return
    if name not in list_studies():
        message = f"{unknown(name, list_studies(), 'study')} (a file of your own ends in .toml)"
        raise ConfigError("study", [Problem((), Missing(), message)])
    resource = importlib.resources.files("insgd_lab.experiments").joinpath(f"{name}.toml")
    with importlib.resources.as_file(resource) as path:
        yield path


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
