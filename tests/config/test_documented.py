"""docs/training.md has every key of a run, docs/studies.md every key of a study, with its default."""

from __future__ import annotations

import json
import math
import re
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
)

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
