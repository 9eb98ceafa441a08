"""What the tests of statistics draw: scores of a few seeds, and the same ones in another order."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

ERRORS = st.integers(0, 10_000).map(lambda count: count / 10_000)
"""Error rates on a test set of 10,000: they tie as real ones do, and their sums are not all rounding."""


def by_seed(least: int = 2, most: int = 8) -> st.SearchStrategy[dict[int, float]]:
    return st.dictionaries(st.integers(0, 30), ERRORS, min_size=least, max_size=most)


def lists(least: int = 2, most: int = 8) -> st.SearchStrategy[list[float]]:
    return st.lists(ERRORS, min_size=least, max_size=most)


@st.composite
def paired(draw: st.DrawFn, least: int = 2, most: int = 8) -> tuple[dict[int, float], dict[int, float]]:
    """Two arms over the same seeds."""
    seeds = draw(st.lists(st.integers(0, 30), min_size=least, max_size=most, unique=True))
    rows = draw(st.lists(st.tuples(ERRORS, ERRORS), min_size=len(seeds), max_size=len(seeds)))
    return {s: a for s, (a, _) in zip(seeds, rows, strict=True)}, {s: b for s, (_, b) in zip(seeds, rows, strict=True)}


def shuffled(mapping: dict, random) -> dict:
    items = list(mapping.items())
    random.shuffle(items)
    return dict(items)


def statsmodels(module: str):
    """A module of statsmodels; without the package the test is skipped, and says so."""
    return pytest.importorskip(f"statsmodels.{module}", reason="statsmodels, the oracle, is not installed")
