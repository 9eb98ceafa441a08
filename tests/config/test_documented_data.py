"""docs/data.md has every data set, where its files lie, and every option with its default; docs/tasks.md the tasks'."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from insgd_lab import catalogue, registry
from insgd_lab.config import parse_run
from insgd_lab.training.data import digits
from insgd_lab.training.file_sets import FILE_SETS
from insgd_lab.training.image_folders import SUFFIXES
from insgd_lab.training.imagenet import ILSVRC2012

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "data.md").read_text(encoding="utf-8")
# Those of the lab: other tests register some of their own in the same process.
OURS = sorted(spec.name for spec in catalogue.SPECS if isinstance(spec, registry.DataSpec))
IMAGES = [name for name in OURS if registry.get_data(name).images]
SUBSET = ("fraction", "shots", "imbalance", "imbalance_ratio")
WORDS = {'`""`, which is refused': "", "none: all": None}


def table(head: str, text: str = TEXT) -> list[list[str]]:
    """The rows of the tables with that head."""
    found = re.findall(rf"^{re.escape(head)}\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for rows in found for line in rows.splitlines()]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


SETS = {row[0].strip(" `"): row[1:] for row in table("| data | classes | an image | train | validation | test |")}


def test_every_set_of_images_is_in_the_table_and_every_other_one_named() -> None:
    assert sorted(SETS) == IMAGES
    assert set(OURS) - set(SETS) <= set(code(TEXT))


@pytest.mark.parametrize("name", IMAGES)
def test_the_number_of_classes_is_the_registrys(name: str) -> None:
    classes = registry.get_data(name).classes
    assert SETS[name][0] == ("your folders" if classes is None else str(classes))


def test_the_splits_are_as_large_as_the_table_says() -> None:
    sets = digits()
    shape = " × ".join(map(str, sets.input_shape))
    assert SETS["digits"][1:] == [shape, *(f"{len(split):,}" for split in (sets.train, sets.val, sets.test))]
    held_out = 50 * ILSVRC2012.classes
    assert SETS["imagenet"][2:] == [f"{ILSVRC2012.train - held_out:,}", f"{held_out:,}", f"{ILSVRC2012.val:,}"]


def test_files_lie_where_the_registry_looks_for_them() -> None:
    rows = {code(data)[0]: (code(folder)[0], code(needs)) for data, folder, needs in table("| data | folder | needs |")}
    found = {name: {f"{folder}/{file}" for file in files} for name, (folder, files) in rows.items()}
    assert found == {name: set(registry.get_data(name).files) for name in IMAGES if registry.get_data(name).files}


def test_files_come_from_where_the_errors_say() -> None:
    rows = {code(data)[0]: (source, code(form)) for data, source, form in table("| data | from | as |")}
    for name, files in FILE_SETS.items():
        if files.page:
            source, archives = rows.pop(name)
            assert source == f"<{files.page}>"
            assert archives == ([files.archive] if files.archive else [])
    source, archives = rows.pop("imagenet")
    assert f"<{ILSVRC2012.page}>" in source
    assert archives == [name for name, _ in ILSVRC2012.archives]
    assert not rows


def test_every_option_is_documented_with_its_default() -> None:
    rows = {code(row[0])[0]: row[-1] for row in table("| option | meaning | unit | default |")}
    defaults = {name: WORDS[cell] if cell in WORDS else json.loads(code(cell)[0]) for name, cell in rows.items()}
    assert defaults == registry.get_data("image-folder").defaults
    subset = {name: defaults[name] for name in SUBSET}
    assert all(registry.get_data(name).defaults == subset for name in IMAGES if name != "image-folder")


def test_endings_of_images_are_those_that_are_looked_for() -> None:
    sentence = re.search(r"Images end in (.*?), and have", TEXT, re.DOTALL)
    assert sentence is not None
    assert tuple(code(sentence[1])) == SUFFIXES


def test_what_the_page_shows_is_a_task() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    run = parse_run({**tomllib.loads(shown), "train": {"epochs": 1}, "optimizer": "sgd"})
    assert run.task.data.options == {"path": "scans", "size": 128}


def test_the_options_of_the_tasks_are_documented_with_their_defaults() -> None:
    rows = table("| data | model | options and defaults | an epoch |", (DOCS / "tasks.md").read_text(encoding="utf-8"))
    found: dict[str, Any] = {code(row[0])[0]: tomllib.loads("\n".join(code(row[2]))) for row in rows}
    assert found == {name: registry.get_data(name).defaults for name in OURS if name not in IMAGES}
