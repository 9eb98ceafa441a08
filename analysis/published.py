"""What the papers reported, as data: `experiments/papers/*.toml`, one record a printed number.

paper = load_paper("insgd")
[cell] = paper.cells("6", optimizer="insgd-l2", lr=0.25)
cell.mean, cell.sd, cell.n          # 74.68, 0.85, 7
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

__all__ = [
    "Paper",
    "PublishedCell",
    "PublishedError",
    "PublishedTable",
    "list_papers",
    "load_paper",
    "parse_paper",
]


class PublishedError(Exception):
    """A paper or table that is not there, or a file of published results that is not valid."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PublishedCell(_Record):
    """One printed mean: which table, under which condition, of which optimizer."""

    paper: str
    table: str
    condition: dict[str, float | str | bool]
    optimizer: str
    mean: Annotated[float, Field(allow_inf_nan=False)]
    sd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None


class PublishedTable(_Record):
    """What all cells of one table share, and the scale at which its authors worked."""

    number: str
    caption: str
    metric: str
    unit: str
    decimals: Annotated[int, Field(ge=0)]
    data: str
    model: str
    epochs: Annotated[int, Field(ge=1)]
    training_images: Annotated[int, Field(ge=1)]
    notes: tuple[str, ...] = Field(default=(), strict=False)


class Paper(_Record):
    """One file of published results; every cell belongs to one of its tables."""

    paper: str
    title: str
    citation: str
    optimizers: dict[str, str] = {}
    table: tuple[PublishedTable, ...] = Field(strict=False)
    cell: tuple[PublishedCell, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _cells_belong(self) -> Paper:
        numbers = [table.number for table in self.table]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"table numbers {numbers} repeat; give each table its own")
        seen = set()
        for cell in self.cell:
            if cell.table not in numbers:
                raise ValueError(f"a cell names table {cell.table!r}, but the tables are {numbers}")
            key = (cell.table, cell.optimizer, tuple(sorted(cell.condition.items())))
            if key in seen:
                raise ValueError(f"table {cell.table} has two cells of {cell.optimizer} at {cell.condition}")
            seen.add(key)
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

    def cells(self, table: str, optimizer: str | None = None, **condition: Any) -> list[PublishedCell]:
        """The cells of a table, those of one optimizer and condition if given, in printed order."""
        number = self.find_table(table).number
        return [
            cell
            for cell in self.cell
            if cell.table == number
            and optimizer in (None, cell.optimizer)
            and all(cell.condition.get(name) == value for name, value in condition.items())
        ]

    def printed_name(self, optimizer: str) -> str:
        """The name that the paper prints for one of our optimizers."""
        return self.optimizers.get(optimizer, optimizer)


def parse_paper(text: str, source: str) -> Paper:
    """Validate the TOML `text` of a paper; `source` names it in errors.

    Raises:
        PublishedError: it is not TOML, or a key is missing, unknown or of the wrong kind (all are listed).
    """
    try:
        raw = tomllib.loads(text)
        cells = [{**cell, "paper": raw.get("paper")} for cell in raw.get("cell", [])]
        return Paper.model_validate({**raw, "cell": cells})
    except tomllib.TOMLDecodeError as error:
        raise PublishedError(f"{source} is not valid TOML: {error}; correct the line named") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise PublishedError(f"{source} is not a valid file of published results: {wrong}") from error


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
