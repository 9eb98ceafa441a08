"""The report of a study: one HTML page that works offline, with figures and tables as files beside it.

    path = write_report("runs/digits")      # runs/digits/report/report.html

The page is made again only when what it is made from has changed: the plan, the runs or this package.
Checking that is quick, so everything heavy is imported inside functions.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insgd_lab.store import StoreError, StudyFolder, disk_error, read_json, replacing, write_json

if TYPE_CHECKING:
    from insgd_lab.analysis.reproduction import Reproduction
    from insgd_lab.analysis.runs import Study
    from insgd_lab.analysis.tables import Table

__all__ = ["is_current", "report_path", "write_report"]

_SOURCES = Path(__file__).parent


def report_path(study_dir: str | Path) -> Path:
    """Where the report of a study is written."""
    return StudyFolder(study_dir).report_path / "report.html"


def is_current(study_dir: str | Path) -> bool:
    """Whether the report exists and was made from the files that are there now."""
    return _is_made_from(study_dir, _digest(Path(study_dir)))


def write_report(study_dir: str | Path, force: bool = False) -> Path:
    """Write the report of a study unless it is current, and return its path.

    Raises:
        StoreError: the folder holds no study; or the disk refuses (`DiskError`).
        PublishedError: the study compares itself with a table that is not on record.
    """
    path = report_path(study_dir)
    digest = _digest(Path(study_dir))  # before reading: a run that finishes meanwhile makes the report stale
    if not force and _is_made_from(study_dir, digest):
        return path
    from insgd_lab.analysis.runs import load_study

    study = load_study(study_dir)
    try:
        files = _replace(study, path)
        write_json(path.parent / ".inputs.json", {"digest": digest, "files": files})
    except OSError as error:
        raise disk_error(path, error) from error
    return path


def _replace(study: Study, path: Path) -> list[str]:
    """Write the report in the place of an earlier one; returns the names of the files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in _made_from(study.path).get("files", []):
        old = path.parent / Path(name).name  # only within the folder, whatever the list says
        if old.is_file():
            old.unlink()
    return _write(study, path)


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
    own = [*_SOURCES.rglob("*.py"), *(_SOURCES / "templates").iterdir(), *papers]
    return sorted(path for path in own if path.is_file())


def _papers() -> list[Path]:
    from importlib import resources

    folder = Path(str(resources.files("insgd_lab.experiments").joinpath("papers")))
    return list(folder.glob("*.toml"))


# ------------------------------------------------------------------------------------------------ the page


def _write(study: Study, path: Path) -> list[str]:
    """Write page, figures and tables; returns the names of the files."""
    from insgd_lab.analysis.convergence_tables import convergence_tables
    from insgd_lab.analysis.drawings import drawings, embedded
    from insgd_lab.analysis.effects import inert_levels, main_effects
    from insgd_lab.analysis.family import family_of
    from insgd_lab.analysis.layer_findings import interventions_table, layer_findings, speeds_table
    from insgd_lab.analysis.layers import layer_records
    from insgd_lab.analysis.option_series import valleys_table
    from insgd_lab.analysis.reproduction_findings import published_sentences
    from insgd_lab.analysis.result_drawings import result_drawings
    from insgd_lab.analysis.saving import Saver
    from insgd_lab.analysis.selection import choose
    from insgd_lab.analysis.statements import findings, headline, mixture
    from insgd_lab.analysis.tables import divergence_table, effects_table, failures_table, results_table
    from insgd_lab.analysis.verdicts import (
        changed_primary,
        comparisons_table,
        exploratory_sentences,
        introduction,
        primary_sentences,
    )

    choices = choose(study)
    effects, inert = main_effects(study, choices), inert_levels(study)
    records = layer_records(study, choices)
    family = family_of(study, choices, records)
    compared, reproduction = family.comparisons, family.reproduction
    tables = {
        "comparisons": comparisons_table(study, compared),
        "best": results_table(study, choices, "best"),
        "effects": effects_table(study, effects),
        "failures": failures_table(study),
        "divergences": divergence_table(study),
        "layer-speeds": speeds_table(family.speeds),
        "interventions": interventions_table(records),
        "learning-rates": valleys_table(study),
        **convergence_tables(study, choices),
    }
    if study.tuned:
        tables["fixed"] = results_table(study, choices, "fixed")
    if reproduction:
        tables["published"] = reproduction.table
    files = [file.name for table in tables.values() for file in table.save(path.parent)]
    drawn = {}
    with Saver(path.parent) as saver:
        results = result_drawings(study, choices, family)
        for drawing in itertools.chain(drawings(study, choices, effects, inert, records), results):
            saver.save(drawing.figure, drawing.name)
            drawn[drawing.name] = drawing
    files += [file.name for saved in saver.paths.values() for file in saved.values()]
    images = {name: embedded(drawing, saver.paths[name]) for name, drawing in drawn.items()}
    page = _render(
        study,
        notice=" ".join(filter(None, (headline(study), mixture(study), changed_primary(study)))),
        introduction=introduction(study, family),
        findings={
            "Primary test": primary_sentences(study, compared),
            "Exploratory tests": exploratory_sentences(study, compared),
            "Published and here": published_sentences(study, reproduction) if reproduction else [],
            "Arms and axes": findings(study, choices, compared, inert),
            "Layers": layer_findings(records, family.speeds),
        },
        tables=tables,
        images=images,
        reproduction=reproduction,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return [*files, path.name]


def _render(
    study: Study,
    *,
    notice: str,
    introduction: str,
    findings: dict[str, list[str]],
    tables: dict[str, Table],
    images: dict[str, Any],
    reproduction: Reproduction | None,
) -> str:
    import jinja2

    from insgd_lab.analysis.measures import reported
    from insgd_lab.analysis.setup import setup

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((_SOURCES / "templates" / "report.html.j2").read_text("utf-8"))
    return template.render(
        study=study,
        title=study.info.get("title") or study.info.get("name") or os.fspath(study.path.name),
        notice=notice,
        introduction=introduction,
        findings=findings,
        tables=tables,
        images=images,
        reproduction=reproduction,
        setup=setup(study),
        measure=reported(study),
    )
