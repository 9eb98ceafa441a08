"""The report of a study: one HTML page that works offline, with figures and tables as files beside it.

    path = write_report("runs/digits")      # runs/digits/report/report.html

The page is made again only when what it is made from has changed: the plan, the runs or this package.
Checking that is quick, so everything heavy is imported inside functions.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insgd_lab.store import StoreError, StudyFolder, disk_error, read_json, replacing, write_json

if TYPE_CHECKING:
    from insgd_lab.analysis.contents import Results, Words
    from insgd_lab.analysis.drawings import Drawing
    from insgd_lab.analysis.runs import Study
    from insgd_lab.analysis.saving import Saver
    from insgd_lab.analysis.tables import Table

__all__ = ["is_current", "report_path", "write_report"]

_SOURCES = Path(__file__).parent


def report_path(study_dir: str | Path) -> Path:
    """Where the report of a study is written."""
    return StudyFolder(study_dir).report_path / "report.html"


def is_current(study_dir: str | Path) -> bool:
    """Whether the report exists and was made from the files that are there now."""
    return _is_made_from(study_dir, _digest(Path(study_dir)))


def write_report(study_dir: str | Path, force: bool = False, tell: Callable[[str], object] | None = None) -> Path:
    """Write the report of a study unless it is current, and return its path.

    Args:
        study_dir: the study's folder.
        force: whether to write it even if it is current.
        tell: what to call with each thing that is done next, in words.

    Raises:
        StoreError: the folder holds no study; or the disk refuses (`DiskError`).
        PublishedError: the study compares itself with a table that is not on record.
    """
    path = report_path(study_dir)
    digest = _digest(Path(study_dir))  # before reading: a run that finishes meanwhile makes the report stale
    if not force and _is_made_from(study_dir, digest):
        return path
    from insgd_lab.analysis.saving import Saver

    with Saver(path.parent) as saver:  # first, for its helper comes up meanwhile
        from insgd_lab.analysis.runs import load_study

        tell = tell or _silent
        tell("reading the runs")
        study = load_study(study_dir)
        try:
            files = _replace(study, path, saver, tell)
            write_json(path.parent / ".inputs.json", {"digest": digest, "files": files})
        except OSError as error:
            raise disk_error(path, error) from error
    return path


def _silent(doing: str) -> None:
    """Tell nobody."""


def _replace(study: Study, path: Path, saver: Saver, tell: Callable[[str], object]) -> list[str]:
    """Write the report in the place of an earlier one; returns the names of the files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in _made_from(study.path).get("files", []):
        old = path.parent / Path(name).name  # only within the folder, whatever the list says
        if old.is_file():
            old.unlink()
    return _write(study, path, saver, tell)


# ------------------------------------------------------------------------------------------------ freshness


def _is_made_from(study_dir: str | Path, digest: str) -> bool:
    return report_path(study_dir).is_file() and _made_from(study_dir).get("digest") == digest


def _made_from(study_dir: str | Path) -> dict[str, Any]:
    try:
        return read_json(report_path(study_dir).parent / ".inputs.json")
    except StoreError:
        return {}


def _digest(folder: Path) -> str:
    """A hash over the plan, every run.json, the sizes of the tables, and what the report is made with."""
    digest = hashlib.blake2b(digest_size=16)
    study = folder / "study.json"
    for path in [*([study] if study.is_file() else []), *_own_files()]:
        digest.update(path.name.encode() + path.read_bytes())
    for inner in sorted(entry.path for entry in os.scandir(folder) if entry.is_dir()) if folder.is_dir() else ():
        for name, content in _contents(inner):
            digest.update(f"{os.path.basename(inner)}/{name} ".encode() + content)
    return digest.hexdigest()


def _contents(folder: str) -> Iterator[tuple[str, bytes]]:
    """The run.json of a run, and the sizes of its tables."""
    for file in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if file.name == "run.json":
            with open(file.path, "rb") as opened:
                yield file.name, opened.read()
        elif file.name.endswith(".parquet"):
            yield file.name, str(file.stat().st_size).encode()


def _own_files() -> list[Path]:
    papers = _papers()
    own = [*_SOURCES.rglob("*.py"), *(_SOURCES / "templates").iterdir(), *(_SOURCES / "fonts").iterdir(), *papers]
    return sorted(path for path in own if path.is_file())


def _papers() -> list[Path]:
    from importlib import resources

    folder = Path(str(resources.files("insgd_lab.experiments").joinpath("papers")))
    return list(folder.glob("*.toml"))


# ------------------------------------------------------------------------------------------------ the page


def _write(study: Study, path: Path, saver: Saver, tell: Callable[[str], object]) -> list[str]:
    """Write page, figures and tables; returns the names of the files.

    Figures are drawn first, for the helper has nothing to do until then.
    """
    from insgd_lab.analysis.contents import compute, report_drawings, report_tables, report_words

    tell("comparing")
    results = compute(study)
    drawn: list[Drawing] = []
    for drawing in report_drawings(results):
        tell(f"drawing figures, {len(drawn) + 1} so far: {drawing.name}")
        saver.save(drawing.figure, drawing.name)
        drawn.append(drawing)
    tell("writing tables")
    tables, words = report_tables(results), report_words(results)
    files = [file.name for table in tables.values() for file in table.save(path.parent)]
    tell(f"saving {len(drawn)} figures")
    saved = saver.finish()
    page = _render(results, words, tables, drawn, saved)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return [*files, *(file.name for paths in saved.values() for file in paths.values()), path.name]


def _render(
    results: Results,
    words: Words,
    tables: dict[str, Table],
    drawn: Sequence[Drawing],
    saved: dict[str, dict[str, Path]],
) -> str:
    import jinja2

    from insgd_lab.analysis.convergence_tables import rates_note
    from insgd_lab.analysis.drawings import embedded
    from insgd_lab.analysis.measures import reported
    from insgd_lab.analysis.setup import setup

    study = results.study
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((_SOURCES / "templates" / "report.html.j2").read_text("utf-8"))
    return template.render(
        study=study,
        title=study.info.get("title") or study.info.get("name") or os.fspath(study.path.name),
        notice=words.notice,
        summary=words.summary,
        introduction=words.introduction,
        findings=words.findings,
        tables=tables,
        images={drawing.name: embedded(drawing, saved[drawing.name]) for drawing in drawn},
        reproduction=results.reproduction,
        setup=setup(study),
        measure=reported(study),
        rates_note=rates_note(study),
    )
