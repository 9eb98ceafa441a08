"""What the INSGD paper, its project pages and its README say in two places, and what they leave out."""

from __future__ import annotations

from collections.abc import Iterator

from insgd_lab.analysis.audit.case import Case, expect, listed, tables_name
from insgd_lab.analysis.audit.comparisons import assumption
from insgd_lab.analysis.audit.records import Finding
from insgd_lab.analysis.labels import signed
from insgd_lab.analysis.published import PublishedCell

__all__ = ["FINDINGS"]

_ROW = ("sgd", "insgd-l1", "insgd-l2")
_BATCH, _NORM = "train.batch_size", "task.model.layer_norm"


# ------------------------------------------------------------------------------------------------ two places


def batch_256(case: Case) -> Iterator[Finding]:
    """The batch size of the CIFAR-100 experiment."""
    base, own = (case.cell("9", name, {_BATCH: 256}).mean for name in ("sgd", "insgd-l2"))
    said = case.paper.claim("page-a-wrn18").figures
    printed = [case.cell(figure.table, figure.optimizer, figure.condition) for figure in said]
    expect(
        [(cell.mean, cell.condition[_BATCH]) for cell in printed] == [(figure.value, 128) for figure in said],
        "project page a's figures of CIFAR-100 are Table 9's at batch size 128",
    )
    yield case.finding(
        "batch-256",
        "disagreement",
        "Section 4.2 says that the batch size was increased to 256 for CIFAR-100, and project page a gives 256 as the "
        f"setup of its {printed[1].mean:.2f} against {printed[0].mean:.2f}; in Table 9, and in page a's own table, "
        "these figures, which are also the abstract's, are of batch size 128. At 256 Table 9 prints "
        f"{own:.2f} for the same optimizer and {base:.2f} for SGD.",
        [
            *(case.quoted(claim) for claim in ("batch-256", "page-a-batch-256", "abstract-wrn18", "page-a-wrn18")),
            *(case.row("9", _ROW, {_BATCH: size}) for size in (128, 256)),
        ],
    )


def page_a_setup(case: Case) -> Iterator[Finding]:
    """Page a's one setup for all of CIFAR-10."""
    yield case.finding(
        "page-a-setup",
        "disagreement",
        "Project page a gives one setup for CIFAR-10, 200 epochs with batches of 128; for two of the models that it "
        "lists there the paper says otherwise: MobileNetV3 with batches of 256, the vision transformer with batches of "
        "256 for 300 epochs.",
        [case.quoted(claim) for claim in ("page-a-setup", "mobilenetv3-batch", "vit-epochs")],
    )


def learning_rates(case: Case) -> Iterator[Finding]:
    """The range of learning rates in the text and in the tables."""
    rates = sorted({cell.condition["lr"] for cell in case.paper.cell if cell.optimizer in _ROW and _on_cifar10(cell)})
    expect(float(rates[-1]) < 0.5, "no rate of SGD or INSGD in Tables 3 to 8 is 0.5")
    yield case.finding(
        "learning-rates",
        "disagreement",
        "Section 4.1 speaks of initial learning rates “ranging from 0.5 to 0.01”; the largest that Tables 3 to 8 print "
        f"for SGD or INSGD is {rates[-1]} (all: {', '.join(map(str, rates))}).",
        [case.quoted("learning-rates")],
    )


def _on_cifar10(cell: PublishedCell) -> bool:
    return cell.table in ("3", "4", "5", "6", "7", "8")


def linear_scaling(case: Case) -> Iterator[Finding]:
    """Table 4's learning rates against the rule that the text names."""
    rows = {cell.condition[_BATCH]: cell.condition["lr"] for cell in case.paper.cells("4", "sgd")}
    printed = listed([f"{rate} at {size}" for size, rate in rows.items()])
    scaled = listed([f"{0.1 * int(size) / 128:g}" for size in list(rows)[1:]])
    first = next(iter(rows.items()))
    expect(first == (128, 0.1), "Table 4 starts at learning rate 0.1 and batch size 128")
    expect(scaled != listed([f"{rate:g}" for rate in list(rows.values())[1:]]), "Table 4's rates do not scale linearly")
    yield case.finding(
        "linear-scaling",
        "disagreement",
        "Section 4.1 adjusts the learning rate to the batch size “similar to the linear scaling rule”; Table 4 prints "
        f"{printed}, where that rule, from 0.1 at 128, gives {scaled} for the larger two.",
        [case.quoted("linear-scaling"), f"Table 4: learning rate {printed}"],
    )


def different_rates(case: Case) -> Iterator[Finding]:
    """Comparisons whose two arms have different learning rates."""
    found = [one for one in case.comparisons if one.condition.get("lr") != one.baseline_condition.get("lr")]
    where = {case.where(one) for one in found}
    rates = {(one.condition["lr"], one.baseline_condition["lr"]) for one in found}
    own, base = (case.cell("8", name, {_NORM: True}).condition["lr"] for name in ("insgd-l1", "sgd"))
    expect(len(where) == len(rates) == 1 and {own, base} == {next(iter(rates))[0]}, "Table 8 alone has unequal rates")
    [(rate, other)] = rates
    yield case.finding(
        "different-rates",
        "selection",
        f"{where.pop()}: INSGD is at learning rate {rate} and SGD at {other}; both are at {rate} with layer "
        "normalisation. The text does not say how the rates were chosen.",
        [case.row("8", _ROW, {_NORM: norm}) for norm in (True, False)],
    )


def reduction_rates(case: Case) -> Iterator[Finding]:
    """What two captions announce and no column has."""
    yield case.finding(
        "reduction-rates",
        "missing",
        "The captions of Tables 6 and 8 name different reduction rates, and neither table has a column for them. "
        "Section 4.1 gives neither the steps nor the rates at which the learning rate is reduced; for Table 8 it "
        "names cosine annealing.",
        [
            *(f"Table {number}: {case.paper.find_table(number).caption}" for number in ("6", "8")),
            *(case.quoted(claim) for claim in ("reduction", "cosine")),
        ],
    )


def mobilenetv3_on_imagenet(case: Case) -> Iterator[Finding]:
    """A model that is announced for ImageNet-1K."""
    yield case.finding(
        "mobilenetv3-on-imagenet",
        "missing",
        "Section 3.2 and project page a name MobileNetV3 among the models for ImageNet-1K; section 4.3 and Table 10 "
        "have ResNet-50 only, and no result of MobileNetV3 on ImageNet-1K is printed.",
        [
            case.quoted("mobilenetv3-on-imagenet"),
            case.quoted("page-a-mobilenetv3-on-imagenet"),
            f"Table 10: {case.paper.find_table('10').caption}",
        ],
    )


def conclusion_models(case: Case) -> Iterator[Finding]:
    """The models that the conclusion names for CIFAR-100 and ImageNet-1K."""
    yield case.finding(
        "conclusion-models",
        "disagreement",
        "Section 5 names ResNet-20 and ResNet-50 as models for CIFAR-100 and ImageNet-1K; the printed results on "
        "CIFAR-100 are of Wide ResNet-18 (Table 9), those of ResNet-20 on CIFAR-10 (Tables 3, 4 and 7).",
        [
            case.quoted("conclusion-models"),
            *(f"Table {number}: {case.paper.find_table(number).caption}" for number in ("3", "4", "9", "10")),
        ],
    )


# ------------------------------------------------------------------------------------------------ spread and selection


def one_image(case: Case) -> Iterator[Finding]:
    """Standard deviations of 0.01, which is one image of the test set."""
    cells = [cell for cell in case.paper.cell if cell.sd == 0.01]
    tables = list(dict.fromkeys(cell.table for cell in cells))
    others = [cell.sd for cell in case.paper.cell if cell.table in tables and cell.sd is not None and cell not in cells]
    places = [
        f"Table {number}: {listed([case.name(c.optimizer) for c in cells if c.table == number])}" for number in tables
    ]
    on_cifar10 = all(case.paper.find_table(number).data == "cifar10" for number in tables)
    expect(
        bool(others) and on_cifar10 and {cell.n for cell in cells} == {7},
        "standard deviations of 0.01 are of 7 seeds on CIFAR-10",
    )
    yield case.finding(
        "sd-of-one-image",
        "spread",
        f"{len(cells)} standard deviations over 7 seeds are 0.01 ({'; '.join(places)}), which is one image of "
        f"CIFAR-10's 10,000 test images; the others in these tables are {min(others):.2f} to {max(others):.2f}.",
        [f"Table {cell.table}: {case.printed(cell)}" for cell in cells],
        assumption(case.paper, [], any(case.paper.find_table(number).spread is None for number in tables)),
    )


def plus_minus(case: Case) -> Iterator[Finding]:
    """What the figures behind ± are said to be."""
    said = [table.number for table in case.paper.table if table.spread]
    yield case.finding(
        "plus-minus",
        "missing",
        f"The figures behind ± are called standard deviations for {tables_name(said)} only (section 4.1); what they "
        "are in the other tables is not said, and they are read as standard deviations there too.",
        [case.quoted("plus-minus")],
    )


def best_epoch(case: Case) -> Iterator[Finding]:
    """What the printed accuracies are of."""
    yield case.finding(
        "best-epoch",
        "selection",
        "The accuracies of Tables 3 to 10 are of the epoch that is best on the data on which they are reported "
        "(sections 4.1, 4.2 and 4.3): chosen on what they are measured by, in every arm.",
        [case.quoted(claim) for claim in ("best-epoch", "best-epoch-cifar100", "best-epoch-imagenet")],
    )


# ------------------------------------------------------------------------------------------------ rules


def momentum_line(case: Case) -> Iterator[Finding]:
    """Algorithm 1 as printed twice."""
    yield case.finding(
        "momentum-line",
        "rule",
        "Algorithm 1's momentum line has the factor (1 - γ) in the paper and (1 - τ) on project page a, where τ is not "
        "defined. At γ = 0.9 and τ = 0 the two differ by a factor of 10 in the new gradient's weight.",
        [case.quoted("momentum"), case.quoted("page-a-momentum")],
    )


def gradient_sign(case: Case) -> Iterator[Finding]:
    """Gradient descent as printed twice."""
    yield case.finding(
        "gradient-sign",
        "rule",
        "Eq. 2 of the paper, gradient descent, adds the gradient of the loss; project page a, Eq. 28 and Algorithm 1 "
        "subtract it.",
        [case.quoted("gradient-descent"), case.quoted("page-a-gradient-descent"), case.quoted("log-power")],
    )


# ------------------------------------------------------------------------------------------------ page b


def page_b_up_to(case: Case) -> Iterator[Finding]:
    """Page b's largest improvement against its table."""
    found = [row[0] for row in case.rows(case.find("page b"))]
    data = [str(one.condition["task.data"]) for one in found]
    over_sgd = [one.difference for one in found]
    adam = [one.mean - case.cell("page b", "adam", one.condition).mean for one in found]
    relative = [100 * one.difference / one.baseline_mean for one in found]
    top = max(range(len(found)), key=over_sgd.__getitem__)
    expect(6.1 in over_sgd and over_sgd[top] > 6.1, "page b's 6.1 is a difference of its table, and not the largest")
    same, odd = data[over_sgd.index(6.1)], next(at for at, name in enumerate(data) if "Imbalanced" in name)
    told = [
        f"{name} {signed(a)} over SGD and {signed(b)} over Adam"
        for name, a, b in zip(data, over_sgd, adam, strict=True)
    ]
    yield case.finding(
        "page-b-up-to",
        "disagreement",
        "Project page b says that INSGD outperformed standard methods “by up to 6.1%” on data sets with significant "
        f"class imbalance. The largest difference in its table is {over_sgd[top]:.1f} points ({data[top]}, over SGD); "
        f"6.1 is that of {same}; the row labelled imbalanced has {over_sgd[odd]:.1f} over SGD and {adam[odd]:.1f} over "
        f"Adam. Relative to SGD's accuracy the differences are {min(relative):.1f} to {max(relative):.1f} %.",
        [case.quoted("page-b-up-to"), *(f"page b: {text}" for text in told)],
    )


def page_b_untestable(case: Case) -> Iterator[Finding]:
    """Page b's table has neither standard deviations nor n."""
    found = list(case.find("page b"))
    expect(all(one.sd_bound is not None for one in found), "page b prints no standard deviation")
    told = [
        f"{one.condition['task.data']} ({signed(one.difference)}): {one.sd_bound:.1f} at n = {one.n}" for one in found
    ]
    yield case.finding(
        "page-b-untestable",
        "missing",
        "Project page b prints neither standard deviations nor numbers of runs, so its "
        f"{len(case.rows(found))} differences cannot be tested. Each would have p < 0.05 by itself if the sd of both "
        f"arms were below: {'; '.join(told)}.",
        [case.quoted("page-b-up-to")],
        of=found,
    )


def page_b_data(case: Case) -> Iterator[Finding]:
    """Page b's data sets are none of the paper's."""
    data = [str(cell.condition["task.data"]) for cell in case.paper.cells("page b", "sgd")]
    yield case.finding(
        "page-b-data",
        "disagreement",
        f"Project page b's results are on {listed(data)} and it names the paper as this work's publication; the paper "
        f"prints results on CIFAR-10, CIFAR-100 and ImageNet-1K only, and none on these {len(data)}.",
        [
            case.quoted("page-b-paper"),
            *(f"Table {t.number}: {t.caption}" for t in case.paper.table if t.number.isdigit()),
        ],
    )


def page_b_rule(case: Case) -> Iterator[Finding]:
    """Page b's code against Algorithm 1 and against the page's own list."""
    yield case.finding(
        "page-b-rule",
        "rule",
        "Project page b's code divides the gradient by the norm of the features plus ε; Algorithm 1 divides it by the "
        "logarithm of a running mean of the squared norm, clipped below at ε. Class representation and the history of "
        "similar inputs, which the page lists as taken into account, enter neither the code's update nor Algorithm 1.",
        [case.quoted("page-b-code"), case.quoted("page-b-classes"), case.quoted("log-power")],
    )


FINDINGS = (
    batch_256,
    page_a_setup,
    learning_rates,
    linear_scaling,
    different_rates,
    reduction_rates,
    mobilenetv3_on_imagenet,
    conclusion_models,
    one_image,
    plus_minus,
    best_epoch,
    momentum_line,
    gradient_sign,
    page_b_up_to,
    page_b_untestable,
    page_b_data,
    page_b_rule,
)
