"""The audit of the papers: known cells by hand, verdicts on made-up papers, findings with their numbers, records."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from scipy import stats
from typer.testing import CliRunner

from insgd_lab.analysis.audit import VERDICTS, adanorm, audit, general, insgd_claims, insgd_texts
from insgd_lab.analysis.audit.case import Case, expect
from insgd_lab.analysis.audit.comparisons import compare, gains
from insgd_lab.analysis.audit.general import headlines, printed_gains, same_spread, standard_errors
from insgd_lab.analysis.audit.summaries import Summary, p_range
from insgd_lab.analysis.published import PublishedError, load_paper, parse_paper
from insgd_lab.cli import app

from .statistics.samples import statsmodels

FIXED = [
    "paper",
    "table",
    "condition",
    "optimizer",
    "baseline",
    "difference",
    "p",
    "p_holm",
    "interval",
    "n",
    "verdict",
]


@pytest.fixture(scope="module")
def found():
    return audit()


def pick(found, table, optimizer, metric="", n=None, paper="insgd", **condition):
    [one] = [
        one
        for one in found.comparisons
        if (one.paper, one.table, one.optimizer) == (paper, table, optimizer)
        and metric in one.metric
        and n in (None, one.n)
        and all(one.condition[name.replace("__", ".")] == value for name, value in condition.items())
    ]
    return one


# ------------------------------------------------------------------------------------------------ known answers


def two_sided_with_4_degrees(t: float) -> float:
    """Student's t with 4 degrees of freedom has a closed form."""
    return 1 - t / math.sqrt(t * t + 4) * (1 + 2 / (t * t + 4))


def test_resnet50_on_imagenet_by_hand(found):
    """75.90 ± 0.14 against 75.60 ± 0.14, n = 3: equal sds, so 4 degrees of freedom; two comparisons in the family."""
    one = pick(found, "10", "insgd-l2", "top-1")
    error = 0.14 * math.sqrt(2 / 3)
    assert one.difference == 0.3
    assert one.p == pytest.approx(two_sided_with_4_degrees(0.30 / error))
    assert one.p_holm == pytest.approx(2 * one.p)
    assert one.interval == pytest.approx((0.30 - 2.776445 * error, 0.30 + 2.776445 * error), abs=1e-6)
    assert (one.n, one.verdict, one.family_size) == (3, "within noise", 2)
    assert one.p_low < 0.05 < one.p < one.p_high  # before Holm, rounding alone would decide


def test_wide_resnet_by_hand_at_either_n(found):
    """78.15 ± 0.43 against 77.22 ± 0.43: without Holm p = 0.057 at n = 3 and 0.0016 at n = 7."""
    condition = {"train__batch_size": 256}
    few, many = (pick(found, "9", "insgd-l1", "top-1", n, **condition) for n in (3, 7))
    assert few.p == pytest.approx(two_sided_with_4_degrees(0.93 / (0.43 * math.sqrt(2 / 3))))
    assert many.p == pytest.approx(2 * stats.t.sf(0.93 / (0.43 * math.sqrt(2 / 7)), 12))
    assert (few.verdict, many.verdict) == ("within noise", "stands")
    spread = "± is a standard deviation, which the text says of Table 5 only"
    assert (few.assumes, many.assumes) == tuple(f"n = {n}, which is not printed; {spread}" for n in (3, 7))
    assert few.p_holm == pytest.approx(4 * few.p)
    assert few.n_needed == many.n_needed == 5


def test_resnet20_with_unequal_sds_by_hand(found):
    """92.67 ± 0.13 against 92.57 ± 0.11, n = 7: Satterthwaite's degrees of freedom written out."""
    one = pick(found, "3", "insgd-l1")
    a, b = 0.13**2 / 7, 0.11**2 / 7
    degrees = (a + b) ** 2 / (a**2 / 6 + b**2 / 6)
    assert one.p == pytest.approx(2 * stats.t.sf(0.10 / math.sqrt(a + b), degrees))
    assert (one.difference_low, one.difference_high) == (0.09, 0.11)


def test_without_sds_the_bound_is_told(found):
    one = pick(found, "1", "adamnorm", paper="adanorm", task__data="tiny-imagenet", task__model="resnet50")
    assert (one.difference, one.verdict, one.family_size, one.n) == (5.46, "untestable", 36, 3)
    assert one.sd_bound == pytest.approx(5.46 / (2.776445 * math.sqrt(2 / 3)), abs=1e-5)
    assert one.sd_bound_family == pytest.approx(5.46 / (stats.t.ppf(1 - 0.05 / 72, 4) * math.sqrt(2 / 3)))
    assert one.p is one.p_holm is one.interval is one.n_needed is None


def test_a_figure_with_one_decimal_is_rounded_more_widely(found):
    one = pick(found, "1", "adabeliefnorm", paper="adanorm", task__data="cifar10", task__model="resnet50")
    assert one.baseline_mean == 94.1
    assert (one.difference_low, one.difference_high) == (0.005, 0.115)


def test_every_table_has_its_comparisons(found):
    counts = Counter((one.paper, one.table, None if one.n_printed else one.n) for one in found.comparisons)
    printed = {"3": 2, "4": 6, "5": 2, "6": 6, "7": 4, "8": 4, "10": 4}
    known = {("insgd", table, None): count for table, count in printed.items()}
    assumed = {("insgd", table, n): count for n in (3, 7) for table, count in (("9", 8), ("page b", 3))}
    assert counts == known | assumed | {("adanorm", table, None): n for table, n in (("1", 36), ("4", 18), ("5", 18))}


def test_families_are_a_table_and_a_metric(found):
    for one in found.comparisons:
        own = [o for o in found.comparisons if (o.family, o.assumes) == (one.family, one.assumes)]
        assert len(own) == one.family_size
        assert len({(o.paper, o.table, o.metric) for o in own}) == 1


def test_an_arm_is_compared_with_its_own_base_under_its_own_condition(found):
    bases = {(one.optimizer, one.baseline) for one in found.comparisons}
    norms = ("adam", "diffgrad", "radam", "adabelief")
    assert bases == {(f"insgd-{norm}", "sgd") for norm in ("l1", "l2", "norm")} | {(f"{b}norm", b) for b in norms}
    for one in found.comparisons:
        differ = {name for name in one.condition if one.condition[name] != one.baseline_condition[name]}
        assert not differ or (one.table, differ, one.condition["task.model.layer_norm"]) == ("8", {"lr"}, False)


def test_rounding_ranges_hold_the_printed_p(found):
    for one in found.comparisons:
        if one.p is not None:
            assert one.p_low <= one.p <= one.p_high
            assert one.p_holm_low <= one.p_holm <= one.p_holm_high
            assert one.p <= one.p_holm
            assert one.interval[0] < one.difference < one.interval[1]


# Copied from the papers' texts by eye: table, arm, part of its condition, metric, (mean, sd, n) of the arm and of SGD.
COPIED = [
    ("3", "insgd-l2", {}, "", (92.60, 0.11, 7), (92.57, 0.11, 7)),
    ("4", "insgd-l1", {"train__batch_size": 512}, "", (92.38, 0.21, 7), (92.25, 0.26, 7)),
    ("5", "insgd-l2", {}, "", (93.10, 0.01, 7), (93.06, 0.11, 7)),
    ("6", "insgd-l1", {"lr": 0.01}, "", (78.83, 0.43, 7), (79.08, 0.34, 7)),
    ("6", "insgd-l2", {"lr": 0.25}, "", (74.68, 0.85, 7), (65.92, 1.32, 7)),
    ("7", "insgd-l1", {"task__model": "custom-cnn"}, "", (64.85, 10.98, 7), (11.07, 2.74, 7)),
    ("7", "insgd-l1", {"task__model": "resnet20"}, "", (90.55, 0.26, 7), (90.14, 0.18, 7)),
    ("8", "insgd-l2", {"task__model__layer_norm": False}, "", (83.32, 0.48, 7), (79.90, 0.21, 7)),
    ("9", "insgd-l2", {"train__batch_size": 128}, "top-1", (78.47, 0.16, 3), (78.24, 0.43, 3)),
    ("9", "insgd-l2", {"train__batch_size": 128}, "top-5", (94.39, 0.20, 7), (94.31, 0.09, 7)),
    ("10", "insgd-l1", {}, "top-1", (75.92, 0.43, 3), (75.60, 0.14, 3)),
    ("10", "insgd-l2", {}, "top-5", (92.81, 0.04, 3), (92.67, 0.12, 3)),
]


@pytest.mark.parametrize(("table", "optimizer", "condition", "metric", "arm", "base"), COPIED)
def test_scipy_finds_the_same_from_figures_copied_by_hand(found, table, optimizer, condition, metric, arm, base):
    one = pick(found, table, optimizer, metric, arm[2], **condition)
    assert one.p == pytest.approx(stats.ttest_ind_from_stats(*arm, *base, equal_var=False).pvalue)
    a, b = arm[1] ** 2 / arm[2], base[1] ** 2 / base[2]
    degrees = (a + b) ** 2 / (a**2 / (arm[2] - 1) + b**2 / (base[2] - 1))
    half = stats.t.ppf(0.975, degrees) * math.sqrt(a + b)
    assert one.difference == pytest.approx(arm[0] - base[0])
    assert one.interval == pytest.approx((arm[0] - base[0] - half, arm[0] - base[0] + half))


def families(ones):
    """Comparisons that are corrected together."""
    found = {}
    for one in ones:
        found.setdefault((one.family, one.n_printed or one.n), []).append(one)
    return list(found.values())


def test_statsmodels_corrects_every_family_alike(found):
    multitest = statsmodels("stats.multitest")
    tested = [family for family in families(found.comparisons) if family[0].p is not None]
    assert len(tested) == 6 + 2 * 2 + 2
    for family in tested:
        for name in ("", "_low", "_high"):
            raw = [getattr(one, f"p{name}") for one in family]
            expected = multitest.multipletests(raw, method="holm")[1]
            assert [getattr(one, f"p_holm{name}") for one in family] == pytest.approx(expected)


def test_what_a_standard_error_would_change_is_what_scipy_says(found):
    """The same tests with √n times the figures behind ±, except in Table 5; none comes near 0.05 by rounding."""
    multitest = statsmodels("stats.multitest")
    changed, counts = set(), Counter()
    for family in families(one for one in found.comparisons if one.p is not None and one.table != "5"):
        sds = [(one.sd * math.sqrt(one.n), one.baseline_sd * math.sqrt(one.baseline_n)) for one in family]
        raw = [
            stats.ttest_ind_from_stats(
                one.mean, sd, one.n, one.baseline_mean, base_sd, one.baseline_n, equal_var=False
            ).pvalue
            for one, (sd, base_sd) in zip(family, sds, strict=True)
        ]
        for one, p in zip(family, multitest.multipletests(raw, method="holm")[1], strict=True):
            counts[one.n_printed or one.n] += 1
            if (p < 0.05) != (one.p_holm < 0.05):
                changed.add((one.n_printed or one.n, one.table, one.metric, one.optimizer, str(one.condition)))
    finding = found.finding("insgd/standard-errors")
    told = [
        f"{sum(key[0] == n for key in changed)} of the {counts[n]} {words}"
        for n, words in ((True, "whose n is printed"), (3, "at n = 3"), (7, "at n = 7"))
    ]
    assert told == ["2 of the 26 whose n is printed", "0 of the 8 at n = 3", "3 of the 8 at n = 7"]
    assert all(words in finding.statement for words in told)
    assert finding.statement.count("from “stands” to “within noise”") == len(changed)
    assert "± is a standard error, where the text does not say what it is" in finding.assumes
    assert "outside Table 5" in finding.statement
    assert "adanorm/standard-errors" not in {one.id for one in found.findings}  # it prints no ±


# ------------------------------------------------------------------------------------------------ verdicts

MADE_UP = """
paper = "x"
title = "X"
citation = "X, 2024"
baselines = {{ mine = "sgd" }}
[[table]]
number = "1"
caption = "c"
metric = "{metric}"
unit = "%"
decimals = 2
cell = [ {{ optimizer = "sgd", {base} }}, {{ optimizer = "mine", {mine} }} ]
"""


def made_up(base: str, mine: str, metric: str = "accuracy"):
    return parse_paper(MADE_UP.format(base=base, mine=mine, metric=metric), "x.toml")


@pytest.mark.parametrize(
    ("base", "mine", "metric", "verdict"),
    [
        ("mean = 90.0, sd = 0.1, n = 5", "mean = 91.0, sd = 0.1, n = 5", "accuracy", "stands"),
        ("mean = 90.0, sd = 0.1, n = 5", "mean = 91.0, sd = 0.1, n = 5", "test error", "reversed"),
        ("mean = 2.0, sd = 0.1, n = 5", "mean = 1.0, sd = 0.1, n = 5", "training loss", "stands"),
        ("mean = 91.0, sd = 0.1, n = 5", "mean = 90.0, sd = 0.1, n = 5", "accuracy", "reversed"),
        ("mean = 90.0, sd = 1.0, n = 5", "mean = 90.5, sd = 1.0, n = 5", "accuracy", "within noise"),
        ("mean = 75.6, sd = 0.14, n = 3", "mean = 75.9, sd = 0.14, n = 3", "accuracy", "borderline"),
        ("mean = 75.6, n = 3", "mean = 75.9, n = 3", "accuracy", "untestable"),
        ("mean = 75.6, sd = 0.1, n = 3", "mean = 75.9, n = 3", "accuracy", "untestable"),
    ],
)
def test_verdicts(base, mine, metric, verdict):
    [one] = compare(made_up(base, mine, metric))
    assert one.verdict == verdict
    assert one.family_size == 1


def test_every_verdict_has_a_meaning():
    assert set(VERDICTS) == {"stands", "reversed", "within noise", "borderline", "untestable"}


def test_equal_means_are_neither_better_nor_worse():
    [one] = compare(made_up("mean = 90.0, sd = 0.1, n = 5", "mean = 90.0, sd = 0.1, n = 5"))
    assert (one.better, one.p, one.n_needed, one.verdict) == (None, 1.0, None, "within noise")


def test_without_a_printed_n_both_are_assumed():
    found = compare(made_up("mean = 90.0, sd = 0.1", "mean = 91.0, sd = 0.1"))
    assert [(one.n, one.baseline_n) for one in found] == [(3, 3), (7, 7)]


def test_a_gain_that_its_means_cannot_give_is_a_finding():
    """92.83 / 92.55 is 0.3025 % more; from 0.2917 to 0.3134 by rounding."""
    for printed, agrees, exact in ((0.30, True, True), (0.29, True, False), (0.31, True, False), (0.27, False, False)):
        paper = made_up("mean = 92.55, n = 3", f"mean = 92.83, gain = {printed}, n = 3")
        [one] = gains(paper)
        assert one.recomputed == pytest.approx(100 * 0.28 / 92.55)
        assert (one.low, one.high) == pytest.approx((100 * 0.27 / 92.555, 100 * 0.29 / 92.545))
        assert (one.agrees, one.exact) == (agrees, exact)
        [finding] = printed_gains(Case(paper, tuple(compare(paper)), (one,)))
        assert finding.kind == ("agreement" if agrees else "disagreement")


def test_a_table_that_says_what_its_spread_is_assumes_nothing():
    """And is not read otherwise; one that does not is, with √n times the spread."""
    base, mine = "mean = 90.0, sd = 0.1, n = 4", "mean = 90.25, sd = 0.1, n = 4"
    silent = made_up(base, mine)
    text = MADE_UP.replace("decimals = 2", 'decimals = 2\nspread = "standard deviation"')
    stated = parse_paper(text.format(base=base, mine=mine, metric="accuracy"), "x.toml")
    [one], [said] = compare(silent), compare(stated)
    assert (one.assumes, said.assumes) == ("± is a standard deviation, which is not said", None)
    assert compare(stated, errors=True) == [said]
    [wide] = compare(silent, errors=True)
    assert (wide.sd, wide.baseline_sd, wide.verdict, one.verdict) == (0.2, 0.2, "within noise", "stands")
    assert wide.p == pytest.approx(stats.ttest_ind_from_stats(90.25, 0.2, 4, 90.0, 0.2, 4, equal_var=False).pvalue)
    spread = [Summary(mean, 0.2, 4, half=0.005, sd_half=0.01) for mean in (90.25, 90.0)]
    assert (wide.p_low, wide.p_high) == p_range(*spread)
    [finding] = standard_errors(Case(silent, (one,), ()))
    assert "1 of the 1 whose n is printed" in finding.statement
    assert list(standard_errors(Case(stated, (said,), ()))) == []


def test_standard_deviations_that_differ_are_no_finding():
    paper = made_up("mean = 90.0, sd = 0.1, n = 5", "mean = 91.0, sd = 0.1, n = 5")
    assert list(same_spread(Case(paper, tuple(compare(paper)), ()))) == []
    assert list(headlines(Case(paper, tuple(compare(paper)), ()))) == []


# ------------------------------------------------------------------------------------------------ findings

RECORD = (Path(__file__).parents[2] / "experiments" / "papers" / "insgd.toml").read_text("utf-8")


def audited(record: str) -> list:
    """Every finding that the record of the INSGD paper allows; those that it does not are refused."""
    paper = parse_paper(record, "insgd.toml")
    case = Case(paper, tuple(compare(paper)), tuple(gains(paper)))
    made = []
    for make in (*general.FINDINGS, *insgd_claims.FINDINGS, *insgd_texts.FINDINGS, *general.LAST):
        with suppress(PublishedError):
            made += make(case)
    return made


def test_no_sentence_says_noise_where_none_is():
    """With tiny standard deviations every difference that rounding cannot undo is beyond noise, lower ones too."""
    made = {one.id: one.statement for one in audited(re.sub(r"sd = [\d.]+", "sd = 0.001", RECORD))}
    assert not [statement for statement in made.values() if "within noise" in statement]
    assert "INSGD-ℓ1 (−0.25, reversed)" in made["insgd/consistently"]
    assert "(−0.16, reversed at n = 3 and at n = 7)" in made["insgd/consistently"]
    assert "INSGD-ℓ2 (+0.06, stands)" in made["insgd/own-best-rate"]
    assert "insgd/sd-of-one-image" not in made


def test_no_sentence_says_that_something_stands_where_nothing_does():
    made = {one.id: one.statement for one in audited(re.sub(r"sd = [\d.]+", "sd = 99.0", RECORD))}
    stand = [words for one in made.values() for words in re.findall(r"[^.;:,]*\bstands?\b", one)]
    assert {words.strip() for words in stand} == {"What stands", "0 stand"}
    assert made["insgd/stands"] == "What stands: nothing."


def test_verdicts_that_differ_by_the_assumed_n_are_both_told():
    """-0.16 with standard deviations of 0.10 is noise over 3 runs, and not over 7."""
    record = RECORD.replace("mean = 78.24, sd = 0.43", "mean = 79.24, sd = 0.43")
    told = {one.id: one.statement for one in audited(record)}["insgd/consistently"]
    assert "top-1: INSGD-ℓ1 (−1.16, within noise at n = 3 and reversed at n = 7)" in told


@pytest.mark.parametrize(
    ("printed", "changed", "finding"),
    [
        ("mean = 79.30", "mean = 70.30", "insgd/own-best-rate"),  # INSGD-ℓ2 is then best at another rate than SGD
        ("mean = 74.68", "mean = 79.31", "insgd/any-learning-rate"),
        ("mean = 91.75", "mean = 93.75", "insgd/mobilenetv3-outperforms"),
        ("mean = 85.13", "mean = 83.13", "insgd/close-to-adam"),
        ("mean = 79.2 }", "mean = 79.3 }", "insgd/page-b-up-to"),
        ("mean = 78.08", "mean = 78.28", "insgd/higher-top-1-and-5"),
        ("mean = 92.60", "mean = 92.70", "insgd/better-norm"),
    ],
)
def test_a_sentence_that_the_cells_do_not_bear_out_is_refused(printed, changed, finding):
    assert finding in {one.id for one in audited(RECORD)}
    assert printed in RECORD
    assert finding not in {one.id for one in audited(RECORD.replace(printed, changed))}


def test_adanorms_sentences_follow_its_cells_too():
    """One AdamNorm below Adam in Table 4 is refused; one RadamNorm below Radam is counted, with the sign test's p."""
    record = (Path(__file__).parents[2] / "experiments" / "papers" / "adanorm.toml").read_text("utf-8")
    lower = record.replace("mean = 92.30, n = 3", "mean = 91.30, n = 3").replace("mean = 93.14", "mean = 92.14")
    paper = parse_paper(lower, "adanorm.toml")
    case = Case(paper, tuple(compare(paper)), tuple(gains(paper)))
    with pytest.raises(PublishedError, match="order of means"):
        list(adanorm.sentences_that_hold(case))
    [finding] = adanorm.radamnorm_signs(case)
    assert finding.statement.startswith("8 of the 9 differences")
    assert f"once in {1 / (2 * (1 + 9) / 2**9):.0f}." in finding.statement
    [finding] = general.printed_gains(case)
    assert (finding.kind, "35 are what the printed means give" in finding.statement) == ("disagreement", True)


def test_the_refusal_says_what_to_do():
    with pytest.raises(PublishedError, match=r"says that the sky is green, which the cells .* correct the cell"):
        expect(False, "the sky is green")


def test_findings_have_places_evidence_and_names_of_their_own(found):
    names = [one.id for one in found.findings]
    assert len(set(names)) == len(names)
    for one in found.findings:
        assert one.id.startswith(f"{one.paper}/")
        assert one.evidence
        assert one.statement.endswith(".")
        assert "author" not in one.statement.lower()
    with pytest.raises(KeyError):
        found.finding("nothing")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "insgd/figures-abstract-mobilenetv3",
            ["90.83 and 91.13", "SGD 93.06 ± 0.11", "INSGD-ℓ2 93.10 ± 0.01", "README"],
        ),
        ("insgd/figures-agree", ["Of 16 statements", "13 repeat", "3 do not"]),
        ("insgd/same-sd-9", ["All 6 standard deviations", "batch size = 256 are 0.43", "7 of 12"]),
        ("insgd/plus-minus", ["standard deviations for Table 5 only"]),
        ("insgd/no-n-9", ["n = 3 and n = 7"]),
        ("insgd/summary", ["36 tests", "in 32", "28 whose n is printed 10 stand and 18 are within noise"]),
        ("insgd/summary", ["8 are within noise at n = 3 and 3 stand and 5 are within noise at n = 7"]),
        (
            "insgd/own-best-rate",
            ["+7.32 and +8.76", "13.32 points", "(+0.17, within noise) and INSGD-ℓ2 (+0.06, within noise)"],
        ),
        ("insgd/page-b-up-to", ["6.6 points (CVM Stages", "6.1 is that of Medical X-Rays", "has 5.5 over SGD and 2.8"]),
        ("insgd/sd-of-one-image", ["5 standard deviations", "the others in these tables are 0.09 to 0.29"]),
        ("insgd/batch-256", ["77.89 for the same optimizer and 77.22 for SGD"]),
        ("insgd/linear-scaling", ["0.1 at 128, 0.1 at 256 and 0.2 at 512", "gives 0.2 and 0.4"]),
        ("insgd/close-to-adam", ["by 0.86 to 1.81 points"]),
        ("insgd/no-batch-norm", ["14.56 points below 79.41", "4.52 points below 79.30"]),
        ("insgd/any-learning-rate", ["INSGD-ℓ1 loses 6.17 points and INSGD-ℓ2 loses 4.62 points (SGD 13.32)"]),
        ("insgd/headline-abstract-resnet50", ["p = 0.33", "within noise at n = 3"]),
        ("insgd/significant-boost", ["Of 22 comparisons", "2 more being rows of an earlier table, 10 stand"]),
        ("insgd/stands", ["INSGD-ℓ1 (+3.60, learning rate = 0.05 against 0.01)"]),
        (
            "insgd/stands-n7",
            ["Table 9, batch size = 256, top-1: INSGD-ℓ1 (+0.93) and INSGD-ℓ2 (+0.67)", "top-5: INSGD-ℓ1"],
        ),
        ("insgd/seeds-strengthen", ["top-1 INSGD-ℓ2 (+0.30, within noise) p = 0.059"]),
        ("insgd/consistently", ["in 4 of 34 different comparisons", "(−0.16, within noise at n = 3 and at n = 7)"]),
        ("adanorm/gains", ["Of 36 gains", "36 are what the printed means give", "11.15 %, is +5.46 percentage points"]),
        ("adanorm/no-sd", ["72 comparisons", "0.441 times", "better than the baseline's in 71"]),
        ("adanorm/repeated-cells", ["42 of the 42 cells"]),
        ("adanorm/order-of-means", ["35 of 36", "18 of 18 in Table 4", "18 of 18 in Table 5", "9 of 9"]),
        (
            "adanorm/own-best-rate",
            ["resnet18 on cifar100 +2.02 becomes +0.19", "vgg16 on cifar100 +1.86 becomes +0.58"],
        ),
        ("adanorm/batch-size", ["in 4 of 6 rows (0.79 points on average against 0.71)"]),
        ("adanorm/radamnorm-signs", ["9 of the 9", "+0.07 to +1.77", "once in 256"]),
    ],
)
def test_findings_have_their_numbers(found, name, words):
    statement = found.finding(name).statement
    for word in words:
        assert word in statement


def test_what_the_published_code_computes_is_always_said_with_if(found):
    code = [one for one in found.findings if one.kind == "code"]
    assert len(code) == 7
    for one in code:
        assert one.assumes == "if the tables were made with the published code"
        assert re.search(r"\bIf the tables? (was|were) made with the published code\b", one.statement)


def test_what_is_assumed_is_what_is_not_printed(found):
    """± is called a standard deviation for Table 5 alone; Table 9 and page b print no n; AdaNorm prints no ±."""
    for one in found.comparisons:
        told = one.assumes or ""
        assert one.sd_stated == (None if one.sd is None else one.table == "5")
        assert ("± is a standard deviation" in told) == (one.sd_stated is False)
        assert (f"n = {one.n}, which is not printed" in told) == (one.table in ("9", "page b")) == (not one.n_printed)


@pytest.mark.parametrize(
    ("name", "runs", "spread"),
    [
        ("summary", True, True),
        ("stands", False, True),
        ("stands-n3", True, True),
        ("headline-abstract-resnet20", False, True),
        ("headline-abstract-wrn18", True, True),
        ("consistently", True, True),
        ("significant-boost", False, True),
        ("own-best-rate", False, True),
        ("mobilenetv3-outperforms", False, False),  # Table 5 says what its ± are
        ("close-to-adam", False, True),
        ("seeds-strengthen", False, True),
        ("same-sd-9", False, True),
        ("sd-of-one-image", False, True),
        ("page-b-untestable", True, False),
        ("no-batch-norm", False, False),  # of means alone
    ],
)
def test_findings_assume_what_their_comparisons_do(found, name, runs, spread):
    told = found.finding(f"insgd/{name}").assumes or ""
    assert ("which is not printed" in told) == runs
    assert ("± is a standard deviation, which the text says of Table 5 only" in told) == spread


def test_the_four_figures_of_the_abstract_are_all_judged(found):
    names = {one.id for one in found.findings}
    told = {f"insgd/headline-abstract-{model}" for model in ("resnet20", "wrn18", "resnet50")}
    assert told | {"insgd/figures-abstract-mobilenetv3"} <= names


# ------------------------------------------------------------------------------------------------ records


def test_one_paper_can_be_audited_alone(found):
    alone = audit(["adanorm"])
    assert {one.paper for one in alone.comparisons} == {one.paper for one in alone.findings} == {"adanorm"}
    assert alone.comparisons == tuple(one for one in found.comparisons if one.paper == "adanorm")
    with pytest.raises(PublishedError, match="there are: adanorm, insgd"):
        audit(["nobody"])


def test_the_frame_has_one_row_a_comparison(found):
    frame = found.frame()
    assert len(frame) == len(found.comparisons) == 122
    assert list(frame.columns[: len(FIXED)]) == FIXED
    assert (frame.loc[frame["paper"] == "adanorm", "verdict"] == "untestable").all()


def test_records_are_frozen(found):
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.comparisons[0].p = 0.0


KINDS = {
    "paper": str,
    "table": str,
    "condition": dict,
    "optimizer": str,
    "baseline": str,
    "difference": float,
    "p": (float, type(None)),
    "p_holm": (float, type(None)),
    "interval": (list, type(None)),
    "n": int,
    "verdict": str,
}


def run_audit(*arguments: str, columns: int | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {} if columns is None else {"COLUMNS": str(columns)}
    command = [sys.executable, "-W", "error", "-m", "insgd_lab", "audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.fixture(scope="module")
def called(tmp_path_factory) -> tuple[str, str]:
    """What the command prints, and what it writes."""
    path = tmp_path_factory.mktemp("audit") / "audit.json"
    return run_audit("--json", str(path)), path.read_text("utf-8")


def test_the_command_writes_one_record_a_comparison(called, found):
    written = json.loads(called[1], parse_constant=pytest.fail)
    assert list(written) == ["comparisons", "gains", "findings"]
    assert written == json.loads(json.dumps(found.to_json()))
    for record in written["comparisons"]:
        assert list(record)[: len(FIXED)] == FIXED
        assert all(isinstance(record[name], kind) for name, kind in KINDS.items()), record
        assert record["verdict"] in VERDICTS
        assert (record["p"] is None) == (record["verdict"] == "untestable") == (record["sd_bound"] is not None)
    names = ["id", "paper", "kind", "statement", "evidence", "assumes"]
    assert all(list(finding) == names for finding in written["findings"])


def test_the_terminal_shows_every_comparison_and_ends_with_the_findings(called, found):
    lines = called[0].splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)
    rows = [line for line in lines if re.search(rf"  \d\??  ( +\d+  )?({'|'.join(VERDICTS)}) *$", line)]
    assert len(rows) == len(found.comparisons)
    told = re.sub(r"\s+", " ", called[0])
    starts = [told.index(one.statement) for one in found.findings]
    assert min(starts) > told.index("Verdicts:")
    assert told.rstrip().endswith(found.findings[-1].statement)


@pytest.mark.parametrize(("columns", "widest"), [(80, 80), (140, 100)])
def test_tables_fit_the_terminal(found, columns, widest):
    """At 80 columns what has two parts stands in two lines, and no name or number is cut or split."""
    told = run_audit(columns=columns)
    lines = told.splitlines()
    assert max(map(len, lines)) <= widest
    assert "…" not in told
    rows = [line for line in lines if re.search(rf" \d\??  ?( *\d+  ?)?({'|'.join(VERDICTS)}) *$", line)]
    assert len(rows) == len(found.comparisons)
    names = {load_paper(one.paper).printed_name(one.optimizer, one.table) for one in found.comparisons}
    assert all(any(f" {name} " in f" {row}" for name in names) for row in rows)


def test_the_legend_says_how_plus_minus_is_read(called):
    told = re.sub(r"\s+", " ", called[0])
    legend = told[told.index("p: Welch's test") : told.index("Verdicts:")]
    assert "Assumed: ± is a standard deviation, which the text says of Table 5 only." in legend
    assert "±" not in CliRunner().invoke(app, ["audit", "adanorm"]).output


def test_the_command_audits_one_paper_alone_and_tells_of_mistakes():
    alone, unknown, nowhere = (
        CliRunner().invoke(app, ["audit", *arguments])
        for arguments in (["adanorm"], ["nobody"], ["--json", "no/such/folder.json"])
    )
    assert [result.exit_code for result in (alone, unknown, nowhere)] == [0, 2, 2]
    assert "AdaNorm, WACV 2023" in alone.output
    assert "INSGD, TMLR 2024" not in alone.output
    assert "there are: adanorm, insgd" in unknown.output
    assert "no/such/folder.json" in nowhere.output


# ------------------------------------------------------------------------------------------------ the page

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text("utf-8")


def test_the_page_says_what_the_audit_finds(found):
    told = {one.statement for one in found.findings}
    section = PAGE.split("## Findings in short", 1)[1].split("\n## ", 1)[0]
    bullets = [re.sub(r"\s+", " ", bullet).strip() for bullet in re.split(r"^- ", section, flags=re.MULTILINE)[1:]]
    assert len(bullets) >= 10
    for bullet in bullets:
        assert bullet in told


def test_the_page_defines_every_verdict():
    plain = re.sub(r"\s+", " ", PAGE)
    for verdict, meaning in VERDICTS.items():
        assert f"`{verdict}`: {meaning}" in plain
