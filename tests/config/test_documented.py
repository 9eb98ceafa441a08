"""docs/training.md has every key of a run, docs/studies.md every key of a study, with its default; examples work."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from insgd_lab.config import (
    ArmSpec,
    InitSpec,
    PrimarySpec,
    RecordSpec,
    ResourcesSpec,
    ScheduleSpec,
    SearchSpec,
    StudySpec,
    TaskSpec,
    TrainSpec,
    parse_study,
)
from insgd_lab.config.merging import merged_study
from insgd_lab.studies.search import next_plan

DOCS = Path(__file__).parents[2] / "docs"
RUNS = (DOCS / "training.md").read_text(encoding="utf-8")
STUDIES = (DOCS / "studies.md").read_text(encoding="utf-8")
COMPUTED = {"sha256": "computed", "init_from": "none: weights from chance", "record": "as in training.md"}


def written(value: object) -> str:
    """A default as TOML has it."""
    if value is None:
        return "none"
    if isinstance(value, ResourcesSpec):
        return "as below"
    if isinstance(value, ScheduleSpec):
        value = value.plain()
    return f"`{'inf' if value == math.inf else json.dumps(value)}`"


@pytest.mark.parametrize(
    ("text", "heading", "spec"),
    [
        (RUNS, "## [task]", TaskSpec),
        (RUNS, "### task.init_from", InitSpec),
        (RUNS, "## [train]", TrainSpec),
        (RUNS, "### train.schedule", ScheduleSpec),
        (RUNS, "## [record]", RecordSpec),
        (STUDIES, "## The top of the file", StudySpec),
        (STUDIES, "## [[arm]]", ArmSpec),
        (STUDIES, "## [search]", SearchSpec),
        (STUDIES, "## [analysis]", PrimarySpec),
        (STUDIES, "## [resources]", ResourcesSpec),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_every_key_is_documented_with_its_default(text: str, heading: str, spec: type[BaseModel]) -> None:
    section = re.split(r"\n##+ ", text.partition(f"\n{heading}")[2])[0]
    table = section.partition("| key | meaning | unit | default |\n|---|---|---|---|\n")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \|.* \| (.*) \|$", table, re.MULTILINE))
    expected = {
        name: COMPUTED.get(name) or ("required" if field.is_required() else written(field.default))
        for name, field in spec.model_fields.items()
    }
    assert rows == expected


def blocks() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", STUDIES, re.DOTALL)


def test_the_first_example_is_a_study() -> None:
    assert len(next_plan(parse_study(tomllib.loads(blocks()[0]))).runs) == (3 * 4 + 1) * 5


@pytest.mark.parametrize("example", [block for block in blocks() if "[[arm]]" in block][1:])
def test_every_other_arm_works_in_it(example: str) -> None:
    whole, part = tomllib.loads(blocks()[0]), tomllib.loads(example)
    if "base" in part:
        whole["arm"] = [{"name": "adam", "optimizer": "adam"}]
        del part["base"]
    study = parse_study({**merged_study({**whole, "arm": whole["arm"][:1]}, part), "name": "example"})
    assert study.arm[-1].name == part["arm"][-1]["name"]
