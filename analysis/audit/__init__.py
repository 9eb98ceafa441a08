"""The papers' own tables, recomputed: which claims stand, which lie within noise, and what does not agree.

    from insgd_lab.analysis.audit import audit

    found = audit()
    found.frame()                                   # one row a comparison, as in `insgd-lab audit --json`
    found.finding("insgd/own-best-rate").statement
    [one for one in found.comparisons if one.verdict == "stands"]

`comparisons` sets each of a paper's own optimizers against its baseline, with `summaries` for tests from means,
standard deviations and n; `general`, `insgd_claims`, `insgd_texts` and `adanorm` make the findings. Everything is
computed from `experiments/papers/*.toml`.
"""

from __future__ import annotations

from collections.abc import Sequence

from insgd_lab.analysis.audit import adanorm, general, insgd_claims, insgd_texts
from insgd_lab.analysis.audit.case import Case
from insgd_lab.analysis.audit.comparisons import compare, gains
from insgd_lab.analysis.audit.records import VERDICTS, Audit, Comparison, Finding, Gain
from insgd_lab.analysis.published import list_papers, load_paper

__all__ = ["VERDICTS", "Audit", "Comparison", "Finding", "Gain", "audit"]

_OWN = {"insgd": (*insgd_claims.FINDINGS, *insgd_texts.FINDINGS), "adanorm": adanorm.FINDINGS}


def audit(papers: Sequence[str] | None = None) -> Audit:
    """Audit papers on record.

    Args:
        papers: their names, such as "insgd"; all that are on record if not given.

    Raises:
        PublishedError: a paper is not on record.
    """
    names = dict.fromkeys([*_OWN, *list_papers()]) if papers is None else papers
    cases = [_case(name) for name in names]
    return Audit(
        comparisons=tuple(one for case in cases for one in case.comparisons),
        gains=tuple(one for case in cases for one in case.gains),
        findings=tuple(finding for case in cases for finding in _findings(case)),
    )


def _case(name: str) -> Case:
    paper = load_paper(name)
    return Case(paper, tuple(compare(paper)), tuple(gains(paper)))


def _findings(case: Case) -> list[Finding]:
    makers = (*general.FINDINGS, *_OWN.get(case.paper.paper, ()), *general.LAST)
    return [finding for make in makers for finding in make(case)]
