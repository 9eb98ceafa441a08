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

from insgd_lab.analysis.convergence_tables import convergence_tables
from insgd_lab.analysis.drawings import Drawing, drawings
from insgd_lab.analysis.effects import Inert, inert_levels, main_effects
from insgd_lab.analysis.family import Family, family_of
from insgd_lab.analysis.layer_findings import interventions_table, layer_findings, speeds_table
from insgd_lab.analysis.layers import LayerRecords, layer_records
from insgd_lab.analysis.option_series import valleys_table
from insgd_lab.analysis.reproduction import Reproduction
from insgd_lab.analysis.reproduction_findings import published_sentences
from insgd_lab.analysis.result_drawings import result_drawings
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choices, choose
from insgd_lab.analysis.statements import findings, headline, mixture
from insgd_lab.analysis.summary import in_short
from insgd_lab.analysis.tables import Table, divergence_table, effects_table, failures_table, results_table
from insgd_lab.analysis.verdicts import (
    changed_primary,
    comparisons_table,
    exploratory_sentences,
    introduction,
    primary_sentences,
)

__all__ = ["Results", "Words", "compute", "report_drawings", "report_tables", "report_words"]


@dataclass(frozen=True)
class Results:
    """What tables, figures and sentences are made from."""

    study: Study
    choices: Choices
    effects: pd.DataFrame
    inert: Sequence[Inert]
    records: Sequence[LayerRecords]
    family: Family
    """Every statement that is tested, corrected together."""

    @property
    def reproduction(self) -> Reproduction | None:
        """The study beside a published table, if it names one."""
        return self.family.reproduction


@dataclass(frozen=True)
class Words:
    """The notice at the top of the page, what came out in short, and the findings under their headings."""

    notice: str
    summary: list[str]
    """Who is better, and what next."""
    introduction: str
    findings: dict[str, list[str]]


def compute(study: Study) -> Results:
    """Everything that more than one part of the page needs."""
    choices = choose(study)
    records = layer_records(study, choices)
    return Results(
        study=study,
        choices=choices,
        effects=main_effects(study, choices),
        inert=inert_levels(study),
        records=records,
        family=family_of(study, choices, records),
    )


def report_tables(results: Results) -> dict[str, Table]:
    """The tables by the names that the page's template knows."""
    study, choices = results.study, results.choices
    tables = {
        "comparisons": comparisons_table(study, results.family.comparisons),
        "best": results_table(study, choices, "best"),
        "effects": effects_table(study, results.effects),
        "failures": failures_table(study),
        "divergences": divergence_table(study),
        "layer-speeds": speeds_table(results.family.speeds),
        "interventions": interventions_table(results.records),
        "learning-rates": valleys_table(study),
        **convergence_tables(study, choices),
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
        result_drawings(study, choices, results.family),
    )


def report_words(results: Results) -> Words:
    """What the page says in sentences."""
    study, choices, family = results.study, results.choices, results.family
    reproduction, compared = family.reproduction, family.comparisons
    changed = changed_primary(study)
    return Words(
        notice=" ".join(filter(None, (headline(study), mixture(study), changed))),
        summary=in_short(study, choices, compared),
        introduction=introduction(study, family),
        findings={
            f"Primary test{', changed after results were there' if changed else ''}": primary_sentences(
                study, compared, choices
            ),
            "Exploratory tests": exploratory_sentences(study, compared),
            "Published and here": published_sentences(study, reproduction) if reproduction else [],
            "Arms and axes": findings(study, choices, compared, results.inert),
            "Layers": layer_findings(results.records, family.speeds),
        },
    )
