"""Findings that any paper on record can have: verdicts, repeated figures, missing numbers, gains, published code."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from insgd_lab.analysis.audit.case import (
    Case,
    condition_text,
    counted,
    distinct,
    equation,
    listed,
    table_name,
    tables_name,
)
from insgd_lab.analysis.audit.comparisons import ASSUMED_RUNS, assumption, compare
from insgd_lab.analysis.audit.records import Comparison, Finding
from insgd_lab.analysis.audit.summaries import LEVEL, sd_bound
from insgd_lab.analysis.labels import signed
from insgd_lab.analysis.published import PublishedCell, PublishedClaim

__all__ = ["ASSUMES_CODE", "FINDINGS", "LAST"]

ASSUMES_CODE = "if the tables were made with the published code"


# ------------------------------------------------------------------------------------------------ verdicts


def summary(case: Case) -> Iterator[Finding]:
    """All testable comparisons of a paper in one sentence."""
    tested = [one for one in case.comparisons if one.p_holm is not None]
    if not tested:
        return
    once = [rows[0] for rows in case.rows(tested)]
    known = [one for one in once if one.n_printed]
    rest = "".join(
        f" {table_name(table)} prints no n: of its {count} comparisons "
        f"{listed([_assumed(case, table, n) for n in ASSUMED_RUNS])}."
        for table, count in Counter(one.table for one in once if not one.n_printed).items()
    )
    yield case.finding(
        "summary",
        "verdicts",
        f"The tables allow {len(once)} tests of an optimizer of the paper against its baseline{_repeats(once)}; its "
        f"mean is the better one in {sum(one.better is True for one in once)}."
        + (f" Of the {len(known)} whose n is printed {counted(known)} after Holm." if known else "")
        + rest,
        [f"{table_name(number)}: {count} comparisons" for number, count in Counter(one.table for one in once).items()],
        of=tested,
    )


def _assumed(case: Case, table: str, n: int) -> str:
    return f"{counted([one for one in case.find(table) if one.n == n])} at n = {n}"


def _repeats(ones: Sequence[Comparison]) -> str:
    """How many comparisons are printed twice, such as a row of one table that the next one repeats."""
    count = len(ones) - len(distinct(ones))
    return f" ({count} of them printed in an earlier table already)" if count else ""


def standing(case: Case) -> Iterator[Finding]:
    """What stands, by table and condition; at an assumed n in a finding of its own."""
    tested = [one for one in case.comparisons if one.p_holm is not None]
    for n in dict.fromkeys(None if one.n_printed else one.n for one in tested):
        own = [one for one in tested if (one.n_printed if n is None else one.n == n and not one.n_printed)]
        stand = [one for one in own if one.verdict == "stands"]
        parts = [
            f"{where}: {listed([case.told(one) for one in group])}" for where, group in groupby(stand, key=case.where)
        ]
        what = "What stands" if n is None else f"What stands at n = {n}, where none is printed"
        yield case.finding(
            "stands" if n is None else f"stands-n{n}",
            "verdicts",
            f"{what}: {'; '.join(parts) or 'nothing'}.",
            parts or [f"{case.where(one)}: {case.told(one)}" for one in own],
            of=own,
        )


def standard_errors(case: Case) -> Iterator[Finding]:
    """What would change if the figures behind ± were standard errors, where the text does not say what they are."""
    other = compare(case.paper, errors=True)
    pairs = [(one, then) for one, then in zip(case.comparisons, other, strict=True) if one.sd_stated is False]
    if not pairs:
        return
    runs = {None if one.n_printed else one.n: None for one, _ in pairs}
    told = [
        _changes(case, n, [pair for pair in pairs if (None if pair[0].n_printed else pair[0].n) == n]) for n in runs
    ]
    stated = [table.number for table in case.paper.table if table.spread]
    outside = f" outside {tables_name(stated)}" if stated else ""
    factors = listed([f"{math.sqrt(n):.2f} at n = {n}" for n in sorted({one.n for one, _ in pairs})])
    yield case.finding(
        "standard-errors",
        "spread",
        f"If the figures behind ±{outside} were standard errors of the means, the standard deviations would be √n "
        f"times as large ({factors}). These verdicts would change: {'; '.join(told)}.",
        [f"{case.where(one)}: {case.told(one)} {_after_holm(one)}, then {_after_holm(then)}" for one, then in pairs],
        _errors_assumed(case, [one.n for one, _ in pairs if not one.n_printed]),
    )


def _changes(case: Case, n: int | None, pairs: Sequence[tuple[Comparison, Comparison]]) -> str:
    """How many verdicts would be others, and which: "2 of the 26 at a printed n (…)"."""
    changed = [(one, then) for one, then in pairs if one.verdict != then.verdict]
    rows = [f"{case.where(one)}: {case.told(one)} from “{one.verdict}” to “{then.verdict}”" for one, then in changed]
    what = "whose n is printed" if n is None else f"at n = {n}, which is assumed"
    return f"{len(changed)} of the {len(pairs)} {what}" + (f" ({', '.join(rows)})" if rows else "")


def _after_holm(one: Comparison) -> str:
    return f"{equation(one.p_holm)} after Holm" + ("" if one.n_printed else f" at n = {one.n}")


def _errors_assumed(case: Case, runs: Sequence[int]) -> str:
    unprinted = assumption(case.paper, sorted(set(runs)), False)
    return "; ".join(filter(None, [unprinted, "± is a standard error, where the text does not say what it is"]))


def unmeasured(case: Case) -> Iterator[Finding]:
    """Tables without standard deviations: what would have to be so."""
    untested = [one for one in case.comparisons if one.verdict == "untestable" and one.n_printed]
    if not untested:
        return
    sizes = Counter(one.table for one in untested)
    tables = listed([f"{table_name(table)} ({count})" for table, count in sizes.items()])
    small, large = (pick(untested, key=lambda one: abs(one.difference)) for pick in (min, max))
    n, higher = small.n, sum(one.better is True for one in untested)
    factor = sd_bound(1.0, n, n)
    families = [f"{sd_bound(1.0, n, n, LEVEL / m):.3f} (family of {m})" for m in sorted(set(sizes.values()))]
    yield case.finding(
        "no-sd",
        "missing",
        f"No table prints a standard deviation, so none of the {len(untested)} comparisons can be tested: {tables}"
        f"{_repeats(untested)}. The mean is better than the baseline's in {higher}. With n = {n} and one sd in both "
        f"arms, a difference has p < 0.05 by itself where the sd is below {factor:.3f} times the difference: from "
        f"{small.sd_bound:.3f} for {_at(case, small)} to {large.sd_bound:.2f} for {_at(case, large)}. With the "
        f"correction for its family it is enough that the sd is below {listed(families)} times the difference.",
        [f"{table_name(table.number)}: {table.caption}" for table in case.paper.table if table.number in sizes],
    )


def _at(case: Case, one: Comparison) -> str:
    return f"{case.told(one)} in {case.where(one)}"


def missing_runs(case: Case) -> Iterator[Finding]:
    """Tables with standard deviations that do not say how many runs they are of."""
    for number in dict.fromkeys(one.table for one in case.comparisons if not one.n_printed and one.p is not None):
        table = case.paper.find_table(number)
        yield case.finding(
            f"no-n-{number}",
            "missing",
            f"{table_name(number)} does not say how many runs a mean is of; it is audited at n = "
            f"{' and n = '.join(map(str, ASSUMED_RUNS))}.",
            [f"{table_name(number)}: {table.caption}", *table.notes],
        )


def same_spread(case: Case) -> Iterator[Finding]:
    """Blocks of at least four cells under one condition that all have one standard deviation."""
    for table in case.paper.table:
        cells = [cell for cell in case.paper.cell if cell.table == table.number and cell.sd is not None]
        blocks: dict[str, list[PublishedCell]] = {}
        for cell in cells:
            blocks.setdefault(condition_text(cell.condition, table.within), []).append(cell)
        for under, block in blocks.items():
            if len(block) < 4 or len({cell.sd for cell in block}) > 1:
                continue
            same = sum(cell.sd == block[0].sd for cell in cells)
            yield case.finding(
                f"same-sd-{table.number}",
                "spread",
                f"All {len(block)} standard deviations that {table_name(table.number)} prints at {under} are "
                f"{block[0].sd:.{block[0].decimals}f}, of every optimizer and in every metric; in the whole table "
                f"{same} of {len(cells)} are. Every p-value at {under} rests on that one number.",
                [f"{table_name(table.number)}, {under}, {cell.metric}: {case.printed(cell)}" for cell in block],
                assumption(case.paper, [], table.spread is None),
            )


# ------------------------------------------------------------------------------------------------ repeated figures


def repeated_figures(case: Case) -> Iterator[Finding]:
    """Figures that texts repeat from tables: those that agree in one finding, those that do not each in its own."""
    claims = [claim for claim in case.paper.claims if claim.figures]
    if not claims:
        return
    wrong = [claim for claim in claims if not _agrees(case, claim)]
    right = [claim for claim in claims if claim not in wrong]
    yield case.finding(
        "figures-agree",
        "agreement",
        f"Of {len(claims)} statements of figures in the abstract, the project pages and the README, {len(right)} "
        f"repeat what the tables print and {len(wrong)} do not.",
        [case.quoted(claim.id) for claim in right],
    )
    for _, group in groupby(sorted(wrong, key=_values), key=_values):
        yield _disagreement(case, list(group))


def _values(claim: PublishedClaim) -> tuple[float, ...]:
    return tuple(figure.value for figure in claim.figures)


def _agrees(case: Case, claim: PublishedClaim) -> bool:
    return all(case.cell(f.table, f.optimizer, f.condition).mean == f.value for f in claim.figures)


def _disagreement(case: Case, claims: Sequence[PublishedClaim]) -> Finding:
    first = claims[0]
    number = first.figures[0].table
    compared = {*case.paper.baselines, *case.paper.baselines.values()}
    own = [cell for cell in case.paper.cells(number) if cell.optimizer in compared]
    printed = ", ".join(map(case.printed, own))
    values = listed([f"{figure.value:.2f}" for figure in first.figures])
    places = listed([f"the {case.place(claim.id)}" for claim in claims])
    found = {f"{cell.mean:.{cell.decimals}f}" for cell in case.paper.cell if cell.mean in _values(first)}
    elsewhere = "; no table prints either number" if not found else ""
    return case.finding(
        f"figures-{first.id}",
        "disagreement",
        f"{places[0].upper()}{places[1:]} print {values}, a lead of {_values(first)[1] - _values(first)[0]:.2f}; "
        f"{table_name(number)} prints {printed}{elsewhere}.",
        [*(case.quoted(claim.id) for claim in claims), f"{table_name(number)}: {printed}"],
    )


def headlines(case: Case) -> Iterator[Finding]:
    """The improvements that the abstract names and a table prints: are they beyond noise?"""
    for claim in case.paper.claims:
        if claim.place != "abstract" or claim.document != "paper" or not claim.figures or not _agrees(case, claim):
            continue
        arm = claim.figures[-1]
        cell = case.cell(arm.table, arm.optimizer, arm.condition)
        found = [one for one in case.find(arm.table, arm.optimizer, arm.condition) if one.metric == cell.metric]
        told = [
            f"{equation(one.p)}, {equation(one.p_holm)} after Holm over {one.family_size}, {one.verdict} at n = {one.n}"
            + ("" if one.n_printed else ", which is assumed")
            for one in found
        ]
        needed = f"; at this difference {found[0].n_needed} runs an arm would give one such test 80 % power"
        yield case.finding(
            f"headline-{claim.id}",
            "claim",
            f"Abstract, “{claim.quote}”: {signed(found[0].difference)} points in {case.where(found[0])}: "
            f"{'; '.join(told)}{needed if found[0].n_needed else ''}.",
            [case.quoted(claim.id), *(f"{case.where(one)}: {case.told(one)}" for one in found[:1])],
            of=found,
        )


# ------------------------------------------------------------------------------------------------ gains and code


def printed_gains(case: Case) -> Iterator[Finding]:
    """Printed relative gains against the printed means."""
    if not case.gains:
        return
    exact, agree = (sum(getattr(gain, name) for gain in case.gains) for name in ("exact", "agrees"))
    wrong = [gain for gain in case.gains if not gain.agrees]
    most = max(case.gains, key=lambda gain: gain.printed)
    [one] = case.find(most.table, most.optimizer, most.condition)
    yield case.finding(
        "gains",
        "disagreement" if wrong else "agreement",
        f"Of {len(case.gains)} gains printed behind arrows {exact} are what the printed means give and {agree} are "
        f"within their rounding. They are relative, in % of the baseline's accuracy: the largest, {most.printed:.2f} "
        f"%, is {signed(one.difference)} percentage points ({one.baseline_mean:.2f} to {one.mean:.2f}).",
        [f"Table {gain.table}: {case.name(gain.optimizer)} {gain.printed:+.2f} %" for gain in wrong or [most]],
    )


def published_code(case: Case) -> Iterator[Finding]:
    """What the published code computes instead; nothing in the texts says that the tables were made with it."""
    for code in case.paper.code:
        preset = [f"our optimizer {code.preset} repeats it step for step"] if code.preset else []
        yield case.finding(
            code.id,
            "code",
            f"If the tables were made with the published code, {code.statement} ({tables_name(code.tables)}).",
            [f"what the published code computes, beside {case.paper.citation}", *preset],
            ASSUMES_CODE,
        )


FINDINGS = (
    summary,
    standing,
    standard_errors,
    unmeasured,
    headlines,
    repeated_figures,
    printed_gains,
    same_spread,
    missing_runs,
)
LAST = (published_code,)
