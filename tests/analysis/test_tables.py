import dataclasses
import io
import re

import numpy as np
import pandas as pd
import pytest

from insgd_lab.analysis.selection import tune_at
from insgd_lab.analysis.statistics import summarize
from insgd_lab.analysis.tables import (
    Column,
    Table,
    divergence_table,
    effects_table,
    failures_table,
    latex_text,
    results_table,
)


@pytest.fixture(scope="module", params=["best", "fixed", "effects", "failures", "divergences"])
def table(request, study, choices, effects):
    return {
        "best": lambda: results_table(study, choices, "best"),
        "fixed": lambda: results_table(study, choices, "fixed"),
        "effects": lambda: effects_table(study, effects),
        "failures": lambda: failures_table(study),
        "divergences": lambda: divergence_table(study),
    }[request.param]()


def test_markdown_parses_back_to_the_cells(table):
    _, _, head, rule, *rows, _ = table.markdown().split("\n")
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in [head, *rows]]
    assert split == [table.titles, *table.cells()]
    assert set(rule) <= set("|:-")


def test_latex_has_booktabs_rules_and_as_many_cells_in_every_row(table):
    text = table.latex()
    assert all(rf"\{rule}rule" in text for rule in ("top", "mid", "bottom"))
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0].replace("\\midrule\n", "")
    rows = [line for line in body.strip().split("\n") if line]
    assert len(rows) == len(table.frame) + 1
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.columns) - 1}
    assert text.isascii()


def test_csv_has_the_numbers_in_full(table):
    read = pd.read_csv(io.StringIO(table.csv()), dtype=str)  # Python reads the floats, exactly
    assert list(read.columns) == list(table.frame.columns)
    for name in table.frame.select_dtypes(float):
        np.testing.assert_array_equal(read[name].to_numpy(float), table.frame[name].to_numpy(float))


def test_html_names_its_caption_and_has_a_cell_for_each_value(table):
    text = table.html()
    assert text.count("<td") == len(table.frame) * len(table.columns)
    assert text.count('scope="col"') == len(table.columns)
    assert f'aria-describedby="about-{table.name}"' in text


def test_results_are_recomputable(study, choices):
    frame = results_table(study, choices, "best").frame
    for row in frame.to_dict("records"):
        cell = study.cells[row["arm"], row["settings"]]
        tune = tune_at(study, choices, cell, "best")
        expected = summarize(list(study.by_seed(cell.arm, cell.key, tune).values())) * 100
        assert row["final_mean"] == pytest.approx(expected.mean)
        assert row["final_low"] == pytest.approx(expected.low)
        assert row["best_mean"] <= row["final_mean"] + 1e-9


def test_every_run_that_did_not_end_well_is_listed(study):
    listed = set(failures_table(study).frame["run"])
    assert listed == set(study.runs.index[study.runs["status"] != "done"])
    failed = failures_table(study).frame.query("status == 'failed'").iloc[0]
    assert failed["error"] == "RuntimeError: worker 1 died"
    log = "its worker died 2 times; end of worker-0.log:\nepoch 3: loss 0.1"
    errors = study.runs["error"].where(study.runs["status"] != "failed", log)
    told = failures_table(dataclasses.replace(study, runs=study.runs.assign(error=errors))).frame
    assert told.loc[told["status"] == "failed", "error"].tolist() == ["its worker died 2 times"]
    assert told.loc[told["status"] != "failed", "error"].isna().all()
    diverged = failures_table(study).frame.query("status == 'diverged'")
    assert diverged[["epoch", "step"]].notna().all(axis=None)


def test_divergences_are_counted_with_exact_intervals(study):
    frame = divergence_table(study).frame
    [row] = frame[(frame["arm"] == "SGD") & (frame["tuned"] == "learning rate 1")].to_dict("records")
    assert (row["runs"], row["diverged"]) == (6, 6)
    assert row["low"] == pytest.approx(100 * 0.025 ** (1 / 6))  # all of n: (α/2)^(1/n)
    assert row["high"] == 100


def test_special_characters_are_escaped():
    frame = pd.DataFrame({"a": ["x|y & 100 % <b>"]})
    table = Table("t", "β_1 ± ∞", frame, (Column("a", ("a",)),))
    assert r"x\|y" in table.markdown()
    assert "x|y \\& 100 \\% $<$b$>$" in table.latex()
    assert "&lt;b&gt;" in table.html()
    assert latex_text("β_1 ± ∞") == r"$\beta$\_1 $\pm$ $\infty$"


def test_an_empty_table_prints(tmp_path):
    table = Table("t", "nothing", pd.DataFrame({"a": []}), (Column("a", ("a",)),))
    assert [path.suffix for path in table.save(tmp_path)] == [".md", ".tex", ".csv"]
    assert "<tbody>" in table.html()


def test_winners_at_the_end_of_what_a_search_tried_are_marked(study, choices):
    """A searched arm has nothing tuned left: what was found is part of its setting."""
    arms = {name: dataclasses.replace(arm, tune={}) for name, arm in study.arms.items()}
    searched = dataclasses.replace(study, arms=arms, info={**study.info, "search": {"method": "random"}})
    ends = {key: "highest" if key[0] == "adam" else None for key in choices}
    table = results_table(searched, {k: dataclasses.replace(choices[k], edge=end) for k, end in ends.items()}, "best")
    assert "‡: the end of its values, or the outermost twentieth of its range" in table.caption
    assert {row[0] for row in table.cells() if row[1].endswith(" ‡")} == {"Adam"}
