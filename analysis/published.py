"""What the papers reported, as data: `experiments/papers/*.toml`, one record a printed number.

paper = load_paper("insgd")
[cell] = paper.cells("6", optimizer="insgd-l2", lr=0.25)
cell.mean, cell.sd, cell.n          # 74.68, 0.85, 7
paper.claim("abstract-resnet50")    # what the text says, word for word, and the cells that it speaks of
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

__all__ = [
    "Condition",
    "Figure",
    "Paper",
    "PublishedCell",
    "PublishedClaim",
    "PublishedCode",
    "PublishedError",
    "PublishedTable",
    "list_papers",
    "load_paper",
    "parse_paper",
]


class PublishedError(Exception):
    """A paper or table that is not there, or a file of published results that is not valid."""


_SHARED = {"metric": "", "decimals": 0}
"""What a cell takes from its table; these stand in where the table is missing, which is then the error told."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Condition = dict[str, int | float | str | bool]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class PublishedCell(_Record):
    """One printed mean: which table, under which condition, of which optimizer."""

    paper: str
    table: str
    condition: Condition = {}
    optimizer: str
    metric: str
    """The table's own metric unless the cell names another one of its `metrics`."""
    mean: Finite
    sd: Annotated[Finite, Field(ge=0)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    decimals: Annotated[int, Field(ge=0)]
    """Digits printed after the point: the table's, unless the cell has its own."""
    gain: Finite | None = None
    """What the table prints as the gain over the baseline, in % of the baseline's mean."""


class PublishedTable(_Record):
    """What all cells of one table share, and the scale at which its authors worked.

    Where a table spans several data sets or models, each cell's condition names its own as `task.data`, `task.model`.
    """

    number: str
    caption: str
    document: str = "paper"
    metric: str
    metrics: tuple[str, ...] = Field(default=(), strict=False)
    """Further metrics of the same table."""
    unit: str
    decimals: Annotated[int, Field(ge=0)]
    spread: Literal["standard deviation"] | None = None
    """What the text says of this table that the figures behind ± are; None where it says nothing."""
    data: str | None = None
    model: str | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None
    training_images: Annotated[int, Field(ge=1)] | None = None
    within: tuple[str, ...] = Field(default=(), strict=False)
    """The conditions that an optimizer and its baseline must share to be compared."""
    optimizers: dict[str, str] = {}
    """Names that this table prints otherwise than the rest of the paper."""
    notes: tuple[str, ...] = Field(default=(), strict=False)


class Figure(_Record):
    """A number in a text, and the cell of a table that it speaks of."""

    value: Finite
    table: str
    optimizer: str
    condition: Condition = {}


class PublishedClaim(_Record):
    """What a text says, word for word, and where."""

    id: str
    document: str = "paper"
    place: str
    quote: str
    figures: tuple[Figure, ...] = Field(default=(), strict=False)


class PublishedCode(_Record):
    """What the authors' published code computes instead of what the paper prints."""

    id: str
    optimizers: tuple[str, ...] = Field(strict=False)
    tables: tuple[str, ...] = Field(strict=False)
    preset: str | None = None
    """Our optimizer that repeats that code step for step."""
    statement: str


class Paper(_Record):
    """One file of published results; every cell belongs to one of its tables."""

    paper: str
    title: str
    citation: str
    optimizers: dict[str, str] = {}
    baselines: dict[str, str] = {}
    """With what each of the paper's own optimizers is compared, by our names."""
    documents: dict[str, str] = {}
    """Each text that is quoted, and the file that it was transcribed from."""
    table: tuple[PublishedTable, ...] = Field(strict=False)
    cell: tuple[PublishedCell, ...] = Field(strict=False)
    claims: tuple[PublishedClaim, ...] = Field(default=(), alias="claim", strict=False)
    code: tuple[PublishedCode, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _cells_belong(self) -> Paper:
        numbers = [table.number for table in self.table]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"table numbers {numbers} repeat; give each table its own")
        seen = set()
        for cell in self.cell:
            if cell.table not in numbers:
                raise ValueError(f"a cell names table {cell.table!r}, but the tables are {numbers}")
            table = self.find_table(cell.table)
            if cell.metric not in (table.metric, *table.metrics):
                raise ValueError(f"a cell of table {cell.table} has the metric {cell.metric!r}, not one of the table's")
            key = (cell.table, cell.metric, cell.optimizer, tuple(sorted(cell.condition.items())))
            if key in seen:
                raise ValueError(f"table {cell.table} has two cells of {cell.optimizer} at {cell.condition}")
            seen.add(key)
        return self

    @model_validator(mode="after")
    def _claims_belong(self) -> Paper:
        names = [claim.id for claim in self.claims]
        if len(set(names)) < len(names):
            raise ValueError(f"claims' ids {names} repeat; give each claim its own")
        for claim in self.claims:
            if claim.document not in self.documents:
                raise ValueError(f"claim {claim.id!r} is of {claim.document!r}, which is not among the documents")
            for figure in claim.figures:
                if len(self.cells(figure.table, figure.optimizer, condition=figure.condition)) != 1:
                    raise ValueError(f"claim {claim.id!r} has a figure that is not of exactly one cell: {figure}")
        return self

    def find_table(self, number: str) -> PublishedTable:
        """The table of that number.

        Raises:
            PublishedError: there is none.
        """
        for table in self.table:
            if table.number == str(number):
                return table
        known = ", ".join(table.number for table in self.table)
        raise PublishedError(f"paper {self.paper!r} has no table {number!r} on record; there is: {known}")

    def cells(
        self,
        table: str,
        optimizer: str | None = None,
        *,
        metric: str | None = None,
        condition: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> list[PublishedCell]:
        """The cells of a table in printed order.

        Args:
            table: its number.
            optimizer: only that one's.
            metric: the table's own, unless another is named.
            condition: what the cells' conditions must say; names without a dot can be keywords as well.
            named: those keywords.
        """
        found, wanted = self.find_table(table), {**(condition or {}), **named}
        return [
            cell
            for cell in self.cell
            if cell.table == found.number
            and cell.metric == (metric or found.metric)
            and optimizer in (None, cell.optimizer)
            and all(cell.condition.get(name) == value for name, value in wanted.items())
        ]

    def pairs(self, table: str, metric: str | None = None) -> Iterator[tuple[PublishedCell, PublishedCell]]:
        """Each cell of the paper's own optimizers and the one that its table compares it with, in printed order.

        That is of the optimizer's own baseline, where both agree in the conditions that the table names as `within`.

        Args:
            table: its number.
            metric: the table's own, unless another is named.
        """
        for cell in self.cells(table, metric=metric):
            shared = {name: cell.condition[name] for name in self.find_table(table).within}
            name = self.baselines.get(cell.optimizer)
            for base in self.cells(table, name, metric=metric, condition=shared) if name else ():
                yield cell, base

    def claim(self, name: str) -> PublishedClaim:
        """What a text says, by the claim's id.

        Raises:
            PublishedError: there is no such claim on record.
        """
        for claim in self.claims:
            if claim.id == name:
                return claim
        raise PublishedError(f"paper {self.paper!r} has no claim {name!r} on record")

    def printed_name(self, optimizer: str, table: str | None = None) -> str:
        """The name that the paper, or that table of it, prints for one of our optimizers."""
        names = self.optimizers | (self.find_table(table).optimizers if table else {})
        return names.get(optimizer, optimizer)


def parse_paper(text: str, source: str) -> Paper:
    """Validate the TOML `text` of a paper; `source` names it in errors.

    Raises:
        PublishedError: it is not TOML, or a key is missing, unknown or of the wrong kind (all are listed).
    """
    try:
        return Paper.model_validate(_flattened(tomllib.loads(text)))
    except tomllib.TOMLDecodeError as error:
        raise PublishedError(f"{source} is not valid TOML: {error}; correct the line named") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise PublishedError(f"{source} is not a valid file of published results: {wrong}") from error


def _flattened(raw: dict[str, Any]) -> dict[str, Any]:
    """Put the cells that stand in their tables beside those that name one, each with what its table says of all."""
    tables = raw.get("table", [])
    inner = [{**cell, "table": table.get("number")} for table in tables for cell in table.get("cell", [])]
    shared = {table.get("number"): {key: table[key] for key in _SHARED if key in table} for table in tables}
    cells = [
        {**_SHARED, **shared.get(cell.get("table"), {}), **cell, "paper": raw.get("paper")}
        for cell in [*raw.get("cell", []), *inner]
    ]
    plain = [{key: value for key, value in table.items() if key != "cell"} for table in tables]
    return {**raw, "table": plain, "cell": cells}


def _folder() -> Traversable:
    return resources.files("insgd_lab.experiments").joinpath("papers")


def list_papers() -> list[str]:
    """The names of the papers on record, sorted."""
    return sorted(f.name.removesuffix(".toml") for f in _folder().iterdir() if f.name.endswith(".toml"))


@lru_cache
def load_paper(name: str) -> Paper:
    """Load one paper's published results.

    Raises:
        PublishedError: there is no such paper on record, or its file is not valid.
    """
    if name not in list_papers():
        raise PublishedError(f"no published results of {name!r}; there are: {', '.join(list_papers())}")
    return parse_paper(_folder().joinpath(f"{name}.toml").read_text("utf-8"), f"experiments/papers/{name}.toml")
