"""What findings are made from: one paper, its comparisons and gains, and the words for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from insgd_lab.analysis.audit.records import Comparison, Finding, Gain, Kind
from insgd_lab.analysis.labels import name_label, signed, value_label
from insgd_lab.analysis.published import Paper, PublishedCell

__all__ = ["Case", "condition_text", "listed", "p_text", "table_name"]


@dataclass(frozen=True)
class Case:
    """One paper under audit."""

    paper: Paper
    comparisons: tuple[Comparison, ...]
    gains: tuple[Gain, ...]

    def finding(
        self, name: str, kind: Kind, statement: str, evidence: Iterable[str], assumes: str | None = None
    ) -> Finding:
        """A finding about this paper."""
        return Finding(f"{self.paper.paper}/{name}", self.paper.paper, kind, statement, tuple(evidence), assumes)

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
        return f"{self.name(one.optimizer, one.table)} ({signed(one.difference)})"

    def where(self, one: Comparison) -> str:
        """Table and the condition that the arm shares with its baseline."""
        condition = condition_text(one.condition, self.paper.find_table(one.table).within)
        return f"{table_name(one.table)}{f', {condition}' if condition else ''}"


def table_name(number: str) -> str:
    """What a table is called in a sentence: "Table 6", "The table of page b"."""
    return f"Table {number}" if number.isdigit() else f"The table of {number}"


def condition_text(condition: Mapping[str, Any], names: Iterable[str]) -> str:
    """The named parts of a condition: "batch size = 256"."""
    return ", ".join(f"{name_label(name.split('.')[-1])} = {value_label(condition[name])}" for name in names)


def p_text(p: float) -> str:
    """In words, with two digits: "p = 0.15"; "p < 0.001" below."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def listed(items: Sequence[str]) -> str:
    """Items with commas and an "and"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
