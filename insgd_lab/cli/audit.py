"""`insgd-lab audit`: the papers' tables recomputed, and what does not agree."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insgd_lab.cli.common import plain_errors

if TYPE_CHECKING:
    from insgd_lab.analysis.audit import Audit, Comparison

_WIDTH = 100
_TIED = "\N{NO-BREAK SPACE}"
_TESTED = ("diff.", "95 %\ninterval", "p", "Holm", "by\nrounding", "n", "n for\n80 %")
_UNTESTED = ("diff.", "tells if\nsd <", "in\nfamily", "n")
_HEADINGS = {
    "verdicts": "What stands",
    "claim": "What the text says of the tables",
    "disagreement": "What does not agree with itself",
    "agreement": "What agrees",
    "spread": "Standard deviations",
    "missing": "What is not printed",
    "selection": "What was chosen",
    "rule": "The update rule, as printed",
    "code": "The published code computes something else",
}
_LEGEND = (
    "p: Welch's test; Holm: p corrected over the table and metric, and what it can be by rounding of the printed "
    "figures; n?: assumed, since none is printed; n for 80 %: runs an arm for 80 % power at this difference in one "
    "such test; tells if sd <: the sd of both arms below which p < 0.05, by itself and corrected for its family."
)


def audit(
    paper: Annotated[str | None, typer.Argument(help="Only this paper: insgd or adanorm.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write comparisons, gains and findings there.")
    ] = None,
) -> None:
    """Recompute the papers' tables: what stands, what is noise, what does not agree."""
    with plain_errors():
        from insgd_lab.analysis import audit as auditing

        found = auditing.audit(None if paper is None else [paper])
        if json_file is not None:
            json_file.write_text(
                json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False, indent=1) + "\n", "utf-8"
            )
        _print_tables(found)
        _print_findings(found)


def _print_tables(found: Audit) -> None:
    from insgd_lab.analysis.published import load_paper

    for name, of_paper in groupby(found.comparisons, key=lambda one: one.paper):
        paper = load_paper(name)
        typer.echo(f"{paper.citation}: each optimizer of the paper against its baseline\n")
        for (number, metric), group in groupby(of_paper, key=lambda one: (one.table, one.metric)):
            table = paper.find_table(number)
            task = " on ".join(filter(None, [table.model, table.data]))
            place = f"Table {number}" if table.document == "paper" else table.document.capitalize()
            title = f"{place}: {f'{task}, ' if task else ''}{metric} ({table.unit})"
            _print_table(title, list(group), table.within)


def _print_table(title: str, ones: Sequence[Comparison], within: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from insgd_lab.analysis.labels import name_label

    tested, narrow = ones[0].p is not None, _width() < _WIDTH
    table = Table(box=None, padding=(0, 1 if narrow else 2, 0, 0), pad_edge=False)
    conditions = [name_label(name.split(".")[-1]).replace(" ", "\n") for name in within]  # in two lines, to be narrow
    for name in (*conditions, "optimizer", *(() if tested or narrow else ("against",))):
        table.add_column(_lowered(name), overflow="fold")
    for name in _TESTED if tested else _UNTESTED:
        table.add_column(_lowered(name), justify="right", overflow="fold")
    table.add_column(_lowered("verdict"), no_wrap=True)
    for one in ones:
        table.add_row(*_row(one, within, narrow))
    _say(title)
    Console(width=_width(), highlight=False).print(table)
    typer.echo()


def _lowered(heading: str) -> str:
    """On the second of two lines, if it has one only."""
    return heading if "\n" in heading else f"\n{heading}"


def _width() -> int:
    """As wide as the terminal (or $COLUMNS), but lines longer than this are hard to read."""
    return min(shutil.get_terminal_size((_WIDTH, 24)).columns, _WIDTH)


def _row(one: Comparison, within: Sequence[str], narrow: bool) -> Iterator[str]:
    """The cells of a comparison; on a narrow terminal what has two parts is set in two lines."""
    from insgd_lab.analysis.labels import value_label

    then = "\n" if narrow else ""
    yield from (value_label(one.condition[name]) for name in within)
    yield from _tested(one, then) if one.p is not None else _untested(one, narrow)
    yield one.verdict


def _tested(one: Comparison, then: str) -> Iterator[str]:
    from insgd_lab.analysis.labels import signed

    low, high = one.interval or (float("nan"), float("nan"))
    spread = dict.fromkeys([_p(one.p_holm_low), _p(one.p_holm_high)])
    yield from (_printed(one, one.optimizer), signed(one.difference), f"{signed(low)} to{then or ' '}{signed(high)}")
    yield from (_p(one.p), _p(one.p_holm), f"–{then}".join(spread), _runs(one), str(one.n_needed or "–"))


def _untested(one: Comparison, narrow: bool) -> Iterator[str]:
    from insgd_lab.analysis.labels import signed

    arm, base = _printed(one, one.optimizer), _printed(one, one.baseline)
    yield from (f"{arm}\nagainst {base}",) if narrow else (arm, base)
    yield from (signed(one.difference), f"{one.sd_bound:.3f}", f"{one.sd_bound_family:.3f}", _runs(one))


def _printed(one: Comparison, optimizer: str) -> str:
    from insgd_lab.analysis.published import load_paper

    return load_paper(one.paper).printed_name(optimizer, one.table)


def _runs(one: Comparison) -> str:
    return str(one.n) + "?" * (not one.n_printed)


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _print_findings(found: Audit) -> None:
    from insgd_lab.analysis.audit import VERDICTS
    from insgd_lab.analysis.published import load_paper

    _say(f"{_LEGEND}{_spread(found)} Verdicts:")
    for verdict, meaning in VERDICTS.items():
        _say(f"{verdict}: {meaning}.", "- ")
    for paper, group in groupby(found.findings, key=lambda one: one.paper):
        ones = list(group)
        typer.echo(f"\n{load_paper(paper).citation}: findings")
        for kind, heading in _HEADINGS.items():
            told = [one.statement for one in ones if one.kind == kind]
            if told:
                typer.echo(f"\n{heading}")
            for statement in told:
                _say(statement, "- ")


def _spread(found: Audit) -> str:
    """How ± was read, if it had to be read somehow."""
    from insgd_lab.analysis.audit.comparisons import assumption
    from insgd_lab.analysis.published import load_paper

    papers = dict.fromkeys(one.paper for one in found.comparisons if one.sd_stated is False)
    read = dict.fromkeys(assumption(load_paper(paper), [], True) for paper in papers)
    return "".join(f" Assumed: {text}." for text in read)


def _say(text: str, bullet: str = "") -> None:
    kept = re.sub(r" (=|%|<) ?", lambda found: found[0].replace(" ", _TIED), text)  # "p = 0.15" stays on one line
    filled = textwrap.fill(kept, _width(), initial_indent=bullet, subsequent_indent=" " * len(bullet))
    typer.echo(filled.replace(_TIED, " "))
