"""All that a report tests, as one family: Holm's method over every p-value of its page.

    family = family_of(study)
    family.statements           # a row a p-value: part, kind, p, p_holm
    family.comparisons          # as `compare` has it, but corrected, and judged, over all of the page

A page that tests comparisons, layers and interactions each by themselves has as many chances of a false finding. So
whatever it judges by a p-value joins here, and what does not join is a description. Of many levels, layers or pairs all
are in the family, so a sentence may pick the most extreme one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from insgd_lab.analysis import reproduction as published
from insgd_lab.analysis.ablation import interactions
from insgd_lab.analysis.comparisons import compare, judged
from insgd_lab.analysis.layers import LayerRecords, layer_records, speeds
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choices, choose
from insgd_lab.analysis.statistics import holm_together

__all__ = ["KINDS", "Family", "Kind", "corrected_together", "family_of"]


@dataclass(frozen=True)
class Kind:
    """One kind of statements: the part of the page, its column of p-values, and what they are of, one and several.

    The corrected p-values stand in the column of the same name and `_holm`.
    """

    part: str
    p: str
    one: str
    many: str

    def counted(self, number: int) -> str:
        """How many of them, in words."""
        return f"{number} {self.one if number == 1 else self.many}"


KINDS = (
    Kind("comparisons", "p", "comparison", "comparisons"),
    Kind("comparisons", "p_equivalence", "equivalence of what is compared", "equivalences of what is compared"),
    Kind("speeds", "p", "speed of a layer", "speeds of layers"),
    Kind("interactions", "p", "interaction", "interactions"),
    Kind("published", "p_difference", "difference from a published mean", "differences from published means"),
    Kind("published", "p_equivalence", "equivalence to a published mean", "equivalences to published means"),
    Kind("published", "p_lead", "lead as in the paper's table", "leads as in the paper's table"),
)


@dataclass(frozen=True)
class Family:
    """The frames of a page that have p-values, each corrected over all of them."""

    comparisons: pd.DataFrame
    """Of `comparisons.compare`."""
    speeds: pd.DataFrame
    """Of `layers.speeds`."""
    interactions: pd.DataFrame
    """Of `ablation.interactions`."""
    reproduction: published.Reproduction | None
    """Of `reproduction.reproduce`."""

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        """The frames by their part of the page."""
        found = {"comparisons": self.comparisons, "speeds": self.speeds, "interactions": self.interactions}
        return found if self.reproduction is None else found | {"published": self.reproduction.table.frame}

    @property
    def statements(self) -> pd.DataFrame:
        """A row a p-value: part, kind (its column), row (of the part's frame), p, p_holm."""
        frames = self.frames
        parts = [
            pd.DataFrame({"part": kind.part, "kind": kind.p, "row": frame.index, "p": frame[kind.p],
                          "p_holm": frame[f"{kind.p}_holm"]})
            for kind in KINDS if (frame := frames.get(kind.part)) is not None
        ]  # fmt: skip
        found = pd.concat(parts, ignore_index=True).astype({"p": float, "p_holm": float})
        return found[found["p"].notna()].reset_index(drop=True)


def family_of(study: Study, choices: Choices | None = None, records: Sequence[LayerRecords] | None = None) -> Family:
    """Test all that the report of a study tests, and correct it together.

    Args:
        study: read from disk.
        choices: what `selection.choose` chose; chosen anew if None.
        records: what `layers.layer_records` read; read anew if None.

    Raises:
        PublishedError: the study compares itself with a table that is not on record.
        StudyError: the study's primary test names an arm that it does not have.
    """
    choices = choose(study) if choices is None else choices
    records = layer_records(study, choices) if records is None else records
    beside = published.reproduce(study, choices)
    frames = {
        "comparisons": compare(study, choices),
        "speeds": speeds(records),
        "interactions": interactions(study, choices=choices),
        **({} if beside is None else {"published": beside.table.frame}),
    }
    frames = corrected_together(frames)
    if beside is not None:
        beside = dataclasses.replace(beside, table=dataclasses.replace(beside.table, frame=frames["published"]))
    return Family(judged(frames["comparisons"]), frames["speeds"], frames["interactions"], beside)


def corrected_together(frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The frames, by part of the page, with every p-value of a kind corrected over all of them by Holm's method."""
    kinds = [kind for kind in KINDS if kind.part in frames]
    corrected = holm_together(*(frames[kind.part][kind.p].to_numpy(dtype=float) for kind in kinds))
    found = dict(frames)
    for kind, values in zip(kinds, corrected, strict=True):
        found[kind.part] = found[kind.part].assign(**{f"{kind.p}_holm": values})
    return found
