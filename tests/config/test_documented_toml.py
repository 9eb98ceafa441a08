"""Every piece of TOML that the README and the pages of docs show can be run as it stands there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from insgd_lab.config import ArmSpec, ScheduleSpec, load_study, parse_run
from insgd_lab.studies.search import next_plan

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What `insgd-lab train` puts under the tables of a file, and an optimizer as from its option.
DEFAULTS: dict[str, Any] = {
    "task": {"data": "digits", "model": "digits-cnn"}, "train": {"epochs": 8}, "optimizer": "sgd",
}  # fmt: skip


def shown() -> Iterator[Any]:
    for page in PAGES:
        for k, block in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
            yield pytest.param(block, id=f"{page.stem}-{k}")


def tables(block: str) -> dict[str, Any] | None:
    """The tables of a block; None where it shows one key several times."""
    try:
        return tomllib.loads(block)
    except tomllib.TOMLDecodeError as error:
        assert "overwrite" in str(error), error  # noqa: PT017
        return None


def one_by_one(block: str) -> list[tuple[str, Any]]:
    return [item for line in block.splitlines() for item in tomllib.loads(line).items()]


@pytest.mark.parametrize("block", list(shown()))
def test_what_is_shown_can_be_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (kept := tmp_path / "runs/cifar100/0123456789abcdef").mkdir(parents=True)
    (kept / "weights.pt").write_bytes(b"as the example has it")
    found = tables(block)
    if found is None:
        for key, value in one_by_one(block):
            alone(key, value)
    elif "arm" in found:
        (tmp_path / "shown.toml").write_text(block)
        assert next_plan(load_study("shown.toml")).runs
    elif "project" in found:
        assert found["project"]["entry-points"].keys() <= {"insgd_lab.optimizers", "insgd_lab.models", "insgd_lab.data"}
    else:
        run = {key: with_defaults(key, found.get(key, DEFAULTS[key])) for key in DEFAULTS}
        assert parse_run({**found, **run}).id


def with_defaults(key: str, value: Any) -> Any:
    return {**DEFAULTS[key], **value} if isinstance(value, Mapping) and key != "optimizer" else value


def alone(key: str, value: Any) -> None:
    """A schedule, or an axis, of which a page shows several forms."""
    if key == "schedule":
        assert ScheduleSpec.model_validate(value)
    else:
        assert ArmSpec.model_validate({
            "name": "a", "optimizer": "insgd-lp", "grid": "random", "samples": 1, "axes": {key: value},
        })  # fmt: skip


def test_there_is_one_of_each_kind() -> None:
    """What the pages explain is shown too, in a study that is looked at above."""
    studies = [found for param in shown() if (found := tables(param.values[0])) and "arm" in found]
    assert {"search", "resources", "analysis", "base"} <= set().union(*studies)
