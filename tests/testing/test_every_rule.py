"""Every registered rule keeps every law that applies to it."""

from __future__ import annotations

import pytest

import insgd_lab as lab
from insgd_lab.testing import laws

SPECS = {name: lab.get_optimizer(name) for name in lab.list_optimizers()}
PAIRS = [(name, law.name) for name, spec in SPECS.items() for law in laws.LAWS if law.reason(spec) is None]


@pytest.mark.parametrize(("name", "law"), PAIRS)
def test_the_rule_keeps_the_law(name: str, law: str) -> None:
    (outcome,) = laws.check(name, pattern=law, examples=6)
    assert outcome.verdict == "pass", f"{outcome.detail}\n{outcome.case}"


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.name)
def test_no_law_is_idle(law: laws.Law) -> None:
    assert law.name in {name for _, name in PAIRS}
