"""What a report consists of: results, computed once, and the tables, figures and sentences that are made from them.

    results = compute(load_study("runs/digits"))
    report_tables(results)["best"].frame
    for drawing in report_drawings(results): ...
    report_words(results).findings["Primary test"]

`report` puts them onto a page.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from insgd_lab.analysis.comparisons import compare
from insgd_lab.analysis.drawings import Drawing, drawings
from insgd_lab.analysis.effects import Inert, inert_levels, main_effects
from insgd_lab.analysis.layer_findings import interventions_table, layer_findings, speeds_table
from insgd_lab.analysis.layers import LayerRecords, layer_records
from insgd_lab.analysis.option_series import valleys_table
from insgd_lab.analysis.reproduction import Reproduction, reproduce
from insgd_lab.analysis.result_drawings import result_drawings
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choices, choose
from insgd_lab.analysis.statements import comparisons, findings, headline, mixture
from insgd_lab.analysis.tables import Table, divergence_table, effects_table, failures_table, results_table
from insgd_lab.analysis.verdicts import comparisons_table, exploratory_sentences, introduction, primary_sentences

__all__ = ["Results", "Words", "compute", "report_drawings", "report_tables", "report_words"]


@dataclass(frozen=True)
class Results:
    """What tables, figures and sentences are made from."""

    study: Study
    choices: Choices
    effects: pd.DataFrame
    inert: Sequence[Inert]
    reproduction: Reproduction | None
    records: Sequence[LayerRecords]
    compared: pd.DataFrame


@dataclass(frozen=True)
class Words:
    """The notice at the top of the page, what its findings are, and the findings under their headings."""

    notice: str
    introduction: str
    findings: dict[str, list[str]]


def compute(study: Study) -> Results:
    """Everything that more than one part of the page needs."""
    choices = choose(study)
    return Results(
        study=study,
        choices=choices,
        effects=main_effects(study, choices),
        inert=inert_levels(study),
        reproduction=reproduce(study, choices),
        records=layer_records(study, choices),
        compared=compare(study, choices),
    )


def report_tables(results: Results) -> dict[str, Table]:
    """The tables by the names that the page's template knows."""
    study, choices = results.study, results.choices
    tables = {
        "comparisons": comparisons_table(study, results.compared),
        "best": results_table(study, choices, "best"),
        "effects": effects_table(study, results.effects),
        "failures": failures_table(study),
        "divergences": divergence_table(study),
        "layer-speeds": speeds_table(results.records),
        "interventions": interventions_table(results.records),
        "learning-rates": valleys_table(study),
    }
    if study.tuned:
        tables["fixed"] = results_table(study, choices, "fixed")
    if results.reproduction:
        tables["published"] = results.reproduction.table
    return tables


def report_drawings(results: Results) -> Iterator[Drawing]:
    """The figures, each drawn when it is asked for."""
    study, choices = results.study, results.choices
    return itertools.chain(
        drawings(study, choices, results.effects, results.inert, results.records),
        result_drawings(study, choices, results.compared, results.reproduction),
    )


def report_words(results: Results) -> Words:
    """What the page says in sentences."""
    study, choices, compared = results.study, results.choices, results.compared
    return Words(
        notice=" ".join(filter(None, (headline(study), mixture(study)))),
        introduction=introduction(study, compared),
        findings={
            "Primary test": primary_sentences(study, compared),
            "Exploratory tests": exploratory_sentences(study, compared),
            "Published and here": comparisons(results.reproduction) if results.reproduction else [],
            "Arms and axes": findings(study, choices, results.effects, results.inert),
            "Layers": layer_findings(results.records),
        },
    )
