"""docs/training.md has every key of a run, with its default."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from insgd_lab.config import InitSpec, RecordSpec, ScheduleSpec, TaskSpec, TrainSpec

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
COMPUTED = {"sha256": "computed", "init_from": "none: weights from chance"}


def written(value: object) -> str:
    """A default as TOML has it."""
    if value is None:
        return "none"
    if isinstance(value, ScheduleSpec):
        value = value.plain()
    return f"`{'inf' if value == math.inf else json.dumps(value)}`"


@pytest.mark.parametrize(
    ("heading", "spec"),
    [
        ("## [task]", TaskSpec),
        ("### task.init_from", InitSpec),
        ("## [train]", TrainSpec),
        ("### train.schedule", ScheduleSpec),
        ("## [record]", RecordSpec),
    ],
)
def test_every_key_is_documented_with_its_default(heading: str, spec: type[BaseModel]) -> None:
    section = re.split(r"\n##+ ", TEXT.partition(f"\n{heading}")[2])[0]
    table = section.partition("| key | meaning | unit | default |\n|---|---|---|---|\n")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \|.* \| (.*) \|$", table, re.MULTILINE))
    expected = {
        name: COMPUTED.get(name) or ("required" if field.is_required() else written(field.default))
        for name, field in spec.model_fields.items()
    }
    assert rows == expected
