"""What the INSGD paper's text says of its tables, beside what the tables print."""

from __future__ import annotations

from collections.abc import Iterator

from insgd_lab.analysis.audit.case import Case, listed, p_text
from insgd_lab.analysis.audit.multiplicity import holm
from insgd_lab.analysis.audit.records import Finding
from insgd_lab.analysis.audit.summaries import Summary, p_value
from insgd_lab.analysis.labels import signed
from insgd_lab.analysis.published import PublishedCell

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
    once = [one for one in case.comparisons if one.sd is not None and (one.assumes is None or one.n == 7)]
    lower = [one for one in once if one.better is False]
    told = [f"{case.where(one)}: {case.told(one)}" for one in lower]
    beyond = sum(one.verdict != "within noise" for one in lower)
    yield case.finding(
        "consistently",
        "claim",
        f"Section 5 says that INSGD “consistently demonstrated improvements”; its mean is below SGD's in {len(lower)} "
        f"of {len(once)} comparisons, {beyond or 'none'} of them beyond noise: {'; '.join(told)}.",
        [case.quoted("consistently"), *told],
    )


def cifar10_boost(case: Case) -> Iterator[Finding]:
    """On CIFAR-10, which differences are beyond noise."""
    tables = ("3", "4", "5", "6", "7", "8")
    found = [one for one in case.comparisons if one.table in tables]
    stand = [one for one in found if one.verdict == "stands"]
    places = list(dict.fromkeys(case.where(one) for one in stand))
    noise = [number for number in tables if all(one.verdict == "within noise" for one in case.find(number))]
    yield case.finding(
        "significant-boost",
        "claim",
        f"Section 5 says that INSGD “achieved a significant boost in accuracy” on CIFAR-10. Of {len(found)} "
        f"comparisons with SGD there {len(stand)} stand: those of {'; '.join(places)}. All of Tables {listed(noise)} "
        "are within noise.",
        [case.quoted("significant-boost"), *(f"{case.where(one)}: {case.told(one)}" for one in stand)],
    )


def own_best_rate(case: Case) -> Iterator[Finding]:
    """Table 6 with every optimizer at the learning rate that is best for it."""
    best = {name: max(case.paper.cells("6", name), key=lambda cell: cell.mean) for name in _ROW}
    sgd, at = best["sgd"], case.cell("6", "sgd", {"lr": 0.25})
    leads = [f"{case.name(name)} {signed(best[name].mean - sgd.mean)}" for name in _NORMS]
    large = [f"{signed(one.difference)}" for one in case.find("6", condition={"lr": 0.25})]
    rates = {cell.condition["lr"] for cell in best.values()}
    assert len(rates) == 1  # at one rate, the comparison is one of the table's own
    yield case.finding(
        "own-best-rate",
        "claim",
        f"Table 6's large leads ({listed(large)}) are at learning rate 0.25, where SGD is {sgd.mean - at.mean:.2f} "
        f"points below its own mean at {sgd.condition['lr']}. All three optimizers have their best mean at "
        f"{rates.pop()}, and there the leads are {listed(leads)}, within noise.",
        [case.row("6", _ROW, {"lr": rate}) for rate in (0.1, 0.25, 0.01)],
    )


def any_learning_rate(case: Case) -> Iterator[Finding]:
    """Accuracy that is said not to depend on the learning rate."""
    low, high = ({name: case.cell("6", name, {"lr": rate}).mean for name in _ROW} for rate in (0.1, 0.25))
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
    told = [f"{case.told(one)} has {p_text(one.p or 0)}" for one in case.find("5")]
    least = min(case.means("5", "insgd-l1") + case.means("5", "insgd-l2"))
    gap = least - max(case.cell("5", name).mean for name in ("adam", "adagrad", "adadelta"))
    yield case.finding(
        "mobilenetv3-outperforms",
        "claim",
        "Section 4.1 says that Table 5 “clearly” demonstrates “that the INSGD algorithm outperforms other conventional "
        f"optimization algorithms”. Against SGD {listed(told)}, both within noise; Adam, Adagrad and Adadelta are "
        f"{gap:.2f} points or more below both.",
        [case.quoted("mobilenetv3-outperforms"), case.row("5", _ROW)],
    )


def no_batch_norm(case: Case) -> Iterator[Finding]:
    """Table 7's custom CNN against the same network with batch normalisation in Table 6."""
    pairs = [(case.cell("7", name, {_MODEL: "custom-cnn"}), case.cell("6", name, {"lr": 0.1})) for name in _NORMS]
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
    yield case.finding(
        "close-to-adam",
        "claim",
        "Section 4.1 says of the vision transformer that “Adam outperforms both INSGD and SGD”, section 5 that INSGD's "
        f"performance is close to Adam's. In Table 8 Adam leads the four INSGD rows by {min(gaps):.2f} to "
        f"{max(gaps):.2f} points, each with {p_text(float(p))} or less after Holm over the four.",
        [
            case.quoted("adam-on-vit"),
            case.quoted("close-to-adam"),
            *(case.row("8", (*_ROW, "adam"), {_NORM: norm}) for norm in (True, False)),
        ],
    )


def _summary(cell: PublishedCell) -> Summary:
    assert cell.sd is not None  # Table 8 prints both
    assert cell.n is not None
    return Summary(cell.mean, cell.sd, cell.n)


def higher_top_1_and_5(case: Case) -> Iterator[Finding]:
    """Table 9's one cell that is lower."""
    cells = [case.cell("9", name, {_BATCH: 128}) for name in ("insgd-l1", "sgd")]
    others = [one.better for one in case.find("9") if one.n == 3 and one.mean != cells[0].mean]
    yield case.finding(
        "higher-top-1-and-5",
        "claim",
        "Section 4.2 speaks of INSGD's “higher Top-1 and Top-5 accuracy”; at batch size 128 Table 9 prints a top-1 of "
        f"{listed([case.printed(cell) for cell in cells])}. Of the other {len(others)} INSGD means "
        f"{sum(map(bool, others))} are higher than SGD's.",
        [case.quoted("higher-top-1-and-5"), case.row("9", _ROW, {_BATCH: 128})],
    )


def imagenet_seeds(case: Case) -> Iterator[Finding]:
    """Table 10, whose seeds are said to strengthen the evidence."""
    found = list(case.find("10"))
    least = min(found, key=lambda one: one.p or 0)
    span = f"{least.p_low:.2g} to {least.p_high:.2g}"
    told = [f"{one.metric.split(' accuracy')[0].split()[-1]} {case.told(one)} {p_text(one.p or 0)}" for one in found]
    yield case.finding(
        "seeds-strengthen",
        "claim",
        "Section 4.3 says of Table 10 that different seeds strengthen “the evidence of improvement”; with its n = 3 "
        f"every difference is within noise: {'; '.join(told)} before Holm (the least can be {span} by rounding, and is "
        f"{least.p_holm:.2g} after Holm).",
        [case.quoted("seeds-strengthen"), case.row("10", _ROW)],
    )


def better_norm(case: Case) -> Iterator[Finding]:
    """Which of the two norms the abstract takes."""
    told, quotes = [], []
    for claim in case.paper.claims:
        if claim.place == "abstract" and claim.document == "paper" and claim.id != "abstract-mobilenetv3":
            arm = claim.figures[-1]
            means = {name: case.cell(arm.table, name, arm.condition).mean for name in _NORMS}
            assert max(means, key=means.__getitem__) == arm.optimizer
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
