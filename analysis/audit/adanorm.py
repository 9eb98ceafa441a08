"""What the AdaNorm paper says of its tables, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scipy import stats

from insgd_lab.analysis.audit.case import Case, condition_text, expect, listed
from insgd_lab.analysis.audit.general import ASSUMES_CODE
from insgd_lab.analysis.audit.records import Finding
from insgd_lab.analysis.labels import signed
from insgd_lab.analysis.published import Condition, PublishedCell

__all__ = ["FINDINGS"]

_PLACE = ("task.data", "task.model")


def _places(case: Case, table: str) -> list[Condition]:
    """The data sets and models of a table, in printed order."""
    found = [{name: cell.condition[name] for name in _PLACE} for cell in case.paper.cells(table)]
    return [place for at, place in enumerate(found) if place not in found[:at]]


def _told(place: Condition) -> str:
    return f"{place['task.model']} on {place['task.data']}"


def repeated_cells(case: Case) -> Iterator[Finding]:
    """Cells of Tables 2 to 5 that are those of Table 1."""
    shared: dict[str, Condition] = {
        "2": {"gamma": 0.95},
        "3": {"correct": "first"},
        "4": {"lr": 0.001},
        "5": {"train.batch_size": 64},
    }
    pairs = [
        (cell, case.cell("1", cell.optimizer, {name: cell.condition[name] for name in _PLACE}))
        for table, condition in shared.items()
        for cell in case.paper.cells(table, condition=condition)
    ]
    same = sum(cell.mean == first.mean for cell, first in pairs)
    yield case.finding(
        "repeated-cells",
        "agreement" if same == len(pairs) else "disagreement",
        f"{same} of the {len(pairs)} cells of Tables 2 to 5 whose setting is Table 1's (γ = 0.95, first moment, "
        "learning rate 0.001, batches of 64) repeat its figures.",
        [f"Table {table}: {condition_text(condition, condition)}" for table, condition in shared.items()],
    )


def sentences_that_hold(case: Case) -> Iterator[Finding]:
    """What the text says of the order of means, as far as the tables say the same."""
    better = {table: [one.better is True for one in case.find(table)] for table in ("1", "4", "5")}
    first = [_best(case, "3", "correct", place) == ["first"] for place in _places(case, "3")]
    share = sum(better["1"]) / len(better["1"])
    expect(share >= 0.9 and all(better["4"] + better["5"] + first), "the order of means is what AdaNorm's text says")
    told = [
        f"“almost all” of Table 1 improve: {sum(better['1'])} of {len(better['1'])}",
        f"AdamNorm is “always better” at the same learning rate: {sum(better['4'])} of {len(better['4'])} in Table 4",
        f"and at the same batch size: {sum(better['5'])} of {len(better['5'])} in Table 5",
        f"correcting the first moment alone is best: {sum(first)} of {len(first)} columns of Table 3",
    ]
    quotes = ("almost-all", "same-schedule", "every-batch-size", "first-moment", "highest")
    yield case.finding(
        "order-of-means",
        "agreement",
        f"What the text says of the order of means is what the tables print: {'; '.join(told)}.",
        [case.quoted(claim) for claim in quotes],
    )


def _best(case: Case, table: str, name: str, place: Condition) -> list[object]:
    """The levels of a condition with the highest mean of AdamNorm; several where they are equal."""
    cells = case.paper.cells(table, "adamnorm", condition=place)
    top = max(cell.mean for cell in cells)
    return [cell.condition[name] for cell in cells if cell.mean == top]


def significantly(case: Case) -> Iterator[Finding]:
    """Significance without a test."""
    yield case.finding(
        "significantly",
        "missing",
        "Section 7 says that the performance is “significantly improved”; no standard deviation of a result, no test "
        "and no interval is printed.",
        [case.quoted("significantly")],
    )


def own_best_rate(case: Case) -> Iterator[Finding]:
    """Table 4 with either optimizer at the learning rate that is best for it."""
    told = []
    for place in _places(case, "4"):
        best = [max(case.paper.cells("4", name, condition=place), key=_mean) for name in ("adam", "adamnorm")]
        same = [case.cell("4", name, {"lr": 0.001, **place}).mean for name in ("adam", "adamnorm")]
        rates = [f"{cell.condition['lr']:g}" for cell in best]
        lead, own = same[1] - same[0], best[1].mean - best[0].mean
        told.append(f"{_told(place)} {signed(lead)} becomes {signed(own)} (Adam at {rates[0]}, AdamNorm at {rates[1]})")
    yield case.finding(
        "own-best-rate",
        "selection",
        "Table 1's leads of AdamNorm over Adam are at learning rate 0.001 for both. With either at the learning rate "
        f"that is best for it in Table 4: {'; '.join(told)}.",
        [f"Table 4: {text}" for text in told],
    )


def _mean(cell: PublishedCell) -> float:
    return cell.mean


def batch_size(case: Case) -> Iterator[Finding]:
    """Robustness to the batch size, measured by the range over batch sizes."""
    places = _places(case, "5")
    ranges = [[_range(case.means("5", name, place)) for name in ("adam", "adamnorm")] for place in places]
    wider = sum(own > base for base, own in ranges)
    told = [f"{_told(place)} {base:.2f} and {own:.2f}" for place, (base, own) in zip(places, ranges, strict=True)]
    mean = [sum(column) / len(ranges) for column in zip(*ranges, strict=True)]
    yield case.finding(
        "batch-size",
        "claim",
        "Section 6.4 calls AdamNorm “more robust to the batch size”, since each batch size is its best one in some "
        "case, and section 7 calls the effect of batch size “negligible”. "
        "Measured by the range of accuracy over the three batch sizes of Table 5, AdamNorm varies more than Adam in "
        f"{wider} of {len(ranges)} rows ({mean[1]:.2f} points on average against {mean[0]:.2f}).",
        [case.quoted("robust"), case.quoted("negligible"), *(f"Table 5, Adam and AdamNorm: {text}" for text in told)],
    )


def _range(means: Sequence[float]) -> float:
    return max(means) - min(means)


def gamma(case: Case) -> Iterator[Finding]:
    """Which γ is best."""
    places = _places(case, "2")
    best = [(place, _best(case, "2", "gamma", place)) for place in places]
    cifar = [values for place, values in best if place["task.data"] != "tiny-imagenet"]
    tiny = [values for place, values in best if place["task.data"] == "tiny-imagenet"]
    means = {
        value: [
            case.cell("2", "adamnorm", {"gamma": value, **p}).mean for p in places if p["task.data"] != "tiny-imagenet"
        ]
        for value in (0.95, 0.99)
    }
    gap = (sum(means[0.99]) - sum(means[0.95])) / len(cifar)
    expect(0 < gap < 0.005, "γ = 0.99 leads 0.95 in Table 2's CIFAR columns by less than the rounding of the cells")
    yield case.finding(
        "gamma",
        "claim",
        "Section 6.1 finds γ = 0.99 better suited to CIFAR10 and CIFAR100 and 0.90 to TinyImageNet. In Table 2, 0.99 "
        f"has the highest mean in {sum(0.99 in values for values in cifar)} of {len(cifar)} CIFAR columns and 0.9 in "
        f"{sum(0.9 in values for values in tiny)} of {len(tiny)} TinyImageNet columns. Over the CIFAR columns the mean "
        f"at 0.99 leads that at 0.95, which Table 1 uses, by {gap:.3f} points, less than the rounding of the cells.",
        [
            case.quoted("gamma-cifar"),
            case.quoted("gamma-tiny"),
            *(f"Table 2, {_told(place)}: best at {listed([f'{v:g}' for v in values])}" for place, values in best),
        ],
    )


def figure_3(case: Case) -> Iterator[Finding]:
    """The rows of Figure 3."""
    yield case.finding(
        "figure-3",
        "disagreement",
        "The caption of Figure 3 names two data sets for three rows (CIFAR100 and TinyImageNet); section 5.3 names "
        "three.",
        [case.quoted("figure-3-caption"), case.quoted("figure-3-text")],
    )


def which_epoch(case: Case) -> Iterator[Finding]:
    """What the printed accuracies are of."""
    yield case.finding(
        "which-epoch",
        "missing",
        "The text does not say whether the accuracies are of the last epoch or of the best one, and it describes no "
        "validation split.",
        [f"Table 1: {case.paper.find_table('1').caption}"],
    )


def radamnorm_signs(case: Case) -> Iterator[Finding]:
    """The differences that would be noise if the published code had made the table."""
    found = list(case.find("1", "radamnorm"))
    up = sum(one.difference > 0 for one in found)
    least, most = (pick(one.difference for one in found) for pick in (min, max))
    once = 1 / stats.binomtest(up, len(found)).pvalue  # both sides
    yield case.finding(
        "radamnorm-signs",
        "code",
        f"{up} of the {len(found)} differences between RadamNorm and Radam in Table 1 are positive ({signed(least)} to "
        f"{signed(most)}). If the table was made with the published code, they are between two sets of runs of one "
        f"rule; independent noise around 0 has {len(found)} signs as unequal as these, either way, once in {once:.0f}.",
        [f"{case.where(one)}: {case.told(one)}" for one in found],
        ASSUMES_CODE,
    )


FINDINGS = (
    repeated_cells,
    sentences_that_hold,
    significantly,
    own_best_rate,
    batch_size,
    gamma,
    figure_3,
    which_epoch,
    radamnorm_signs,
)
