from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import insgd_lab as lab
from insgd_lab.config import RunSpec
from insgd_lab.registry import DuplicateName, UnknownName, load_plugins, resolve_factory

BUILT_IN = {
    "sgd", "lms", "nlms", "nlms-l1", "insgd-l1", "insgd-l2", "insgd-linf", "insgd-lp", "insgd-norm",
    "insgd-reference-l1", "insgd-reference-l2", "adam", "diffgrad", "radam", "adabelief", "adamnorm", "diffgradnorm",
    "radamnorm", "adabeliefnorm", "adamnorm-reference", "radamnorm-reference", "lars", "lsalr", "adagrad", "adadelta",
    "rmsprop", "adamw",
}  # fmt: skip


def test_names_are_sorted_and_patterns_select() -> None:
    assert set(lab.list_optimizers()) >= BUILT_IN
    assert lab.list_optimizers("*norm") == ["adabeliefnorm", "adamnorm", "diffgradnorm", "insgd-norm", "radamnorm"]
    assert lab.list_optimizers("insgd-l[12]") == ["insgd-l1", "insgd-l2"]
    assert lab.list_optimizers("nothing*") == []


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_spec_says_where_it_comes_from_and_what_it_computes(name: str) -> None:
    spec = lab.get_optimizer(name)
    assert spec.name == name
    assert spec.citation
    assert "theta" in spec.equation
    assert set(spec.search) <= set(spec.defaults)
    assert spec.capabilities.base is None or spec.capabilities.base in BUILT_IN
    optimizer = lab.create_optimizer(name, torch.nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.Optimizer)
    for option in set(spec.defaults) & set(optimizer.defaults):
        assert optimizer.defaults[option] == spec.defaults[option]


def test_a_near_miss_is_suggested_and_names_are_exact() -> None:
    with pytest.raises(UnknownName, match=r"unknown optimizer 'insgd_l1'; did you mean 'insgd-l1'"):
        lab.get_optimizer("insgd_l1")
    with pytest.raises(UnknownName, match="unknown model 'resnet-20'; did you mean 'resnet20'"):
        lab.get_model("resnet-20")
    with pytest.raises(UnknownName, match="unknown data set 'cifar-10'; did you mean 'cifar10'"):
        lab.get_data("cifar-10")


@pytest.mark.parametrize(
    "spec", [lab.get_model(n) for n in lab.list_models()] + [lab.get_data(n) for n in lab.list_data()]
)
def test_models_and_data_sets_have_factories_that_exist(spec: lab.ModelSpec | lab.DataSpec) -> None:
    assert callable(resolve_factory(spec.factory))
    assert spec.description


def test_a_rule_registered_in_process_is_created_with_its_own_defaults() -> None:
    @lab.register_optimizer("test-sign", citation="made up", equation="theta <- theta - lr sign(g)")
    def sign(params: torch.nn.Module, lr: float = 0.5, scale: float = 1.0) -> torch.optim.Optimizer:
        return torch.optim.SGD(params.parameters(), lr=lr * scale)

    spec = lab.get_optimizer("test-sign")
    assert dict(spec.defaults) == {"lr": 0.5, "scale": 1.0}
    assert lab.create_optimizer("test-sign", torch.nn.Linear(1, 1), scale=2.0).defaults["lr"] == 1.0
    with pytest.raises(DuplicateName, match="'test-sign' is registered already"):
        lab.register_optimizer("test-sign")(sign)
    with pytest.raises(ValueError, match="lower-case words"):
        lab.register_optimizer("Test_Sign")(sign)


def test_options_of_a_plugin_are_judged_by_the_plugin() -> None:
    @lab.register_optimizer("test-powers")
    def powers(
        params: torch.nn.Module, lr: float = 0.5, power: float = 0.5, gamma: float = 3.0
    ) -> torch.optim.Optimizer:
        return torch.optim.SGD(params.parameters(), lr=lr)

    task = {"data": "digits", "model": "mlp"}
    optimizer = {"name": "test-powers", "power": 0.7, "gamma": 9.0}
    spec = RunSpec.model_validate({"task": task, "train": {"epochs": 1}, "optimizer": optimizer})
    assert spec.optimizer.options == {"power": 0.7, "gamma": 9.0}


def test_a_plugin_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(ImportError, match=r"'no_such_module'.*PYTHONPATH"):
        load_plugins(["no_such_module"])


PLUGIN = {
    "pyproject.toml": """
        [build-system]
        requires = ["setuptools"]
        build-backend = "setuptools.build_meta"
        [project]
        name = "lab-plugin-example"
        version = "1.0"
        [project.entry-points."insgd_lab.optimizers"]
        half-step = "half_step:SPEC"
        broken = "half_step:NOTHING"
        [project.entry-points."insgd_lab.models"]
        tiny-mlp = "half_step:MODEL"
        [project.entry-points."insgd_lab.data"]
        rings = "half_step:DATA"
        [tool.setuptools]
        py-modules = ["half_step"]
    """,
    "half_step.py": """
        from insgd_lab import DataSpec, ModelSpec, OptimizerSpec

        def make(params, lr=0.1):
            from insgd_lab.chain import ChainOptimizer
            from insgd_lab.rules.basic import LearningRate
            return ChainOptimizer(params, [LearningRate(lr / 2)])

        def tiny(input_shape, classes, width=4):
            from math import prod
            from torch import nn
            return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), width), nn.Linear(width, classes))

        SPEC = OptimizerSpec("half-step", make, citation="an example", equation="theta <- theta - lr/2 g",
                             defaults={"lr": 0.1})
        MODEL = ModelSpec("tiny-mlp", tiny, "an example", defaults={"width": 4})

        def rings(data_dir=None, images=60):
            import torch
            from insgd_lab.training.data import ImageSplits, Split
            labels = torch.arange(images) % 3
            split = Split((labels * 100).to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 4, 4), labels)
            return ImageSplits("rings", 3, split, split, split, mean=(0.4,), std=(0.3,))

        DATA = DataSpec("rings", rings, "an example", defaults={"images": 60}, classes=3)
    """,
}

USE_IT = """
import warnings, torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import insgd_lab as lab
    assert "half-step" in lab.list_optimizers()
assert any("'broken'" in str(w.message) and "skipped" in str(w.message) for w in caught), caught
torch.set_num_threads(1)
outcome = lab.train({
    "task": {"data": {"name": "rings", "images": 90}, "model": "tiny-mlp"}, "train": {"epochs": 20, "batch_size": 30},
    "optimizer": {"name": "half-step", "lr": 0.4}, "seed": 0,
})
print(outcome.status, outcome.optimizer.param_groups[0]["lr"], outcome.results["final_test_accuracy"])
"""


@pytest.fixture(scope="module")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real package with entry points, built and installed into a folder of its own, without dependencies."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, text in PLUGIN.items():
        (source / name).write_text(textwrap.dedent(text))
    install = [
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([sys.executable, "-m", *install, str(source)], check=True)
    return target


def test_an_installed_plugin_is_found_trained_with_and_its_broken_sibling_skipped(
    plugin_folder: Path,
) -> None:
    code = f"import sys; sys.path.append({str(plugin_folder)!r})\n{USE_IT}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["done", "0.2", "1.0"]
