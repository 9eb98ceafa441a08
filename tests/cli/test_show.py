"""`insgd-lab optimizers show`: the chain as a person would read it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

import insgd_lab as lab
from insgd_lab import describe
from insgd_lab.cli import app

CHAINS = [name for name in lab.list_optimizers() if lab.get_optimizer(name).capabilities.chain]


def show(name: str) -> str:
    result = CliRunner().invoke(app, ["optimizers", "show", name])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_chain_is_printed_rule_by_rule_with_equations_and_defaults() -> None:
    text = show("adamnorm")
    found = [text.index(words) for words in ("1. L2Penalty", "2. NormCorrection", "3. FirstMoment", "5. LearningRate")]
    assert found == sorted(found)
    assert "e <- gamma e + (1 - gamma) ||u||" in text
    assert "gamma = 0.95, scope = tensor, correct = first" in text
    assert "L2Penalty  (nothing to do by default)" in text


def test_words_in_brackets_survive_the_table() -> None:
    assert '{"box": [low, high]}' in show("sgd")


def test_what_is_no_chain_shows_its_equation_and_options() -> None:
    text = show("rmsprop")
    assert "torch.optim.RMSprop" in text
    assert "centered" in text
    assert "chain" not in text


@pytest.mark.parametrize("name", CHAINS)
def test_every_rule_has_an_equation_and_every_option_a_meaning(name: str) -> None:
    spec = lab.get_optimizer(name)
    assert all(rule.equation for rule in describe.rules_of(spec))
    assert set(describe.meanings(spec)) == set(spec.defaults)


def test_a_meaning_runs_over_its_lines_and_ends_with_the_section() -> None:
    def factory(params: object, lr: float = 1.0, gamma: float = 0.5) -> None:
        """Build.

        Args:
            params: what to train.
            lr (float, optional): the rate, which
                goes on here: like so.
            gamma: last one.

        Raises:
            ValueError: never.
        """

    spec = lab.OptimizerSpec("x", factory, defaults={"lr": 1.0, "gamma": 0.5, "unsaid": 1})
    assert describe.meanings(spec) == {"lr": "the rate, which goes on here: like so", "gamma": "last one"}
