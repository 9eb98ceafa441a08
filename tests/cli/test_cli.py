"""The command line as a user calls it: what it prints, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from insgd_lab import registry
from insgd_lab.store import StudyFolder

Cli = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
PYTHON = [sys.executable, "-W", "error", "-c"]
SHORT = ("--epochs", 1, "--set", "task.data.fraction=0.1")


TINY = 'name = "s"\nseeds = 1\ntask = { data = "digits", model = "mlp" }\ntrain = { epochs = 1 }\n'
ARM = '[[arm]]\nname = "a"\noptimizer = "sgd"\n'


def test_help_names_every_command_without_heavy_imports() -> None:
    code = (
        "import sys\nfrom insgd_lab.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pyarrow', 'pydantic', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    result = subprocess.run([*PYTHON, code], capture_output=True, text=True, check=True)
    for command in ("optimizers", "train", "study", "report", "data", "audit"):
        assert command in result.stdout


def test_a_finished_study_is_recognised_without_torch(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(TINY + ARM)
    assert cli("study", "run", "s.toml").returncode == 0
    code = (
        "import sys\nfrom insgd_lab.cli import app\n"
        "try:\n    app(['study', 'run', 's.toml'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([*PYTHON, code], cwd=tmp_path, check=True)


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout.strip() == "0.1.0"


def test_optimizers_lists_the_registry(cli: Cli) -> None:
    listed = cli("optimizers").stdout
    assert all(f" {name} " in listed for name in registry.list_optimizers())


def test_optimizers_takes_wildcards(cli: Cli) -> None:
    listed = cli("optimizers", "insgd-l?").stdout
    assert " insgd-l1 " in listed
    assert " insgd-linf " not in listed
    assert cli("optimizers", "list", "insgd-l?").stdout == listed


def test_optimizers_show_prints_the_spec(cli: Cli) -> None:
    spec = registry.get_optimizer("insgd-l1")
    shown = cli("optimizers", "show", "insgd-l1").stdout
    assert spec.citation in shown
    assert spec.equation in shown
    assert all(option in shown for option in spec.defaults)
    assert "reads inputs" in shown


def test_training_prints_each_epoch_and_keeps_the_run(cli: Cli, tmp_path: Path) -> None:
    arguments = ("train", "--optimizer", "insgd-l1", "--set", "lr=0.3", *SHORT, "--out", "runs")
    result = cli(*arguments)
    assert result.returncode == 0, result.stderr
    assert "epoch 1/1; train loss" in result.stdout
    (info,) = (tmp_path / "runs").glob("*/run.json")
    assert json.loads(info.read_text())["spec"]["optimizer"]["options"] == {"lr": 0.3}
    assert f"done: runs/{info.parent.name}" in result.stdout
    assert "This run is done already" in cli(*arguments).stdout


def test_ctrl_c_keeps_a_run_and_the_same_command_goes_on(cli: Cli, start_cli: Start, tmp_path: Path) -> None:
    settings = ("--set", "train.batch_size=8", "--set", "record.every=0", "--out", "runs")
    arguments = ("train", "--optimizer", "sgd", "--set", "task.data.fraction=0.3", "--epochs", 300, *settings)
    process = start_cli(*arguments)
    assert process.stdout is not None
    process.stdout.readline()  # an epoch
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopping after this step; the same command goes on from there." in stderr
    (info,) = (tmp_path / "runs").glob("*/run.json")
    assert info.with_name("checkpoint.pt").exists()
    state = torch.load(info.with_name("checkpoint.pt"), weights_only=True)
    assert state["step"] >= 45
    again = start_cli(*arguments)
    assert again.stdout is not None
    assert again.stdout.readline().startswith(f"epoch {state['epoch'] + 1}/300")


def test_training_ends_with_its_results_and_where_they_were_chosen(cli: Cli) -> None:
    lines = cli("train", "--optimizer", "sgd", "--model", "mlp", *SHORT).stdout.splitlines()
    assert lines[-4].startswith("final test accuracy 0.")
    assert lines[-3].endswith("at epoch 1: chosen on the test split, as the papers report it")
    assert lines[-2].endswith("at epoch 1, the best on the validation split")
    assert lines[-1].startswith("done")


def test_training_from_a_file_with_options_on_top(cli: Cli, tmp_path: Path) -> None:
    run = 'seed = 1\noptimizer = "sgd"\ntrain = { epochs = 9 }\ntask = { data = "digits", model = "mlp" }\n'
    (tmp_path / "run.toml").write_text(run)
    chosen = ("--set", "task.model.hidden=[4]", "--set", "task.data.shots=9")
    result = cli("train", "run.toml", *SHORT, *chosen, "--seed", 2, "--out", "runs")
    assert result.returncode == 0, result.stderr
    (info,) = (tmp_path / "runs").glob("*/run.json")
    spec = json.loads(info.read_text())["spec"]
    assert spec["seed"] == 2
    assert spec["train"]["epochs"] == 1
    assert spec["task"]["model"]["options"] == {"hidden": [4]}
    assert spec["task"]["data"]["options"] == {"fraction": 0.1, "shots": 9}
    assert result.stdout.count(", balanced 0.") == 3


def test_a_diverged_run_is_a_result(cli: Cli) -> None:
    result = cli("train", "--optimizer", "sgd", "--model", "mlp", "--set", "lr=1e30", *SHORT)
    assert result.returncode == 0, result.stderr
    assert "diverged" in result.stdout


def test_a_study_is_planned_counted_and_reported(cli: Cli, tmp_path: Path) -> None:
    assert "540 runs in all" in cli("study", "plan", "digits").stdout
    study = 'name = "s"\nseeds = 2\ntask = { data = "digits", model = "mlp" }\ntrain = { epochs = 1 }\n'
    arm = '[[arm]]\nname = "a"\noptimizer = { name = "sgd", lr = 0.1 }\ntune = { lr = [0.1, 1.0] }\n'
    (tmp_path / "s.toml").write_text(study + arm)
    run = cli("study", "run", "s.toml")
    assert run.returncode == 0, run.stderr
    assert "4 of 4 runs: 4 done, 0 diverged, 0 failed" in run.stdout
    assert "│ a   │ 4    │ 4    │" in cli("study", "status", "runs/s").stdout
    report = cli("report", "runs/s")
    assert report.returncode == 0, report.stderr
    assert (tmp_path / report.stdout.split("Report: ")[1].strip()).is_file()


def test_missing_data_are_refused_before_anything_runs(cli: Cli, tmp_path: Path) -> None:
    result = cli("study", "run", "insgd/table06-short", "--data-dir", tmp_path / "nowhere")
    assert result.returncode == 2
    for words in ("data_batch_1", "c99cafc152244af753f735de768cd75f", str(tmp_path / "nowhere"), "data prepare"):
        assert words in result.stderr
    assert not (tmp_path / "runs").exists()


def test_the_data_folder_is_the_option_else_the_variable_else_the_cache(cli: Cli, tmp_path: Path) -> None:
    variable = {"INSGD_LAB_DATA": str(tmp_path / "variable")}
    assert str(tmp_path / "option") in cli("data", "status", "--data-dir", tmp_path / "option", **variable).stdout
    assert str(tmp_path / "variable") in cli("data", "status", "cifar10", **variable).stdout
    assert str(tmp_path / "cache") in cli("data", "status", INSGD_LAB_DATA="").stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("optimizers", "show", "isngd-l1"), "unknown optimizer 'isngd-l1'; did you mean 'insgd-l1'"),
        (("optimizers", "isngd-l1"), "did you mean 'insgd-l1'"),
        (("optimizers", "z*"), "unknown optimizer 'z*'"),
        (("optimizers", "--plugin", "leaver"), "plugin module 'leaver' could not be imported (SystemExit: 0)"),
        (("study", "run", "digits", "--out", "file"), "--out file: file is a file; expected a folder"),
        (("study", "run", "digits", "--out", "file/x"), "--out file/x: {tmp}/file is a file; expected a folder"),
        (("train", "--optimizer", "sgd", "--out", "file"), "--out file: file is a file; expected a folder"),
        (("study", "status", "foreign"), "foreign/study.json is not a study as this version writes it (KeyError"),
        (("study", "run", "compared.toml"), "no published results of 'nope'; there are: "),
        (("study", "plan", "compared.toml"), "no published results of 'nope'; there are: "),
        (("data", "prepare", "cifar10", "--source", "file", "--data-dir", "file"), "file"),
        (("optimizers", "--plugin", "no_such_plugin"), "plugin module 'no_such_plugin' could not be imported"),
        (("train",), "no optimizer is named; add --optimizer NAME"),
        (("train", "--optimizer", "sgd", "--set", "lr"), "--set lr: expected KEY=VALUE"),
        (("train", "--optimizer", "sgd", "--set", "lr=-1"), "optimizer.lr = -1: expected a finite number >= 0"),
        (("train", "--optimizer", "sgd", "--set", "lr=fast"), 'optimizer.lr = "fast": expected a number'),
        (("train", "--optimizer", "sgd", "--set", "seed.x=1"), "optimizer.seed"),
        (("train", "--optimizer", "sgd", "--set", "train.epochs.x=1"), "train.epochs.x: epochs is not a table"),
        (("train", "--optimizer", "sgd", "--device", "tpu"), "device 'tpu' cannot be used"),
        (("train", "no.toml"), "no.toml: 1 problem"),
        (("train", "compared.toml", "--epochs", 1), "compared.toml is a study, as it has arms or a base"),
        (("train", "compared.toml"), "To train all of the study's runs: insgd-lab study run compared.toml"),
        (("study", "run", "digts"), "unknown study 'digts'; did you mean 'digits'?"),
        (("study", "plan", "no.toml"), "No such file or directory; check the path"),
        (("study", "run", "digits", "--workers", 0), "--workers"),
        (("study", "status", "nowhere"), "nowhere is not a study"),
        (("report", "nowhere"), "nowhere"),
        (("data", "status", "digit"), "unknown data set 'digit'; did you mean 'digits'?"),
        (("data", "prepare", "cifar10", "--source", "nowhere"), "nowhere is not there"),
        (("data", "prepare", "digits", "--source", "."), "has no files to prepare"),
        (("no-such-command",), "no-such-command"),
    ],
)
def test_bad_input_is_refused_with_a_message_and_no_traceback(
    cli: Cli, tmp_path: Path, arguments: tuple[object, ...], expected: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "leaver.py").write_text("raise SystemExit(0)")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "study.json").write_text('{"name": "of another program"}')
    (tmp_path / "compared.toml").write_text(TINY + 'compare = { paper = "nope", table = "1" }\n' + ARM)
    result = cli(*arguments, PYTHONPATH=str(tmp_path), INSGD_LAB_DATA=str(tmp_path / "no-data"))
    assert result.returncode == 2, result.stdout + result.stderr
    assert expected.format(tmp=tmp_path) in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [("study", "plan", "nosuch"), ("train", "--optimizer", "nosuch")])
def test_a_command_that_a_process_of_torchruns_has_started_tells_its_mistakes_itself(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    inherited = {"TORCHELASTIC_ERROR_FILE": str(tmp_path / "error.json"), "RANK": "0"}
    middle = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-m', 'insgd_lab', *sys.argv[1:]]))"
    result = subprocess.run(
        [sys.executable, "-c", middle, *command],
        env={**os.environ, **inherited}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "did you mean" in result.stderr or "known: " in result.stderr
    assert not (tmp_path / "error.json").exists()


def test_to_do_a_run_again_takes_the_folder_that_has_it(cli: Cli) -> None:
    result = cli("train", "--optimizer", "sgd", "--rerun", "stale")
    assert (result.returncode, result.stdout) == (2, "")
    assert "error: --rerun stale: without --out nothing is kept" in result.stderr


def test_a_run_that_is_being_trained_is_refused(cli: Cli, tmp_path: Path) -> None:
    arguments = ("train", "--optimizer", "sgd", "--model", "mlp", *SHORT, "--out", "runs")
    assert cli(*arguments).returncode == 0
    (run,) = StudyFolder(tmp_path / "runs").runs()
    run.write_info({**run.info(), "status": "running"})
    with run.locked():
        result = cli(*arguments)
    assert result.returncode == 2, result.stderr
    assert f"runs/{run.id} is being trained by another process" in result.stderr
    assert run.info()["status"] == "running"


def test_a_lone_image_in_front_of_batch_norm_is_refused(cli: Cli) -> None:
    settings = ("--set", "train.batch_size=17", "--set", "task.model.batch_norm=true")  # 120 images: 7 x 17 + 1
    result = cli("train", "--optimizer", "sgd", "--model", "mlp", *SHORT, *settings)
    assert result.returncode == 2, result.stderr
    assert "train.batch_size = 17: leaves a batch of one of the 120 training images" in result.stderr


def test_a_run_that_raises_ends_with_a_line_that_says_so(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "buggy.py").write_text(
        "import torch\nfrom insgd_lab import register_optimizer\n\n"
        "@register_optimizer('buggy')\nclass Buggy(torch.optim.SGD):\n"
        "    def __init__(self, model, lr=0.1):\n        super().__init__(model.parameters(), lr=lr)\n"
        "    def step(self, closure=None):\n        raise RuntimeError('lost its way')\n"
    )
    result = cli("train", "--optimizer", "buggy", "--plugin", "buggy", "--out", "runs", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: training with buggy failed: RuntimeError: lost its way; runs/")
    assert "run.json says so too" in last
    assert 'buggy.py", line' in result.stderr, "where, for the author"
