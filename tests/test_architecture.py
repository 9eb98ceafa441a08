"""The house: imports point one way, torch is imported late, public names are what they are said to be."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import insgd_lab as lab
import insgd_lab.analysis
import insgd_lab.experiments

PACKAGE = Path(lab.__file__).parent
ANALYSIS = Path(insgd_lab.analysis.__file__).parent
EXPERIMENTS = Path(insgd_lab.experiments.__file__).parent

# Each room, and the rooms that it may import. A room is a module or package directly below insgd_lab.
LEAVES = {"batch", "capabilities", "hyperparameters", "input_statistics"}
CORE = LEAVES | {"store", "registry", "chain", "rules", "optimizers", "sensors", "recorders", "catalogue"}
ALLOWED: dict[str, set[str]] = {
    "": set(),
    **{leaf: set() for leaf in LEAVES},
    "store": {"store"},
    "registry": {"capabilities"},
    "catalogue": {"hyperparameters", "registry"},
    "measured_layers": {"input_statistics"},
    "sensors": {"input_statistics", "measured_layers"},
    "chain": {"batch", "hyperparameters"},
    "rules": {"chain", "sensors", "rules"},
    "optimizers": {"chain", "rules", "sensors", "hyperparameters", "optimizers"},
    "losses": set(),
    "describe": {"chain", "registry"},
    "recorders": {"chain", "store"},
    "config": {"registry", "hyperparameters", "store", "config"},
    "training": CORE | {"config", "training"},
    "testing": CORE | {"losses", "testing"},
    "studies": {"config", "registry", "store", "studies"},
    "studies.jobs": {"config", "registry", "store", "studies", "training"},
    "studies.ray_task": {"config", "registry", "store", "studies", "training"},
    "analysis": {"store", "analysis"},
    "cli": CORE | {"cli", "describe", "config", "training", "studies", "testing", "analysis", "experiments"},
    "__main__": {"cli"},
    "experiments": set(),
    "experiments.theory": CORE | {"config", "training", "experiments"},
}

# The public names' home is imported by name when first used; type checkers see the same imports.
LAZY = {""}


def sources() -> dict[str, Path]:
    files = {
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path
        for path in PACKAGE.rglob("*.py")
        if not {"analysis", "experiments"} & set(path.parts[len(PACKAGE.parts) :])
    }
    beside = {
        f"{name}.{path.relative_to(folder).with_suffix('').as_posix().replace('/', '.')}": path
        for name, folder in (("analysis", ANALYSIS), ("experiments", EXPERIMENTS))
        for path in folder.rglob("*.py")
    }
    return {name.removesuffix("__init__").rstrip("."): path for name, path in {**files, **beside}.items()}


def room_of(module: str) -> str:
    """The module itself if it is a room of its own, else the innermost package that is."""
    while module not in ALLOWED and "." in module:
        module = module.rpartition(".")[0]
    return module


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "insgd_lab" else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name and name.startswith("insgd_lab.")}
    return rooms


@pytest.mark.parametrize("module", sorted(set(sources()) - LAZY))
def test_imports_point_one_way(module: str) -> None:
    room = room_of(module)
    assert room in ALLOWED, f"{module} is a room of no one: give it a place in the house"
    stray = imported_rooms(sources()[module]) - ALLOWED[room]
    assert not stray, f"{module} may not import {sorted(stray)}"


def test_every_package_goes_into_the_wheel() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    ours = {f"insgd_lab.{name}".rstrip(".") for name, path in sources().items() if path.name == "__init__.py"}
    assert ours == set(project["tool"]["setuptools"]["packages"])


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import insgd_lab",
        "import insgd_lab; insgd_lab.list_optimizers(); insgd_lab.get_model('resnet20')",
        "import insgd_lab.config, insgd_lab.store",
        "import insgd_lab.studies.planning, insgd_lab.studies.executor, insgd_lab.studies.ray_executor",
        "import insgd_lab.analysis.audit; insgd_lab.analysis.audit.audit()",
        "import insgd_lab.analysis.report, insgd_lab.analysis.statistics, insgd_lab.analysis.theory",
        "import insgd_lab.analysis.ablation, insgd_lab.analysis.convergence",
        "import insgd_lab.analysis.comparisons, insgd_lab.analysis.aggregation",
        "import insgd_lab.cli; sys.argv = ['', '--help']\ntry: insgd_lab.cli.main()\nexcept SystemExit: pass",
    ],
)
def test_torch_is_not_imported_by(code: str) -> None:
    assert run(f"import sys\n{code}\nprint('torch' in sys.modules)").splitlines()[-1] == "False"


def test_public_names_are_those_of_all_and_resolve() -> None:
    promised = {name for names in lab._HOMES.values() for name in names}
    assert set(lab.__all__) == promised | {"__version__"}
    for name in lab.__all__:
        assert getattr(lab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'SDG'"):
        lab.SDG  # noqa: B018


@pytest.mark.parametrize(
    "name",
    [
        "list_optimizers", "get_optimizer", "create_optimizer", "INSGD", "AdamNorm", "param_groups", "Recorder",
        "register_optimizer",
    ],
)  # fmt: skip
def test_the_names_of_the_public_face_exist(name: str) -> None:
    assert name in lab.__all__
