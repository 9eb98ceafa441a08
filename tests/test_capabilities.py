"""What a rule declares of itself is checked, or a misspelt promise would switch a law off in silence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import insgd_lab as lab
from insgd_lab import capabilities
from insgd_lab.testing import closed_forms, laws


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"closed_form": "adma"}, "closed_form names 'adma'; did you mean 'adam'"),
        ({"invariances": ("gradient-scal",)}, "did you mean 'gradient-scale'"),
        ({"bounds": ("x",)}, "expected one of gain-over-eps"),
        ({"decay": "both"}, "expected one of coupled, decoupled"),
    ],
)
def test_names_that_nothing_has_are_refused_with_the_nearest(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lab.Capabilities(**given)


@pytest.mark.parametrize("given", [{"invariances": "joint-scale"}, {"momentum": "yes"}, {"neutral": ()}, {"base": 1}])
def test_values_of_another_type_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"Capabilities: \w+ = .*: expected"):
        lab.Capabilities(**given)


def test_the_kit_knows_every_name_and_no_other() -> None:
    assert set(closed_forms.CLOSED_FORMS) == set(capabilities.CLOSED_FORMS)
    bare = lab.get_optimizer("sgd")
    promised = {
        **dict.fromkeys(capabilities.INVARIANCES, "invariances"),
        **dict.fromkeys(capabilities.BOUNDS, "bounds"),
    }
    for name, field in promised.items():
        spec = lab.OptimizerSpec(
            "x", bare.factory, defaults={"lr": 0.1, "gamma": 0.5, "eps": 0.0, "p": 2.0, "weight_decay": 0.0}
        )
        promising = lab.OptimizerSpec(
            "x", bare.factory, defaults=spec.defaults,
            capabilities=lab.Capabilities(chain=True, reads_inputs=True, **{field: (name,)}),
        )  # fmt: skip
        bare_spec = lab.OptimizerSpec(
            "x", bare.factory, defaults=spec.defaults, capabilities=lab.Capabilities(chain=True, reads_inputs=True)
        )
        assert any(law.reason(promising) != law.reason(bare_spec) for law in laws.LAWS), f"no law asks for {name}"


def test_registration_checks_what_it_is_given() -> None:
    with pytest.raises(TypeError, match=r"capabilities = \{.*\}: expected insgd_lab.Capabilities"):
        lab.register_optimizer("test-dict", capabilities={"closed_form": "adam"})(torch.optim.SGD)
    with pytest.raises(TypeError, match="register_optimizer needs a name"):
        lab.register_optimizer(torch.optim.SGD)
    with pytest.raises(ValueError, match="option 'lr' has no default"):
        lab.register_optimizer("test-required")(lambda params, lr: None)
    assert "test-dict" not in lab.list_optimizers()


def test_a_chain_is_known_as_one() -> None:
    @lab.register_optimizer("test-chain")
    class Chain(lab.ChainOptimizer):
        def __init__(self, params: Any, lr: float = 0.1) -> None:
            from insgd_lab.rules.basic import LearningRate

            super().__init__(params, [LearningRate(lr)])

    assert lab.get_optimizer("test-chain").capabilities.chain


def test_a_name_in_capitals_is_near_its_own() -> None:
    with pytest.raises(LookupError, match="did you mean 'sgd'"):
        lab.get_optimizer("SGD")
