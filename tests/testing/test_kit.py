"""The kit itself: it finds small counterexamples, replays them, says why laws do not apply, and is not too strict."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import insgd_lab as lab
from insgd_lab.testing import laws, report

from .. import mutants

Cli = Callable[..., subprocess.CompletedProcess[str]]


class Plain(torch.optim.Optimizer):
    """Gradient descent as a user may write it."""

    def __init__(self, params: Any, lr: float = 0.1, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is not None:
                        self.update(param, param.grad, group)
        return loss

    def update(self, param: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        param.sub_(group["lr"] * (grad + group["weight_decay"] * param))


class Overwriting(Plain):
    def update(self, param: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        super().update(param, grad.add_(param, alpha=group["weight_decay"]), {**group, "weight_decay": 0.0})


class Raising(Plain):
    def update(self, param: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        raise ZeroDivisionError("by the user")


class Moody(Plain):
    steps = 0

    def update(self, param: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        Moody.steps += 1
        super().update(param, grad * (Moody.steps > 20), group)


class Slanted(Plain):
    def update(self, param: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        super().update(param, grad * (1 + 1e-12), group)


def spec(factory: Any, **capabilities: Any) -> lab.OptimizerSpec:
    defaults = {"lr": 0.1, "weight_decay": 0.0}
    return lab.OptimizerSpec("mine", factory, defaults=defaults, capabilities=lab.Capabilities(**capabilities))


def test_a_users_plain_optimizer_keeps_the_general_laws() -> None:
    outcomes = laws.check(spec(Plain), examples=5)
    assert [o for o in outcomes if o.verdict == "fail"] == []
    passed = {o.law for o in outcomes if o.verdict == "pass"}
    assert passed >= {
        "state-moves", "gradients-untouched", "no-gradient-no-change", "zero-gradients", "extreme-gradients",
        "deepcopy", "closure", "parameter-order", "group-splitting", "group-settings", "neuron-order", "resume",
        "micro-batches", "evaluation-between", "schedule",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adamax", "RAdam"])
def test_the_general_laws_are_not_too_strict_for_torchs_own(name: str) -> None:
    rule = replace(spec(getattr(torch.optim, name)), defaults={"lr": 0.01, "maximize": False})
    assert [o for o in laws.check(rule, examples=5) if o.verdict == "fail"] == []


def test_a_failure_comes_with_the_smallest_case_and_replays() -> None:
    (outcome,) = laws.check(spec(Overwriting), pattern="gradients-untouched")
    assert outcome.verdict == "fail"
    assert outcome.case == {"seed": 0, "steps": 2, "options": {}}
    assert "seen" in outcome.detail
    assert "expected" in outcome.detail
    again = laws.replay("gradients-untouched", spec(Overwriting), json.loads(json.dumps(outcome.case)))
    assert again == outcome
    assert laws.replay("gradients-untouched", spec(Plain), outcome.case).verdict == "pass"


def test_torchs_rprop_is_found_to_ignore_schedulers() -> None:
    rule = replace(spec(torch.optim.Rprop), defaults={"lr": 0.01})
    (outcome,) = laws.check(rule, pattern="schedule", examples=2)
    assert outcome.verdict == "fail"


def test_an_exception_of_the_optimizer_is_a_failure_that_names_it() -> None:
    (outcome,) = laws.check(spec(Raising), pattern="state-moves")
    assert outcome.verdict == "fail"
    assert outcome.detail == "it raised ZeroDivisionError: by the user"


def test_a_failure_that_does_not_return_is_said_to_be_random() -> None:
    (outcome,) = laws.check(spec(Moody), pattern="state-moves", examples=5)
    Moody.steps = 0
    assert outcome.verdict == "fail"
    assert "not every time" in outcome.detail


def test_closed_forms_see_an_error_of_a_trillionth() -> None:
    claims = {"closed_form": "sgd", "decay": "coupled"}
    (right,) = laws.check(spec(Plain, **claims), pattern="closed-form")
    (wrong,) = laws.check(spec(Slanted, **claims), pattern="closed-form")
    assert (right.verdict, wrong.verdict) == ("pass", "fail")
    assert "rounding explains" in wrong.detail


@pytest.mark.parametrize(
    ("law", "capabilities", "reason"),
    [
        ("maximize", {}, "it has no option maximize"),
        ("own-clock", {}, "it is no chain of rules (capability chain)"),
        ("adam-step", {}, "its capabilities do not promise adam-step"),
        ("zero-input", {}, "its capabilities promise none of least-squares, least-squares-l1"),
        ("neutral-base", {}, "its capabilities name no base"),
        ("checkpointing", {}, "it does not read layers' inputs (capability reads_inputs)"),
        ("closed-form", {}, "its capabilities name no closed_form"),
        ("quadratic", {"closed_form": "sgd", "momentum": True}, "it has momentum that no option turns off"),
    ],
)
def test_laws_that_do_not_apply_say_why(law: str, capabilities: dict[str, Any], reason: str) -> None:
    assert laws.get(law).reason(spec(Plain, **capabilities)) == reason
    (outcome,) = laws.check(spec(Plain, **capabilities), pattern=law)
    assert (outcome.verdict, outcome.detail) == ("not applicable", reason)


def test_laws_have_unique_names_and_say_what_they_are() -> None:
    assert len({law.name for law in laws.LAWS}) == len(laws.LAWS)
    for law in laws.LAWS:
        assert law.title
        assert law.domain
        assert law.source


class OfModel(Plain):
    """Takes a model, and nothing else."""

    def __init__(self, model: torch.nn.Module, lr: float = 0.1, weight_decay: float = 0.0) -> None:
        super().__init__(model.parameters(), lr, weight_decay)


class OfParameters(Plain):
    """Takes parameters, but no groups of them."""

    def __init__(self, params: Any, lr: float = 0.1, weight_decay: float = 0.0) -> None:
        super().__init__([param.requires_grad_() for param in params], lr, weight_decay)


def test_an_optimizer_of_models_only_is_tried_by_every_law_that_can_do_without_parameters() -> None:
    outcomes = {o.law: o for o in laws.check(spec(OfModel), examples=2)}
    assert [o for o in outcomes.values() if o.verdict == "fail"] == []
    for law in ("parameter-order", "group-splitting", "group-settings"):
        assert outcomes[law].detail == "it takes a whole model, not parameters"
    everywhere = {o.law for o in laws.check(spec(Plain), examples=2) if o.verdict == "pass"}
    passed = {law for law, o in outcomes.items() if o.verdict == "pass"}
    assert everywhere - passed == {"parameter-order", "group-splitting", "group-settings"}


def test_an_optimizer_that_takes_no_groups_is_not_tried_with_groups() -> None:
    outcomes = {o.law: o for o in laws.check(spec(OfParameters), pattern="*r*", examples=2)}
    assert outcomes["parameter-order"].verdict == "pass"
    assert outcomes["group-splitting"].detail == "it takes parameters, but no groups of them"


def test_a_rule_that_reads_inputs_may_take_a_model_only() -> None:
    rule = lab.get_optimizer("insgd-l2")

    def of_model(model: torch.nn.Module, **options: Any) -> Any:
        assert isinstance(model, torch.nn.Module)
        return lab.create_optimizer("insgd-l2", model, **options)

    outcomes = laws.check(replace(rule, factory=of_model), examples=1)
    assert [o for o in outcomes if o.verdict == "fail"] == []
    assert {o.law for o in outcomes if o.detail == "it takes a whole model, not parameters"} == {
        "parameter-order", "group-splitting", "group-settings", "tensor-rate", "tensors-apart", "skip", "own-clock",
    }  # fmt: skip


def test_what_cannot_be_built_is_said_once() -> None:
    def nothing(params: Any, **options: Any) -> Any:
        raise KeyError("warmup")

    with pytest.raises(laws.CannotBuild, match=r"mine cannot be built with its defaults .*KeyError: 'warmup'"):
        laws.check(spec(nothing), pattern="resume")
    with pytest.raises(laws.CannotBuild, match=r"made a int, no torch\.optim\.Optimizer"):
        laws.check(spec(lambda params, **options: 1))


def test_what_cannot_be_built_is_said_once_on_the_command_line(
    cli: Cli, plugin: Callable[[str], dict[str, str]]
) -> None:
    source = PLUGIN.replace("super().__init__(params", "raise KeyError('warmup')  # (params")
    result = cli("check", "my-rule", "--plugin", "mine", **plugin(source))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("my-rule cannot be built") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_shown_how_far_the_laws_have_come() -> None:
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        with report.progress("mine", 1, stream) as counted:
            outcomes = list(counted(laws.check(spec(Plain), pattern="maximize")))
        assert [o.verdict for o in outcomes] == ["not applicable"]
        assert ("mine" in stream.getvalue()) is shown


@pytest.mark.parametrize(
    "name", [name for name, mutant in mutants.MUTANTS.items() if "gradients-untouched" in mutant.expected]
)
def test_any_twenty_examples_find_gradients_that_are_kept_or_changed(name: str) -> None:
    (outcome,) = laws.check(mutants.MUTANTS[name].spec, pattern="gradients-untouched", derandomize=False)
    assert outcome.verdict == "fail"


PLUGIN = """
import torch
import insgd_lab as lab

@lab.register_optimizer("my-rule")
class MyRule(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    decayed = param.grad.add(param, alpha=group["weight_decay"])
                    param.sub_(group["lr"] * decayed)
        return loss
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Write the plugin; returns the environment that finds it."""

    def write(source: str) -> dict[str, str]:
        (tmp_path / "mine.py").write_text(source)
        return {"PYTHONPATH": str(tmp_path)}

    return write


def test_a_plugins_rule_is_checked_from_the_command_line(cli: Cli, plugin: Callable[[str], dict[str, str]]) -> None:
    result = cli("check", "my-rule", "--plugin", "mine", "--examples", 2, **plugin(PLUGIN))
    assert result.returncode == 0, result.stdout + result.stderr
    lines = {line.split("│")[1].strip(): line for line in result.stdout.splitlines() if line.startswith("│")}
    assert "pass" in lines["resume"]
    assert "maximize" in lines["it has no option maximize"]
    tried, inapplicable = result.stdout.split("not applicable, since")
    assert "not applicable" not in tried
    assert "pass" not in inapplicable.rpartition("\n\n")[0]
    assert " 0 fail, " in result.stdout
    assert result.stderr == ""  # progress is for terminals
    assert "\x1b" not in result.stdout


def test_a_failure_is_explained_and_its_command_replays_it(cli: Cli, plugin: Callable[[str], dict[str, str]]) -> None:
    wrong = plugin(PLUGIN.replace("param.grad.add(", "param.grad.add_("))
    found = cli("check", "my-rule", "--plugin", "mine", "--law", "gradients-*", **wrong)
    assert found.returncode == 1, found.stdout + found.stderr
    assert 'smallest case found: {"seed": 0, "steps": 2, "options": {}}' in found.stdout
    (command,) = [line.split("replay: ")[1] for line in found.stdout.splitlines() if "replay: " in line]
    program, *arguments = shlex.split(command)
    assert program == "insgd-lab"
    again = cli(*arguments, **wrong)
    assert again.returncode == 1
    assert "weight_decay = 0.1: p.grad after step 1, tensor 0: seen" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("sdg",), "unknown optimizer 'sdg'; did you mean 'sgd'"),
        (("sgd", "--law", "resum"), "unknown law 'resum'; did you mean 'resume'"),
        (("sgd", "--law", "res*", "--replay", "{}"), "unknown law 'res*'"),
        (("sgd", "--law", "resume", "--replay", "{"), "--replay: Expecting property name"),
        (("sgd", "--law", "resume", "--replay", "[1]"), "law resume: a case is an object with the keys"),
        (("sgd", "--law", "resume", "--replay", '{"seed": 1}'), "law resume: a case is an object with the keys"),
        (("sgd", "--examples", 0), "--examples"),
        (("sgd", "--plugin", "no_such_plugin"), "plugin module 'no_such_plugin' could not be imported"),
    ],
)
def test_bad_input_is_refused(cli: Cli, arguments: tuple[object, ...], expected: str) -> None:
    result = cli("check", *arguments)
    assert result.returncode == 2, result.stdout + result.stderr
    assert expected in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_a_closed_form_whose_options_the_rule_lacks_is_told_by_their_name() -> None:
    def factory(params: Any, lr: float = 0.1, beta1: float = 0.9, beta2: float = 0.99) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr, (beta1, beta2))

    spec = lab.OptimizerSpec(
        "own-names", factory, defaults={"lr": 0.1, "beta1": 0.9, "beta2": 0.99},
        capabilities=lab.Capabilities(momentum=True, closed_form="adam"),
    )  # fmt: skip
    (outcome,) = laws.check(spec, pattern="closed-form")
    assert outcome.verdict == "fail"
    assert "reads the option 'betas', and the rule has none of that name" in outcome.detail
