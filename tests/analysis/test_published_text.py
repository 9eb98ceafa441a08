"""Every printed number on record against the papers' texts: tables are read from the text alone, then compared whole.

A row of the text is its labels and its numbers in order, so a swapped, missing or mistyped cell fails, and so does a
wrong number of printed digits.
"""

import os
import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from insgd_lab.analysis.published import list_papers, load_paper

Text = Callable[[str], str]
INSGD, ADANORM = load_paper("insgd"), load_paper("adanorm")


@pytest.fixture(scope="module")
def text() -> Text:
    """Reads one of the papers' texts from $INSGD_LAB_PAPERS, else from ../shared/papers."""
    checkout = Path(__file__).resolve().parents[2]

    def read(name: str) -> str:
        for place in filter(None, (os.environ.get("INSGD_LAB_PAPERS"), checkout.parent / "shared" / "papers")):
            if (Path(place) / name).is_file():
                return (Path(place) / name).read_text("utf-8")
        pytest.skip(f"no {name} in $INSGD_LAB_PAPERS or ../shared/papers")

    return read


def digits(value: float, decimals: int) -> str:
    printed = f"{value:.{decimals}f}"
    assert float(printed) == value  # formatting must hide no digit
    return printed


def spread(cell) -> str:
    mean = digits(cell.mean, cell.decimals)
    return mean if cell.sd is None else f"{mean}±{digits(cell.sd, cell.decimals)}"


# ------------------------------------------------------------------------------------------------ INSGD, Tables 3-10


def rows_above(lines: list[str], caption: str) -> list[list[str]]:
    """The tab-separated rows of the table that stands above a caption, without its header."""
    [end] = [number for number, line in enumerate(lines) if line.startswith(caption)]
    start = end - 1
    while lines[start - 1].strip():
        start -= 1
    rows = [line.split("\t") for line in lines[start:end] if line.strip()]
    return [row for row in rows[1:] if row[0] != "Model:"]


def tidy(field: str) -> str:
    """A field without what the text's makers added: 92.57 \\pm 0.11% is 92.57±0.11, INSGD- ℓ_1 is INSGD-ℓ1."""
    for old, new in ((r"\pm", "±"), (" ", ""), ("%", ""), ("_", ""), ("<i>", ""), ("</i>", ""), (r"$\ell1$", "ℓ1")):
        field = field.replace(old, new)
    return field.replace(r"$\ell2$", "ℓ2")


MODELS = {"CustomCNN": "custom-cnn", "ResNet-20": "resnet20"}
LAYER_NORM = {"✓": True, "×": False}
# What stands in front of the results of a row; a field left empty repeats the one above it.
COLUMNS = {
    "3": ("optimizer", "lr"),
    "4": ("optimizer", "train.batch_size", "lr"),
    "5": ("optimizer", "lr"),
    "6": ("optimizer", "lr"),
    "7": ("task.model", "optimizer", "lr"),
    "8": ("optimizer", "task.model.layer_norm", "lr"),
    "9": ("optimizer", "lr", "train.batch_size"),
    "10": ("optimizer", "lr"),
}


def typed(name: str, field: str) -> object:
    if name == "optimizer":
        return field
    known = {"task.model": MODELS, "task.model.layer_norm": LAYER_NORM}.get(name)
    return float(field) if known is None else known[field]


def printed_rows(rows: list[list[str]], columns: tuple[str, ...]) -> list[tuple[dict[str, object], list[str]]]:
    found, above = [], [""] * len(columns)
    for row in rows:
        fields = [tidy(field) for field in row]
        above = [field or last for field, last in zip(fields[: len(columns)], above, strict=True)]
        named = {name: typed(name, field) for name, field in zip(columns, above, strict=True)}
        found.append((named, [field for field in fields[len(columns) :] if field]))
    return found


def recorded_rows(table) -> list[tuple[dict[str, object], list[str]]]:
    cells = [cell for cell in INSGD.cell if cell.table == table.number]
    rows = groupby(cells, lambda cell: (cell.optimizer, cell.condition))
    return [
        ({"optimizer": INSGD.printed_name(optimizer, table.number), **condition}, [spread(cell) for cell in group])
        for (optimizer, condition), group in rows
    ]


@pytest.mark.parametrize("number", COLUMNS)
def test_insgd_tables_are_what_the_text_prints(number: str, text: Text) -> None:
    table = INSGD.find_table(number)
    lines = text("insgd.txt").splitlines()
    rows = printed_rows(rows_above(lines, f"Table {number}: {table.caption}"), COLUMNS[number])
    assert rows == recorded_rows(table)


def test_insgd_metrics_stand_in_the_order_of_their_columns(text: Text) -> None:
    for number in ("9", "10"):
        table = INSGD.find_table(number)
        header = next(line for line in text("insgd.txt").splitlines() if "Top-1 Acc.\tTop-5 Acc." in line)
        assert header.split("\t")[-2:] == ["Top-1 Acc.", "Top-5 Acc."]
        assert "top-1" in table.metric
        assert table.metrics == ("top-5 accuracy",)
        metrics = [cell.metric for cell in INSGD.cell if cell.table == number]
        assert metrics == [table.metric, *table.metrics] * (len(metrics) // 2)


def test_insgd_repetitions_are_those_of_the_sections(text: Text) -> None:
    body = text("insgd.txt")
    assert body.index("4.1 CIFAR-10 Classification") < body.index(INSGD.claim("seven-runs").quote)
    assert body.index("Table 8: ") < body.index("4.2 CIFAR-100 Experiment") < body.index("Table 9: ")
    assert body.index("4.3 ImageNet-1K Results") < body.index(INSGD.claim("three-runs").quote)
    counts = {number: {cell.n for cell in INSGD.cell if cell.table == number} for number in COLUMNS}
    assert counts == {number: {7} for number in "345678"} | {"9": {None}, "10": {3}}


# ------------------------------------------------------------------------------------------------ AdaNorm, Tables 1-5

DATA = {"CIFAR10": "cifar10", "CIFAR100": "cifar100", "TinyImageNet": "tiny-imagenet"}
CNN = {"VGG16": "vgg16", "ResNet18": "resnet18", "ResNet50": "resnet50"}


def lines_after(lines: list[str], caption: str) -> list[list[str]]:
    """The non-empty fields of each row of the table that follows a caption, header included."""
    [start] = [number for number, line in enumerate(lines) if line.startswith(caption)]
    first = next(number for number in range(start, len(lines)) if "\t" in lines[number])
    end = next(number for number in range(first, len(lines)) if not lines[number].strip())
    return [[field.strip() for field in line.split("\t") if field.strip()] for line in lines[first:end]]


def blocks(rows: list[list[str]]) -> list[tuple[str, str, list[str]]]:
    """Data set, model and numbers of each row of a table that is cut into blocks by data set."""
    found, data = [], ""
    for row in rows:
        named = [ours for printed, ours in DATA.items() if f"{printed} Dataset" in row[0]]
        data = named[0] if named else data
        if row[0] in CNN:
            found.append((data, CNN[row[0]], row[1:]))
    return found


def with_gain(cell) -> str:
    gain = "" if cell.gain is None else f" {'-' if cell.gain < 0 else '+'}{abs(cell.gain):.2f}"
    return spread(cell) + gain


def gain_of(field: str) -> str:
    """92.83 († 0.30) is 92.83 +0.30, $75.49 (\\downarrow 0.05)$ is 75.49 -0.05; the text has both † and ↑ for up."""
    found = re.fullmatch(r"\$?([\d.]+)(?: \((†|↑|\\downarrow) ([\d.]+)\))?\$?", field)
    assert found, field
    mean, arrow, gain = found.groups()
    return mean if arrow is None else f"{mean} {'-' if arrow == chr(92) + 'downarrow' else '+'}{gain}"


def test_adanorm_table_1_is_what_the_text_prints(text: Text) -> None:
    rows = lines_after(text("adanorm.txt").splitlines(), "Table 1. ")
    names = [name for field in rows[2][1:] for name in field.split()]
    cells = ADANORM.cells("1")
    for at, (data, model, fields) in enumerate(blocks(rows)):
        own = cells[8 * at : 8 * at + 8]
        assert [ADANORM.printed_name(cell.optimizer) for cell in own] == names
        assert {(cell.condition["task.data"], cell.condition["task.model"]) for cell in own} == {(data, model)}
        assert [with_gain(cell) for cell in own] == [gain_of(field) for field in fields]
    assert len(blocks(rows)) * 8 == len(cells) == 72
    assert sum(cell.gain is not None for cell in cells) == 36


@pytest.mark.parametrize(
    ("number", "key", "levels"),
    [
        ("2", "gamma", {"0.9": 0.9, "0.95": 0.95, "0.99": 0.99, "0.999": 0.999}),
        ("3", "correct", {"1 st Moment": "first", "2^{nd} Moment": "second", "Both Moments": "both"}),
    ],
)
def test_adanorm_tables_2_and_3_are_what_the_text_prints(number, key, levels, text: Text) -> None:
    top, header, *rows = lines_after(text("adanorm.txt").splitlines(), f"Table {number}. ")
    data = [DATA[field.split()[0]] for field in top[1:]]
    columns = [(data[at // 3], CNN[model]) for at, model in enumerate(header[1:])]
    printed = [
        (levels[label], *column, number)
        for label, *numbers in rows
        for column, number in zip(columns, numbers, strict=True)
    ]
    cells = ADANORM.cells(number)
    assert {cell.optimizer for cell in cells} == {"adamnorm"}
    assert printed == [
        (cell.condition[key], cell.condition["task.data"], cell.condition["task.model"], spread(cell)) for cell in cells
    ]


@pytest.mark.parametrize(("number", "key"), [("4", "lr"), ("5", "train.batch_size")])
def test_adanorm_tables_4_and_5_are_what_the_text_prints(number, key, text: Text) -> None:
    top, header, *rows = lines_after(text("adanorm.txt").splitlines(), f"Table {number}. ")
    assert [field.removesuffix(" Optimizer") for field in top[1:]] == ["Adam", "AdamNorm"]
    columns = [("adam" if at < 3 else "adamnorm", float(level)) for at, level in enumerate(header[1:])]
    printed = [
        (data, model, *column, field)
        for data, model, fields in blocks(rows)
        for column, field in zip(columns, fields, strict=True)
    ]
    where = [(c.condition["task.data"], c.condition["task.model"]) for c in ADANORM.cells(number)]
    assert printed == [
        (*place, cell.optimizer, cell.condition[key], spread(cell))
        for place, cell in zip(where, ADANORM.cells(number), strict=True)
    ]


def test_adanorm_averages_are_over_three_runs(text: Text) -> None:
    body = re.sub(r"\s+", " ", text("adanorm.txt"))
    for table in ADANORM.table:
        assert f"Table {table.number}. {table.caption}" in body
        assert "three independent runs" in table.caption
    assert {cell.n for cell in ADANORM.cell} == {3}


# ------------------------------------------------------------------------------------------------ the project pages


def page_tables(body: str) -> list[list[list[str]]]:
    """The Markdown tables of a page: header and rows of tidied fields."""
    tables = re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE)
    rows = [[[tidy(f.replace("*", "")) for f in line.strip("|").split("|")] for line in t.splitlines()] for t in tables]
    return [[table[0], *table[2:]] for table in rows]


# Page a's tables in its order, and the tables of the paper that they are parts of.
PAGE_A = ("3", "4", "5", "6", "7", "8", "9", "10")


def test_page_a_prints_parts_of_the_papers_tables_with_the_same_figures(text: Text) -> None:
    tables = page_tables(text("insgd-page-a.txt"))
    assert len(tables) == len(PAGE_A)
    figures = 0
    for number, (header, *rows) in zip(PAGE_A, tables, strict=True):
        for row in rows:
            fields = dict(zip(header, row, strict=True))
            spreads = [field for field in row if "±" in field]
            cells = [cell for cell in INSGD.cell if cell.table == number and page_row(fields, cell)]
            assert [spread(cell) for cell in cells] == [field.rstrip() for field in spreads], (number, row)
            figures += len(spreads)
    assert figures == 30


def page_row(fields: dict[str, str], cell) -> bool:
    """Whether a row of page a speaks of a cell: what the row names, the cell's condition has."""
    condition = {"lr": cell.condition["lr"]}
    condition |= {"batch": cell.condition.get("train.batch_size"), "model": cell.condition.get("task.model")}
    condition |= {"norm": cell.condition.get("task.model.layer_norm")}
    named = {"optimizer": fields["Optimizer"]}
    rate = fields.get("InitialLR", fields.get("LR"))
    if rate is not None:
        named["lr"] = float(rate)
    if "Batch" in fields:
        named["batch"] = float(fields["Batch"])
    if "Model" in fields:
        named["model"] = MODELS[fields["Model"]]
    if "LayerNorm" in fields:
        named["norm"] = fields["LayerNorm"] == "Yes"
    own = {"optimizer": INSGD.printed_name(cell.optimizer), **condition}
    return all(own[name] == value for name, value in named.items())


def test_page_b_prints_what_is_on_record(text: Text) -> None:
    [(header, *rows)] = page_tables(text("insgd-page-b.txt"))
    printed = [(row[0], name, field) for row in rows for name, field in zip(header[1:], row[1:], strict=True)]
    cells = INSGD.cells("page b")
    names = [INSGD.printed_name(cell.optimizer, "page b").replace(" ", "") for cell in cells]
    data = [str(cell.condition["task.data"]).replace(" ", "") for cell in cells]
    assert printed == list(zip(data, names, map(spread, cells), strict=True))
    assert {cell.n for cell in cells} == {None}


# ------------------------------------------------------------------------------------------------ quotations


@pytest.mark.parametrize("paper", list_papers())
def test_quotations_are_word_for_word(paper: str, text: Text) -> None:
    record = load_paper(paper)
    for claim in record.claims:
        body = re.sub(r"\s+", " ", text(record.documents[claim.document]))
        assert claim.quote in body, claim.id
        for figure in claim.figures:
            assert f"{figure.value:.2f}" in claim.quote, claim.id


# Where a place of a document starts and ends: the beginnings of two lines, of which the second is behind the first.
PLACES = {
    "paper": {
        "title page": ("Input Normalized Stochastic Gradient Descent Training", "Abstract"),
        "abstract": ("Abstract", "1 Introduction"),
        "Algorithm 1": ("Algorithm 1 Input Normalized", "3.2 Models Architecture"),
        "section 3.2": ("3.2 Models Architecture", "4 Experimental Results"),
        "section 4.1": ("4.1 CIFAR-10 Classification", "4.2 CIFAR-100 Experiment"),
        "section 4.2": ("4.2 CIFAR-100 Experiment", "4.3 ImageNet-1K Results"),
        "section 4.3": ("4.3 ImageNet-1K Results", "5 Conclusion"),
        "section 5": ("5 Conclusion", "References"),
        "Table 1": ("Table 1. ", "\n"),
        "Figure 3": ("Figure 3. ", "\n"),
        "section 5.1": ("5.1. Results Comparison", "5.2. Experimental Convergence Analysis"),
        "section 5.3": ("5.3. Impact of Proposed Gradient Norm Correction", "6. Ablation Study"),
        "section 6.1": ("6.1. Impact of AdaNorm Hyperparameter", "6.2. Impact of AdaNorm on Second Moment"),
        "section 6.2": ("6.2. Impact of AdaNorm on Second Moment", "6.3. Impact of Learning Rate"),
        "section 6.3": ("6.3. Impact of Learning Rate", "6.4. Impact of Batch Size"),
        "section 6.4": ("6.4. Impact of Batch Size", "7. Conclusion"),
        "section 7": ("7. Conclusion", "References"),
    },
    "project page a": {
        "abstract": ("## Abstract", "## Introduction"),
        "Stochastic Gradient Descent": ("### Stochastic Gradient Descent", "### Normalized Least Mean Squares"),
        "Algorithm 1": ("#### Algorithm 1", "### Models Architecture"),
        "models architecture": ("### Models Architecture", "## Experimental Results"),
        "CIFAR-10 classification": ("### CIFAR-10 Classification", "### CIFAR-100 Experiment"),
        "CIFAR-100 experiment": ("### CIFAR-100 Experiment", "### ImageNet-1K Results"),
        "ImageNet-1K results": ("### ImageNet-1K Results", "## Conclusion"),
    },
    "project page b": {
        "publication": ("## Publication", "## The Problem"),
        "technical details": ("## Technical Details", "## Experimental Results"),
        "experimental results": ("## Experimental Results", "## Visual Results"),
        "code implementation": ("## Code Implementation", "## Applications"),
    },
    "README": {"introduction": ("# INSGD", "Let us assume")},
}


def words_at(body: str, document: str, place: str) -> str:
    """What stands at a place; a place that is not known, or not in the text, is an error."""
    numbered = re.fullmatch(r"Eq\. (\d+)", place)
    if numbered:
        [line] = [line for line in body.splitlines() if line.endswith(f"({numbered[1]})$$")]
        return line
    first, last = PLACES[document][place]
    start = body.index(f"\n{first}") + 1
    return body[start : body.index(f"\n{last}", start)]


@pytest.mark.parametrize("paper", list_papers())
def test_quotations_stand_at_the_place_that_is_named(paper: str, text: Text) -> None:
    record = load_paper(paper)
    for claim in record.claims:
        body = "\n" + text(record.documents[claim.document])
        assert claim.quote in re.sub(r"\s+", " ", words_at(body, claim.document, claim.place)), claim.id


def test_a_place_that_no_text_has_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"section 9"):
        words_at("\n4.1 CIFAR-10 Classification\n", "paper", "section 9")
    with pytest.raises(KeyError, match=r"nowhere"):
        words_at("\n## Abstract\n", "project page a", "nowhere")
    with pytest.raises(ValueError, match=r"unpack"):
        words_at("\n$$x = y, \\quad (28)$$\n", "paper", "Eq. 29")


def test_only_table_5_is_said_to_show_standard_deviations(text: Text) -> None:
    """The other standard deviations that the text speaks of are those by which images are normalised."""
    body = re.sub(r"\s+", " ", text("insgd.txt"))
    said = re.findall(r"[^.]*standard (?:deviation|error)s?(?! of \[)[^.]*\.", body)
    assert [re.findall(r"Table (\d+)", sentence) for sentence in said] == [["5"]]
    assert [table.number for table in INSGD.table if table.spread] == ["5"]
    assert "±" not in text("adanorm.txt")
    assert {cell.sd for cell in ADANORM.cell} == {None}
