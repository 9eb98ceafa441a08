import re

import pytest

from insgd_lab import list_models, list_optimizers
from insgd_lab.analysis.published import PublishedError, list_papers, load_paper, parse_paper

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
