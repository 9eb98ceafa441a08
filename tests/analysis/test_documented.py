"""What docs/analysis.md says can be called can be."""

import importlib
import re
from pathlib import Path

import pytest

import insgd_lab.analysis.statistics as statistics

TEXT = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text(encoding="utf-8")
CALLS = sorted(set(re.findall(r"`(\w+)\.(\w+)[(`]", TEXT)))


@pytest.mark.parametrize(("module", "name"), CALLS)
def test_every_call_of_the_table_is_there(module, name):
    assert name in importlib.import_module(f"insgd_lab.analysis.{module}").__all__


def test_the_table_is_found_and_the_statistics_named_are_there():
    assert len(CALLS) >= 15
    named = re.search(r"over plain numbers: (.*?) and more", TEXT, re.DOTALL)
    assert named
    assert set(re.findall(r"`(\w+)`", named[1])) <= set(statistics.__all__)


def test_public_names_resolve():
    assert all(hasattr(statistics, name) for name in statistics.__all__)


def test_the_example_works(study_dir, capsys):
    example = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert example
    exec(example[1].replace("runs/digits", str(study_dir)), {})
    assert "verdict" in capsys.readouterr().out
