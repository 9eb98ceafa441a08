"""What the INSGD paper, its project pages and its README say in two places, and whether the two agree."""

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
        f"Section 5 says that INSGD “consistently demonstrated improvements”; its mean is below SGD's in {len(lower)} of "
        f"{len(once)} comparisons, {beyond or 'none'} of them beyond noise: {'; '.join(told)}.",
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
        f"Section 5 says that INSGD “achieved a significant boost in accuracy” on CIFAR-10. Of {len(found)} comparisons with "
        f"SGD there {len(stand)} stand: those of {'; '.join(places)}. All of Tables {listed(noise)} are within noise.",
        [case.quoted("significant-boost"), *(f"{case.where(one)}: {case.told(one)}" for one in stand)],
    )


def own_best_rate(case: Case) -> Iterator[Finding]:
    """Table 6 with every optimizer at the learning rate that is best for it."""
    best = {name: max(case.paper.cells("6", name), key=lambda cell: cell.mean) for name in _ROW}
    sgd, at = best["sgd"], case.cell("6", "sgd", lr=0.25)
    leads = [f"{case.name(name)} {signed(best[name].mean - sgd.mean)}" for name in _NORMS]
    large = [f"{signed(one.difference)}" for one in case.find("6", condition={"lr": 0.25})]
    rates = {cell.condition["lr"] for cell in best.values()}
    assert len(rates) == 1  # at one rate, the comparison is one of the table's own
    yield case.finding(
        "own-best-rate",
        "claim",
        f"Table 6's large leads ({listed(large)}) are at learning rate 0.25, where SGD is {sgd.mean - at.mean:.2f} points "
        f"below its own mean at {sgd.condition['lr']}. All three optimizers have their best mean at "
        f"{rates.pop()}, and there the leads are {listed(leads)}, within noise.",
        [case.row("6", _ROW, lr=rate) for rate in (0.1, 0.25, 0.01)],
    )


def any_learning_rate(case: Case) -> Iterator[Finding]:
    """Accuracy that is said not to depend on the learning rate."""
    drops = [
        f"{case.name(name)} loses {case.cell('6', name, lr=0.1).mean - case.cell('6', name, lr=0.25).mean:.2f} points"
        for name in _ROW[1:]
    ]
    sgd = case.cell("6", "sgd", lr=0.1).mean - case.cell("6", "sgd", lr=0.25).mean
    yield case.finding(
        "any-learning-rate",
        "claim",
        "Section 4.1 says that INSGD “shows consistent accuracy results regardless of the network architecture or the "
        f"learning rate used”; in Table 6, between learning rates 0.1 and 0.25, {listed(drops)} (SGD {sgd:.2f}).",
        [case.quoted("any-learning-rate"), *(case.row("6", _ROW, lr=rate) for rate in (0.1, 0.25))],
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
        f"optimization algorithms”. Against SGD {listed(told)}, both within noise; Adam, Adagrad and Adadelta are {gap:.2f} "
        "points or more below both.",
        [case.quoted("mobilenetv3-outperforms"), case.row("5", _ROW)],
    )


def no_batch_norm(case: Case) -> Iterator[Finding]:
    """Table 7's custom CNN against the same network with batch normalisation in Table 6."""
    pairs = [
        (case.cell("7", name, **{_MODEL: "custom-cnn"}), case.cell("6", name, lr=0.1)) for name in _NORMS
    ]
    told = [f"{case.printed(bare)}, {normed.mean - bare.mean:.2f} points below {normed.mean:.2f}" for bare, normed in pairs]
    sgd = case.cell("7", "sgd", **{_MODEL: "custom-cnn"})
    yield case.finding(
        "no-batch-norm",
        "claim",
        "Section 4.1 says that without batch normalisation SGD diverges on the custom CNN and INSGD “achieves "
        f"performance levels close to optimal settings”. Table 7 prints {case.printed(sgd)} (chance is 10), and {listed(told)}, the mean "
        "with batch normalisation at the same learning rate in Table 6.",
        [case.quoted("no-batch-norm"), case.row("7", _ROW, **{_MODEL: "custom-cnn"}), case.row("6", _ROW, lr=0.1)],
    )


def adam_on_vit(case: Case) -> Iterator[Finding]:
    """Table 8 against Adam: two sentences of the text, and a test that is not of the audit's families."""
    rows = [(norm, name) for norm in (True, False) for name in _NORMS]
    cells = [(case.cell("8", name, **{_NORM: norm}), case.cell("8", "adam", **{_NORM: norm})) for norm, name in rows]
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
            *(case.row("8", (*_ROW, "adam"), **{_NORM: norm}) for norm in (True, False)),
        ],
    )


def _summary(cell: PublishedCell) -> Summary:
    assert cell.sd is not None and cell.n is not None  # Table 8 prints both
    return Summary(cell.mean, cell.sd, cell.n)


def higher_top_1_and_5(case: Case) -> Iterator[Finding]:
    """Table 9's one cell that is lower."""
    cells = [case.cell("9", name, **{_BATCH: 128}) for name in ("insgd-l1", "sgd")]
    others = [one.better for one in case.find("9") if one.n == 3 and one.mean != cells[0].mean]
    yield case.finding(
        "higher-top-1-and-5",
        "claim",
        "Section 4.2 speaks of INSGD's “higher Top-1 and Top-5 accuracy”; at batch size 128 Table 9 prints a top-1 of "
        f"{listed([case.printed(cell) for cell in cells])}. Of the other {len(others)} INSGD means {sum(map(bool, others))} "
        "are higher than SGD's.",
        [case.quoted("higher-top-1-and-5"), case.row("9", _ROW, **{_BATCH: 128})],
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
            means = {name: case.cell(arm.table, name, **arm.condition).mean for name in _NORMS}
            assert max(means, key=means.__getitem__) == arm.optimizer
            others = [f"{case.name(name)} {mean:.2f}" for name, mean in means.items() if name != arm.optimizer]
            told.append(f"{case.name(arm.optimizer)} {arm.value:.2f} in Table {arm.table} (the other: {others[0]})")
            quotes.append(case.quoted(claim.id))
    yield case.finding(
        "better-norm",
        "selection",
        f"Of the two norms, the abstract's figures are in each table of the one with the higher mean: {'; '.join(told)}.",
        quotes,
    )


# ------------------------------------------------------------------------------------------------ two places


def batch_256(case: Case) -> Iterator[Finding]:
    """The batch size of the CIFAR-100 experiment."""
    base, own = (case.cell("9", name, **{_BATCH: 256}).mean for name in ("sgd", "insgd-l2"))
    yield case.finding(
        "batch-256",
        "disagreement",
        "Section 4.2 says that the batch size was increased to 256 for CIFAR-100, and project page a gives 256 as the "
        "setup of its 78.47 against 78.24; in Table 9, and in page a's own table, these figures, which are also the "
        f"abstract's, are of batch size 128. At 256 Table 9 prints {own:.2f} for the same optimizer and {base:.2f} for SGD.",
        [
            *(case.quoted(claim) for claim in ("batch-256", "page-a-batch-256", "abstract-wrn18", "page-a-wrn18")),
            *(case.row("9", _ROW, **{_BATCH: size}) for size in (128, 256)),
        ],
    )


def page_a_setup(case: Case) -> Iterator[Finding]:
    """Page a's one setup for all of CIFAR-10."""
    yield case.finding(
        "page-a-setup",
        "disagreement",
        "Project page a gives one setup for CIFAR-10, 200 epochs with batches of 128; for two of the models that it lists "
        "there the paper says otherwise: MobileNetV3 with batches of 256, the vision transformer with batches of 256 for "
        "300 epochs.",
        [case.quoted(claim) for claim in ("page-a-setup", "mobilenetv3-batch", "vit-epochs")],
    )


def learning_rates(case: Case) -> Iterator[Finding]:
    """The range of learning rates in the text and in the tables."""
    rates = sorted({cell.condition["lr"] for cell in case.paper.cell if cell.optimizer in _ROW and _on_cifar10(cell)})
    yield case.finding(
        "learning-rates",
        "disagreement",
        "Section 4.1 speaks of initial learning rates “ranging from 0.5 to 0.01”; the largest that Tables 3 to 8 print for "
        f"SGD or INSGD is {rates[-1]} (all: {', '.join(map(str, rates))}).",
        [case.quoted("learning-rates")],
    )


def _on_cifar10(cell: PublishedCell) -> bool:
    return cell.table in ("3", "4", "5", "6", "7", "8")


def linear_scaling(case: Case) -> Iterator[Finding]:
    """Table 4's learning rates against the rule that the text names."""
    rows = {cell.condition[_BATCH]: cell.condition["lr"] for cell in case.paper.cells("4", "sgd")}
    printed = listed([f"{rate} at {size}" for size, rate in rows.items()])
    scaled = listed([f"{0.1 * int(size) / 128:g}" for size in list(rows)[1:]])
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
    [where] = {case.where(one) for one in found}
    [rates] = {(one.condition["lr"], one.baseline_condition["lr"]) for one in found}
    yield case.finding(
        "different-rates",
        "selection",
        f"{where}: INSGD is at learning rate {rates[0]} and SGD at {rates[1]}; both are at {rates[0]} with layer "
        "normalisation. The text does not say how the rates were chosen.",
        [case.row("8", _ROW, **{_NORM: norm}) for norm in (True, False)],
    )


def reduction_rates(case: Case) -> Iterator[Finding]:
    """What two captions announce and no column has."""
    yield case.finding(
        "reduction-rates",
        "missing",
        "The captions of Tables 6 and 8 name different reduction rates, and neither table has a column for them. Section 4.1 "
        "gives neither the steps nor the rates at which the learning rate is reduced; for Table 8 it names cosine annealing.",
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
        "Section 3.2 and project page a name MobileNetV3 among the models for ImageNet-1K; section 4.3 and Table 10 have "
        "ResNet-50 only, and no result of MobileNetV3 on ImageNet-1K is printed.",
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
        "Section 5 names ResNet-20 and ResNet-50 as models for CIFAR-100 and ImageNet-1K; the printed results on CIFAR-100 "
        "are of Wide ResNet-18 (Table 9), those of ResNet-20 on CIFAR-10 (Tables 3, 4 and 7).",
        [
            case.quoted("conclusion-models"),
            *(f"Table {number}: {case.paper.find_table(number).caption}" for number in ("3", "4", "9", "10")),
        ],
    )


# ------------------------------------------------------------------------------------------------ spread and selection


def one_image(case: Case) -> Iterator[Finding]:
    """Standard deviations of 0.01, which is one image of the test set."""
    cells = [cell for cell in case.paper.cell if cell.sd == 0.01]
    others = [cell.sd for cell in case.paper.cell if cell.table in {c.table for c in cells} and cell not in cells]
    known = [sd for sd in others if sd is not None]
    places = [f"Table {number}: {listed([case.name(c.optimizer) for c in cells if c.table == number])}" for number in "35"]
    yield case.finding(
        "sd-of-one-image",
        "spread",
        f"{len(cells)} standard deviations over 7 seeds are 0.01 ({'; '.join(places)}), which is one image of CIFAR-10's "
        f"10,000 test images; the others in these tables are {min(known):.2f} to {max(known):.2f}.",
        [f"Table {cell.table}: {case.printed(cell)}" for cell in cells],
    )


def best_epoch(case: Case) -> Iterator[Finding]:
    """What the printed accuracies are of."""
    yield case.finding(
        "best-epoch",
        "selection",
        "The accuracies of Tables 3 to 10 are of the epoch that is best on the data on which they are reported (sections "
        "4.1, 4.2 and 4.3): chosen on what they are measured by, in every arm.",
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
    found = [one for one in case.find("page b") if one.n == 3]
    data = [str(one.condition["task.data"]) for one in found]
    over_sgd = [one.difference for one in found]
    adam = [one.mean - case.cell("page b", "adam", **one.condition).mean for one in found]
    relative = [100 * one.difference / one.baseline_mean for one in found]
    top = max(range(len(found)), key=over_sgd.__getitem__)
    same = data[over_sgd.index(6.1)]
    told = [f"{name} {signed(a)} over SGD and {signed(b)} over Adam" for name, a, b in zip(data, over_sgd, adam, strict=True)]
    yield case.finding(
        "page-b-up-to",
        "disagreement",
        f"Project page b says that INSGD outperformed standard methods “by up to 6.1%” on data sets with significant class "
        f"imbalance. The largest difference in its table is {over_sgd[top]:.1f} points ({data[top]}, over SGD); 6.1 is that "
        f"of {same}; the row labelled imbalanced has {over_sgd[1]:.1f} over SGD and {adam[1]:.1f} over Adam. Relative to "
        f"SGD's accuracy the differences are {min(relative):.1f} to {max(relative):.1f} %.",
        [case.quoted("page-b-up-to"), *(f"page b: {text}" for text in told)],
    )


def page_b_untestable(case: Case) -> Iterator[Finding]:
    """Page b's table has neither standard deviations nor n."""
    found = [one for one in case.find("page b")]
    told = [
        f"{one.condition['task.data']} ({signed(one.difference)}): {one.sd_bound:.1f} at n = {one.n}" for one in found
    ]
    yield case.finding(
        "page-b-untestable",
        "missing",
        "Project page b prints neither standard deviations nor numbers of runs, so its three differences cannot be tested. "
        f"Each would have p < 0.05 by itself if the sd of both arms were below: {'; '.join(told)}.",
        [case.quoted("page-b-up-to")],
        "n = 3 or n = 7, which is not printed",
    )


def page_b_data(case: Case) -> Iterator[Finding]:
    """Page b's data sets are none of the paper's."""
    data = [str(cell.condition["task.data"]) for cell in case.paper.cells("page b", "sgd")]
    yield case.finding(
        "page-b-data",
        "disagreement",
        f"Project page b's results are on {listed(data)} and it names the paper as this work's publication; the paper "
        "prints results on CIFAR-10, CIFAR-100 and ImageNet-1K only, and none on these three.",
        [case.quoted("page-b-paper"), *(f"Table {t.number}: {t.caption}" for t in case.paper.table if t.number.isdigit())],
    )


def page_b_rule(case: Case) -> Iterator[Finding]:
    """Page b's code against Algorithm 1 and against the page's own list."""
    yield case.finding(
        "page-b-rule",
        "rule",
        "Project page b's code divides the gradient by the norm of the features plus ε; Algorithm 1 divides it by the "
        "logarithm of a running mean of the squared norm, clipped below at ε. Class representation and the history of similar "
        "inputs, which the page lists as taken into account, enter neither the code's update nor Algorithm 1.",
        [case.quoted("page-b-code"), case.quoted("page-b-classes"), case.quoted("log-power")],
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
    batch_256,
    page_a_setup,
    learning_rates,
    linear_scaling,
    different_rates,
    reduction_rates,
    mobilenetv3_on_imagenet,
    conclusion_models,
    one_image,
    best_epoch,
    momentum_line,
    gradient_sign,
    page_b_up_to,
    page_b_untestable,
    page_b_data,
    page_b_rule,
)
