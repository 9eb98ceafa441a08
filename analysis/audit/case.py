"""What findings are made from: one paper, its comparisons and gains, and the words for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from insgd_lab.analysis.audit.comparisons import assumed
from insgd_lab.analysis.audit.records import VERDICTS, Comparison, Finding, Gain, Kind
from insgd_lab.analysis.labels import name_label, p_text, signed, value_label
from insgd_lab.analysis.published import Paper, PublishedCell, PublishedError

__all__ = [
    "Case",
    "condition_text",
    "counted",
    "distinct",
    "equation",
    "expect",
    "listed",
    "metric_name",
    "table_name",
    "tables_name",
]


@dataclass(frozen=True)
class Case:
    """One paper under audit."""

    paper: Paper
    comparisons: tuple[Comparison, ...]
    gains: tuple[Gain, ...]

    def finding(
        self,
        name: str,
        kind: Kind,
        statement: str,
        evidence: Iterable[str],
        assumes: str | None = None,
        *,
        of: Iterable[Comparison] = (),
    ) -> Finding:
        """A finding about this paper.

        Args:
            name: its own, which the paper's is put in front of.
            kind: under which heading it stands.
            statement: one or a few sentences.
            evidence: places and words, or numbers.
            assumes: on what condition it holds, where the comparisons do not say.
            of: the comparisons that it rests on, whose assumptions it shares.
        """
        known = assumes or assumed(self.paper, of)
        return Finding(f"{self.paper.paper}/{name}", self.paper.paper, kind, statement, tuple(evidence), known)

    def quoted(self, claim: str) -> str:
        """A claim's words and place."""
        found = self.paper.claim(claim)
        return f"{self.place(claim)}: “{found.quote}”"

    def place(self, claim: str) -> str:
        """Where a claim stands: "abstract", "abstract of project page a"."""
        found = self.paper.claim(claim)
        return found.place if found.document == "paper" else f"{found.place} of {found.document}"

    def cell(self, table: str, optimizer: str, condition: Mapping[str, Any] | None = None) -> PublishedCell:
        """The one cell of an optimizer under a condition, in the table's own metric."""
        [cell] = self.paper.cells(table, optimizer, condition=condition)
        return cell

    def means(self, table: str, optimizer: str, condition: Mapping[str, Any] | None = None) -> list[float]:
        """The means of an optimizer in a table, in printed order."""
        return [cell.mean for cell in self.paper.cells(table, optimizer, condition=condition)]

    def printed(self, cell: PublishedCell) -> str:
        """A cell in words: "SGD 93.06 ± 0.11"."""
        spread = "" if cell.sd is None else f" ± {cell.sd:.{cell.decimals}f}"
        return f"{self.name(cell.optimizer, cell.table)} {cell.mean:.{cell.decimals}f}{spread}"

    def row(self, table: str, optimizers: Sequence[str], condition: Mapping[str, Any] | None = None) -> str:
        """Cells of a table side by side, as evidence."""
        cells = [self.printed(self.cell(table, optimizer, condition)) for optimizer in optimizers]
        under = f", {condition_text(condition, condition)}" if condition else ""
        return f"{table_name(table)}{under}: {', '.join(cells)}"

    def name(self, optimizer: str, table: str | None = None) -> str:
        """The printed name of an optimizer."""
        return self.paper.printed_name(optimizer, table)

    def find(
        self, table: str, optimizer: str | None = None, condition: Mapping[str, Any] | None = None
    ) -> Iterator[Comparison]:
        """The comparisons of a table, optimizer and (part of a) condition."""
        for one in self.comparisons:
            fits = all(one.condition.get(name) == value for name, value in (condition or {}).items())
            if one.table == table and optimizer in (None, one.optimizer) and fits:
                yield one

    def told(self, one: Comparison) -> str:
        """A comparison by its arm: "INSGD-ℓ2 (+8.76)"."""
        return self._told([one], "")

    def judged(self, ones: Sequence[Comparison]) -> str:
        """One comparison, at each n that is assumed for it, with its verdict: "INSGD-ℓ2 (+0.06, within noise)"."""
        groups = [list(group) for _, group in groupby(ones, key=lambda one: one.verdict)]
        at = [listed([f"at n = {one.n}" for one in group if not one.n_printed] or [""]) for group in groups]
        verdicts = [f"{group[0].verdict} {n}".rstrip() for group, n in zip(groups, at, strict=True)]
        return self._told(ones, f", {listed(verdicts)}")

    def _told(self, ones: Sequence[Comparison], verdict: str) -> str:
        """With what the arm and its baseline do not share: "(+3.60, learning rate = 0.05 against 0.01)"."""
        one = ones[0]
        name, own, base = self.name(one.optimizer, one.table), one.condition, one.baseline_condition
        apart = [
            f", {condition_text(own, [key])} against {value_label(base[key])}"
            for key in own
            if own[key] != base.get(key)
        ]
        return f"{name} ({signed(one.difference)}{''.join(apart)}{verdict})"

    def where(self, one: Comparison) -> str:
        """Table, the condition that the arm shares with its baseline, and the metric if the table has several."""
        table = self.paper.find_table(one.table)
        condition = condition_text(one.condition, table.within)
        metric = metric_name(one.metric) if table.metrics else ""
        return ", ".join(filter(None, [table_name(one.table), condition, metric]))

    def rows(self, ones: Iterable[Comparison]) -> list[list[Comparison]]:
        """Comparisons by the row and metric that they are of: one each, or one at each n that is assumed."""
        found: dict[object, list[Comparison]] = {}
        for one in ones:
            key = (one.table, one.metric, one.optimizer, tuple(one.condition.items()))
            found.setdefault(key, []).append(one)
        return list(found.values())


def expect(holds: bool, said: str) -> None:
    """Refuse a sentence that the cells on record do not bear out.

    Raises:
        PublishedError: `holds` is false.
    """
    if not holds:
        raise PublishedError(
            f"a finding of the audit says that {said}, which the cells in experiments/papers do not bear out: correct "
            "the cell that was changed, or reword the finding"
        )


def equation(p: float | None) -> str:
    """A p-value that there must be, in words: "p = 0.25", "p < 0.001"."""
    if p is None:
        raise PublishedError("a finding of the audit tells a p-value of cells that print no sd: give it or reword it")
    return "p < 0.001" if p < 0.001 else f"p = {p_text(p)}"


def distinct(ones: Iterable[Comparison]) -> list[Comparison]:
    """Comparisons without those of rows that an earlier table prints already, with the same figures."""
    first: dict[object, str] = {}
    found = []
    for one in ones:
        key = (one.optimizer, one.metric, one.mean, one.sd, one.baseline_mean, one.baseline_sd)
        if first.setdefault(key, one.table) == one.table:
            found.append(one)
    return found


def counted(ones: Sequence[Comparison]) -> str:
    """Verdicts and their numbers: "10 stand and 18 are within noise"."""
    counts = Counter(one.verdict for one in ones)
    words = {"stands": "stand" if counts["stands"] > 1 else "stands"}
    verb = {name: words.get(name, f"{'are' if counts[name] > 1 else 'is'} {name}") for name in VERDICTS}
    return listed([f"{counts[name]} {verb[name]}" for name in VERDICTS if counts[name]])


def table_name(number: str) -> str:
    """What a table is called in a sentence: "Table 6", "The table of page b"."""
    return f"Table {number}" if number.isdigit() else f"The table of {number}"


def tables_name(numbers: Sequence[str]) -> str:
    """Numbered tables in a sentence: "Table 6", "Tables 3, 4 and 5"."""
    return f"Table{'s' * (len(numbers) > 1)} {listed(list(numbers))}"


def metric_name(metric: str) -> str:
    """What tells the metrics of one table apart: "top-1", "top-5"."""
    return metric.split(" accuracy")[0].split()[-1]


def condition_text(condition: Mapping[str, Any], names: Iterable[str]) -> str:
    """The named parts of a condition: "batch size = 256"."""
    return ", ".join(f"{name_label(name.split('.')[-1])} = {value_label(condition[name])}" for name in names)


def listed(items: Sequence[str]) -> str:
    """Items with commas and an "and"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
