"""The laws' own proof: each of many wrong rules breaks a law whose job it is, and the right rule keeps it."""

from __future__ import annotations

import pytest

import insgd_lab as lab
from insgd_lab.testing import laws

from .. import mutants

EXAMPLES = 100  # of 20, as `insgd-lab check` tries, versions of Hypothesis draw one or the other that miss a mutant


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_the_law_whose_job_it_is_catches_the_mutant(name: str) -> None:
    mutant = mutants.MUTANTS[name]
    caught = next(
        filter(None, (mutants.first_failure(mutant.spec, laws.get(law), EXAMPLES) for law in mutant.expected)), None
    )
    assert caught is not None, f"{name} ({mutant.bug}) survives {', '.join(mutant.expected)}"
    law, case, error = caught
    assert error.__cause__ is None, f"{name} crashed instead of being wrong: {error}"
    law.hold(lab.get_optimizer(mutant.parent), case)


@pytest.mark.parametrize("name", mutants.SPELLED_OUT)
def test_what_mutants_are_made_from_is_right(name: str) -> None:
    assert mutants.first_failure(mutants.SPELLED_OUT[name].spec, laws.get("closed-form"), examples=30) is None


def test_no_two_mutants_have_the_same_bug() -> None:
    assert len({(mutant.parent, mutant.bug) for mutant in mutants.MUTANTS.values()}) == len(mutants.MUTANTS)
