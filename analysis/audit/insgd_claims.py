"""What the INSGD paper's text says of its tables, beside what the tables print."""

from __future__ import annotations

from collections.abc import Iterator

from insgd_lab.analysis.audit.case import (
    Case,
    distinct,
    equation,
    expect,
    listed,
    metric_name,
    tables_name,
)
from insgd_lab.analysis.audit.comparisons import assumption
from insgd_lab.analysis.audit.records import Finding
from insgd_lab.analysis.audit.summaries import Summary, p_value
from insgd_lab.analysis.labels import signed
from insgd_lab.analysis.published import PublishedCell, PublishedError
from insgd_lab.analysis.statistics import holm

__all__ = ["FINDINGS"]

_NORMS = ("insgd-l1", "insgd-l2")
_ROW = ("sgd", *_NORMS)
_BATCH, _NORM, _MODEL = "train.batch_size", "task.model.layer_norm", "task.model"


def version(case: Case) -> Iterator[Finding]:
    """Which text was audited."""
    yield case.finding(
        "version",
        "missing",
        "The text audited is headed “Paper under double-blind review”; the published version may differ from it.",
        [case.quoted("review-copy"), case.quoted("page-b-paper")],
    )


# ------------------------------------------------------------------------------------------------ claims and tables


def consistently(case: Case) -> Iterator[Finding]:
    """Where the INSGD mean is the lower one."""
    rows = case.rows(distinct(one for one in case.comparisons if one.p is not None))
    lower = [row for row in rows if row[0].better is False]
    told = [f"{case.where(row[0])}: {case.judged(row)}" for row in lower]
    yield case.finding(
        "consistently",
        "claim",
        f"Section 5 says that INSGD “consistently demonstrated improvements”; its mean is below SGD's in {len(lower)} "
        f"of {len(rows)} different comparisons{': ' if told else ''}{'; '.join(told)}.",
        [case.quoted("consistently"), *told],
        of=(one for row in lower for one in row),
    )


def cifar10_boost(case: Case) -> Iterator[Finding]:
    """On CIFAR-10, which differences are beyond noise."""
    tables = [table.number for table in case.paper.table if table.data == "cifar10"]
    found = [one for one in case.comparisons if one.table in tables]
    once = distinct(found)
    stand = [one for one in once if one.verdict == "stands"]
    places = "; ".join(dict.fromkeys(case.where(one) for one in stand))
    noise = [number for number in tables if all(one.verdict == "within noise" for one in case.find(number))]
    repeated = f", {len(found) - len(once)} more being rows of an earlier table" if len(once) < len(found) else ""
    yield case.finding(
        "significant-boost",
        "claim",
        f"Section 5 says that INSGD “achieved a significant boost in accuracy” on CIFAR-10. Of {len(once)} "
        f"comparisons with SGD there{repeated}, {len(stand)} stand{f': those of {places}' if stand else ''}."
        + (f" Every comparison of {tables_name(noise)} is within noise." if noise else ""),
        [case.quoted("significant-boost"), *(f"{case.where(one)}: {case.told(one)}" for one in stand)],
        of=found,
    )


def own_best_rate(case: Case) -> Iterator[Finding]:
    """Table 6 with every optimizer at the learning rate that is best for it."""
    best = {name: max(case.paper.cells("6", name), key=lambda cell: cell.mean) for name in _ROW}
    large = list(case.find("6", condition={"lr": 0.25}))
    others = [one.difference for one in case.find("6") if one not in large]
    sgd, at = best["sgd"], case.cell("6", "sgd", {"lr": 0.25})
    rates = {cell.condition["lr"] for cell in best.values()}
    expect(min(one.difference for one in large) > max(others), "Table 6's largest leads are at learning rate 0.25")
    expect(len(rates) == 1 and at != sgd, "all optimizers of Table 6 are best at one learning rate, which is not 0.25")
    leads = [one for one in case.find("6") if one.condition["lr"] in rates]
    yield case.finding(
        "own-best-rate",
        "claim",
        f"Table 6's large leads ({listed([signed(one.difference) for one in large])}) are at learning rate 0.25, where "
        f"SGD is {sgd.mean - at.mean:.2f} points below its own mean at {rates.pop()}. All three optimizers have their "
        f"best mean there, and the leads there are {listed([case.judged([one]) for one in leads])}.",
        [case.row("6", _ROW, {"lr": rate}) for rate in (0.1, 0.25, 0.01)],
        of=leads,
    )


def any_learning_rate(case: Case) -> Iterator[Finding]:
    """Accuracy that is said not to depend on the learning rate."""
    low, high = ({name: case.cell("6", name, {"lr": rate}).mean for name in _ROW} for rate in (0.1, 0.25))
    expect(all(low[name] > high[name] for name in _ROW), "every optimizer of Table 6 loses from rate 0.1 to rate 0.25")
    drops = [f"{case.name(name)} loses {low[name] - high[name]:.2f} points" for name in _NORMS]
    yield case.finding(
        "any-learning-rate",
        "claim",
        "Section 4.1 says that INSGD “shows consistent accuracy results regardless of the network architecture or the "
        f"learning rate used”; in Table 6, between learning rates 0.1 and 0.25, {listed(drops)} "
        f"(SGD {low['sgd'] - high['sgd']:.2f}).",
        [case.quoted("any-learning-rate"), *(case.row("6", _ROW, {"lr": rate}) for rate in (0.1, 0.25))],
    )


def mobilenetv3(case: Case) -> Iterator[Finding]:
    """Table 5, from which INSGD is said to outperform clearly."""
    found = list(case.find("5"))
    told = [f"{case.judged([one])} has {equation(one.p)}, {equation(one.p_holm)} after Holm" for one in found]
    least = min(case.means("5", "insgd-l1") + case.means("5", "insgd-l2"))
    gap = least - max(case.cell("5", name).mean for name in ("adam", "adagrad", "adadelta"))
    expect(gap > 0, "Adam, Adagrad and Adadelta are below INSGD in Table 5")
    yield case.finding(
        "mobilenetv3-outperforms",
        "claim",
        "Section 4.1 says that Table 5 “clearly” demonstrates “that the INSGD algorithm outperforms other conventional "
        f"optimization algorithms”. Against SGD {listed(told)}; Adam, Adagrad and Adadelta are {gap:.2f} points or "
        "more below both.",
        [case.quoted("mobilenetv3-outperforms"), case.row("5", _ROW)],
        of=found,
    )


def no_batch_norm(case: Case) -> Iterator[Finding]:
    """Table 7's custom CNN against the same network with batch normalisation in Table 6."""
    pairs = [(case.cell("7", name, {_MODEL: "custom-cnn"}), case.cell("6", name, {"lr": 0.1})) for name in _NORMS]
    expect(all(bare.mean < normed.mean for bare, normed in pairs), "without batch normalisation INSGD loses accuracy")
    told = [
        f"{case.printed(bare)}, {normed.mean - bare.mean:.2f} points below {normed.mean:.2f}" for bare, normed in pairs
    ]
    sgd = case.cell("7", "sgd", {_MODEL: "custom-cnn"})
    yield case.finding(
        "no-batch-norm",
        "claim",
        "Section 4.1 says that without batch normalisation SGD diverges on the custom CNN and INSGD “achieves "
        f"performance levels close to optimal settings”. Table 7 prints {case.printed(sgd)} (chance is 10), and "
        f"{listed(told)}, the mean with batch normalisation at the same learning rate in Table 6.",
        [case.quoted("no-batch-norm"), case.row("7", _ROW, {_MODEL: "custom-cnn"}), case.row("6", _ROW, {"lr": 0.1})],
    )


def adam_on_vit(case: Case) -> Iterator[Finding]:
    """Table 8 against Adam: two sentences of the text, and a test that is not of the audit's families."""
    rows = [(norm, name) for norm in (True, False) for name in _NORMS]
    cells = [(case.cell("8", name, {_NORM: norm}), case.cell("8", "adam", {_NORM: norm})) for norm, name in rows]
    p = holm([p_value(_summary(own), _summary(adam)) for own, adam in cells]).max()
    gaps = [adam.mean - own.mean for own, adam in cells]
    expect(min(gaps) > 0, "Adam leads INSGD in every row of Table 8")
    yield case.finding(
        "close-to-adam",
        "claim",
        "Section 4.1 says of the vision transformer that “Adam outperforms both INSGD and SGD”, section 5 that INSGD's "
        f"performance is close to Adam's. In Table 8 Adam leads the {len(gaps)} INSGD rows by {min(gaps):.2f} to "
        f"{max(gaps):.2f} points, each with {equation(float(p))} or less after Holm over the {len(gaps)}.",
        [
            case.quoted("adam-on-vit"),
            case.quoted("close-to-adam"),
            *(case.row("8", (*_ROW, "adam"), {_NORM: norm}) for norm in (True, False)),
        ],
        assumption(case.paper, [], case.paper.find_table("8").spread is None),
    )


def _summary(cell: PublishedCell) -> Summary:
    if cell.sd is None or cell.n is None:
        raise PublishedError(f"Table {cell.table}'s cell of {cell.optimizer} has no sd or no n, and a finding tests it")
    return Summary(cell.mean, cell.sd, cell.n)


def higher_top_1_and_5(case: Case) -> Iterator[Finding]:
    """Table 9's means that are lower."""
    rows = [row[0] for row in case.rows(case.find("9"))]
    lower = [f"{case.where(one)}: {case.told(one)}" for one in rows if one.better is False]
    expect(bool(lower), "an INSGD mean of Table 9 is lower than SGD's")
    higher = sum(one.better is True for one in rows)
    yield case.finding(
        "higher-top-1-and-5",
        "claim",
        f"Section 4.2 speaks of INSGD's “higher Top-1 and Top-5 accuracy”; of the {len(rows)} INSGD means in Table 9 "
        f"{higher} are higher than SGD's and {len(lower)} lower: {'; '.join(lower)}.",
        [case.quoted("higher-top-1-and-5"), case.row("9", _ROW, {_BATCH: 128})],
    )


def imagenet_seeds(case: Case) -> Iterator[Finding]:
    """Table 10, whose seeds are said to strengthen the evidence."""
    found = list(case.find("10"))
    least = min(found, key=lambda one: 1.0 if one.p is None else one.p)
    span = f"{least.p_low:.2g} to {least.p_high:.2g}"
    told = [f"{metric_name(one.metric)} {case.judged([one])} {equation(one.p)}" for one in found]
    yield case.finding(
        "seeds-strengthen",
        "claim",
        "Section 4.3 says of Table 10 that different seeds strengthen “the evidence of improvement”; with its n = "
        f"{least.n} the differences are, with p before and the verdict after Holm: {'; '.join(told)} (the least p can "
        f"be {span} by rounding, and is {least.p_holm:.2g} after Holm).",
        [case.quoted("seeds-strengthen"), case.row("10", _ROW)],
        of=found,
    )


def better_norm(case: Case) -> Iterator[Finding]:
    """Which of the two norms the abstract takes."""
    told, quotes = [], []
    for claim in case.paper.claims:
        if claim.place == "abstract" and claim.document == "paper" and claim.id != "abstract-mobilenetv3":
            arm = claim.figures[-1]
            means = {name: case.cell(arm.table, name, arm.condition).mean for name in _NORMS}
            expect(
                max(means, key=means.__getitem__) == arm.optimizer, f"{claim.id} is of the norm with the higher mean"
            )
            others = [f"{case.name(name)} {mean:.2f}" for name, mean in means.items() if name != arm.optimizer]
            told.append(f"{case.name(arm.optimizer)} {arm.value:.2f} in Table {arm.table} (the other: {others[0]})")
            quotes.append(case.quoted(claim.id))
    yield case.finding(
        "better-norm",
        "selection",
        "Of the two norms, the abstract's figures are in each table of the one with the higher mean: "
        f"{'; '.join(told)}.",
        quotes,
    )


FINDINGS = (
    version,
    consistently,
    cifar10_boost,
    own_best_rate,
    any_learning_rate,
    mobilenetv3,
    no_batch_norm,
    adam_on_vit,
    higher_top_1_and_5,
    imagenet_seeds,
    better_norm,
)
