import re
import shutil
from pathlib import Path

import pytest

from insgd_lab import list_models, list_optimizers
from insgd_lab.analysis.comparisons import compare
from insgd_lab.analysis.published import PublishedError, list_papers, load_paper, parse_paper
from insgd_lab.analysis.reproduction import _table, reproduce
from insgd_lab.analysis.result_drawings import result_drawings
from insgd_lab.analysis.runs import load_study
from insgd_lab.analysis.selection import choose
from insgd_lab.analysis.statements import comparisons
from insgd_lab.analysis.statistics import paired_difference

from .synthetic import arms, build_study

TABLE_6 = [
    ("sgd", 0.1, 79.24, 0.39),
    ("insgd-l1", 0.1, 79.41, 0.37),
    ("insgd-l2", 0.1, 79.30, 0.38),
    ("sgd", 0.25, 65.92, 1.32),
    ("insgd-l1", 0.25, 73.24, 1.17),
    ("insgd-l2", 0.25, 74.68, 0.85),
    ("sgd", 0.01, 79.08, 0.34),
    ("insgd-l1", 0.01, 78.83, 0.43),
    ("insgd-l2", 0.01, 78.92, 0.31),
]
VALID = """
paper = "x"
title = "X"
citation = "X, 2024"
[[table]]
number = "1"
caption = "c"
metric = "m"
unit = "%"
decimals = 2
data = "d"
model = "m"
epochs = 1
training_images = 1
[[cell]]
table = "1"
condition = { lr = 0.1 }
optimizer = "sgd"
mean = 1.0
"""


def test_table_6_is_what_the_paper_prints():
    cells = load_paper("insgd").cells("6")
    assert [(c.optimizer, c.condition["lr"], c.mean, c.sd) for c in cells] == TABLE_6
    assert {cell.n for cell in cells} == {7}


def test_cells_can_be_asked_for_by_condition():
    [cell] = load_paper("insgd").cells("6", optimizer="insgd-l2", lr=0.25)
    assert cell.mean == 74.68


def test_every_file_on_record_loads():
    assert "insgd" in list_papers()
    for name in list_papers():
        assert load_paper(name).cell


NESTED = VALID.replace("epochs = 1\ntraining_images = 1\n", 'metrics = ["m5"]\n').replace(
    '[[cell]]\ntable = "1"\ncondition = { lr = 0.1 }\noptimizer = "sgd"\nmean = 1.0\n',
    'cell = [ { optimizer = "sgd", mean = 1.0 }, { optimizer = "sgd", metric = "m5", mean = 2.5, decimals = 1 } ]\n',
)


def test_cells_may_stand_in_their_table_and_have_a_metric_and_decimals_of_their_own():
    paper = parse_paper(NESTED, "x.toml")
    [first], [second] = paper.cells("1"), paper.cells("1", metric="m5")
    assert (first.table, first.metric, first.decimals, first.condition) == ("1", "m", 2, {})
    assert (second.metric, second.decimals, second.mean) == ("m5", 1, 2.5)
    assert paper.find_table("1").epochs is None


def test_both_metrics_of_a_table_are_on_record():
    paper = load_paper("insgd")
    [one] = paper.cells("9", "insgd-l1", metric="top-5 accuracy", condition={"train.batch_size": 256})
    assert (one.mean, one.sd, one.n) == (94.54, 0.43, None)
    assert len(paper.cells("9")) == 6


def test_a_table_may_print_a_name_otherwise():
    paper = load_paper("insgd")
    assert (paper.printed_name("adadelta", "3"), paper.printed_name("adadelta", "5")) == ("Adadelta", "Adadelata")


CLAIM = '[documents]\npaper = "x.txt"\n[[claim]]\nid = "a"\nplace = "p"\nquote = "q"\n'


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (CLAIM + 'document = "page"\n', "is of 'page', which is not among the documents"),
        (CLAIM + 'figures = [{ value = 1.0, table = "1", optimizer = "adam" }]\n', "not of exactly one cell"),
        (CLAIM + CLAIM.split("\n", 2)[2], "ids ['a', 'a'] repeat"),
    ],
)
def test_claims_belong_to_a_document_and_speak_of_cells(claim, message):
    with pytest.raises(PublishedError, match=re.escape(message)):
        parse_paper(VALID + claim, "x.toml")


def test_claims_are_found_by_their_id():
    assert load_paper("insgd").claim("abstract-resnet50").figures[1].value == 75.92
    with pytest.raises(PublishedError, match="has no claim 'nothing'"):
        load_paper("insgd").claim("nothing")


def test_a_cell_of_a_metric_that_its_table_has_not_is_refused():
    with pytest.raises(PublishedError, match="'m6', not one of the table's"):
        parse_paper(NESTED.replace('metric = "m5", mean', 'metric = "m6", mean'), "x.toml")


@pytest.mark.parametrize("name", list_papers())
def test_names_are_those_of_the_registry(name):
    paper = load_paper(name)
    used = {cell.optimizer for cell in paper.cell} | set(paper.baselines) | set(paper.baselines.values())
    used |= {code.preset for code in paper.code if code.preset}
    assert used <= set(list_optimizers())
    models = {t.model for t in paper.table} | {cell.condition.get("task.model") for cell in paper.cell}
    assert models - {None} <= set(list_models())


def test_sd_and_n_may_be_unprinted():
    [cell] = parse_paper(VALID, "x.toml").cell
    assert cell.sd is None
    assert cell.n is None


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("mean = 1.0", 'mean = "high"', "cell.0.mean"),
        ("mean = 1.0", "mean = 1.0\nsd = -1.0", "cell.0.sd"),
        ("mean = 1.0", "mean = 1.0\nstd = 1.0", "cell.0.std"),
        ("mean = 1.0", "mean = nan", "cell.0.mean"),
        ('citation = "X, 2024"', "", "citation: Field required"),
        ('table = "1"', 'table = "2"', "names table '2'"),
        ("epochs = 1", "epochs = 0", "table.0.epochs"),
        ("mean = 1.0", "mean = ", "not valid TOML"),
        ("[[cell]]", '[[cell]]\ntable="1"\ncondition={lr=0.1}\noptimizer="sgd"\nmean=2.0\n[[cell]]', "two cells"),
    ],
)
def test_mistakes_are_named_with_their_place(before, after, message):
    with pytest.raises(PublishedError, match=re.escape(message)) as caught:
        parse_paper(VALID.replace(before, after, 1), "x.toml")
    assert "x.toml" in str(caught.value)


def test_unknown_papers_and_tables_list_the_known_ones():
    with pytest.raises(PublishedError, match="there are: adanorm, insgd"):
        load_paper("nobody")
    with pytest.raises(PublishedError, match="there is: 3, 4, 5, 6"):
        load_paper("insgd").cells("99")


# ---------------------------------------------------------------------------------------------- beside ours


def table_6_arms():
    plain = {"grid": "full", "axes": {"lr": [0.01, 0.1, 0.25]}, "base": {"lr": 0.1}, "tune": {}, "fixed": {}}
    named = [("sgd", "sgd", {}), ("l1", "insgd-l1", {}), ("l2", "insgd-lp", {"p": 2})]
    return [
        {**arms()[2], **plain, "name": name, "label": name, "optimizer": optimizer, "options": {"lr": 0.1, **more}}
        for name, optimizer, more in named
    ]


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    task = {
        "data": {"name": "cifar10", "options": {"fraction": 0.2}, "revision": 1},
        "model": {"name": "custom-cnn", "options": {}, "revision": 1},
    }
    path = tmp_path_factory.mktemp("runs") / "table06-short"
    fields = {"compare": {"paper": "insgd", "table": "6"}, "task": task}
    return build_study(path, arm_list=table_6_arms(), failed=0, epochs=3, steps=20, fields=fields).path


def test_published_cells_stand_beside_ours_at_the_same_rate(short):
    study = load_study(short)
    frame = reproduce(study, choose(study)).table.frame
    assert list(frame["paper_mean"]) == [mean for _, _, mean, _ in TABLE_6]
    assert (frame["seeds"] == 3).all()
    cell = study.find_cell("l2", {"lr": 0.25})
    best = study.by_seed("l2", cell.key, "{}", "best_test_error")
    control = study.by_seed("sgd", cell.key, "{}", "best_test_error")
    row = frame.iloc[5]
    assert row["best_mean"] == pytest.approx(100 - 100 * sum(best.values()) / 3)
    assert row["lead"] == pytest.approx(-100 * paired_difference(best, control).mean)
    assert row["paper_lead"] == pytest.approx(74.68 - 65.92)


def test_leads_are_told_in_words(short):
    study = load_study(short)
    reproduction = reproduce(study, choose(study))
    sentences = comparisons(reproduction)
    assert len(sentences) == 6
    [sentence] = [s for s in sentences if "learning rate = 0.25: the lead of INSGD-ℓ2 over SGD" in s]
    assert "is +8.76 percentage points of test accuracy in the paper" in sentence
    assert f"and {reproduction.table.frame.iloc[5]['lead']:+.2f}" in sentence.replace("\N{MINUS SIGN}", "-")


def test_a_lead_counts_the_seeds_that_both_have(tmp_path, short):
    shutil.copytree(short, tmp_path / "s")
    study = load_study(tmp_path / "s")
    cell = study.find_cell("sgd", {"lr": 0.25})
    lost = study.finished("sgd", cell.key, "{}")["run"].iloc[0]
    (tmp_path / "s" / lost / "run.json").unlink()
    study = load_study(tmp_path / "s")
    sentences = [s for s in comparisons(reproduce(study, choose(study))) if "learning rate = 0.25" in s]
    assert len(sentences) == 2
    assert all(", 2 seeds)" in sentence for sentence in sentences)


def test_the_table_has_the_papers_unit_metric_and_decimals(short):
    study = load_study(short)
    table = reproduce(study, choose(study)).table
    assert "paper (%)" in table.titles
    assert "test accuracy of the best epoch on the test set" in table.caption
    assert "custom-designed CNN on the CIFAR-10 dataset" in table.caption
    assert "79.30 ± 0.38" in table.markdown()
    printed = load_paper("insgd").find_table("6").model_copy(update={"decimals": 1, "unit": "points"})
    table = _table("x", printed, table.frame)
    assert "paper (points)" in table.titles
    assert "79.3 ± 0.4" in table.markdown()


def test_what_differs_in_scale_is_said(short):
    study = load_study(short)
    text = "\n".join(reproduce(study, choose(study)).differences)
    assert "3 here, 200 in the paper" in text
    assert "20 % of the training split" in text
    assert "3 seeds here" in text
    assert "best epoch on the test set" in text
    study.info["task"]["data"] = {"name": "cifar10", "options": {"shots": 20, "imbalance": "step"}}
    text = "\n".join(reproduce(study, choose(study)).differences)
    assert "100 % of the training split here with shots = 20, imbalance = step, from which" in text


def test_a_table_without_a_scale_of_its_own_is_compared_as_far_as_it_goes(short):
    study = load_study(short)
    study.info["compare"] = {"paper": "adanorm", "table": "1"}
    reproduction = reproduce(study, choose(study))
    text = "\n".join(reproduction.differences)
    assert "3 here, 100 in the paper" in text
    assert "the paper's text names no validation split." in text
    assert "in the paper, test accuracy;" in text
    assert "Task:" not in text
    assert comparisons(reproduction) == []


def test_the_figure_beside_the_table_tells_both(short):
    study = load_study(short)
    choices = choose(study)
    reproduction = reproduce(study, choices)
    [drawing] = [
        d for d in result_drawings(study, choices, compare(study, choices), reproduction) if d.name == "published"
    ]
    frame = reproduction.table.frame
    drawn = {line.get_label(): line.get_xdata() for line in drawing.figure.axes[0].lines}
    assert list(drawn["paper"]) == list(frame["paper_mean"])
    assert list(drawn["here, best epoch"]) == list(frame["best_mean"])
    assert f"74.68 in the paper, {frame.iloc[5]['best_mean']:.2f} here" in drawing.alt


def test_a_study_that_compares_with_nothing_has_no_such_table(study, choices):
    assert reproduce(study, choices) is None
