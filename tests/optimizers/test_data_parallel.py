"""Two processes, each with its half of the batch, take the steps of one process with all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import insgd_lab as lab

from . import toys
from .zoo import images, zoo

STEPS, BATCH = 3, 8

RANK = """
import sys, warnings
import torch, torch.distributed as dist
import insgd_lab as lab
from insgd_lab.sensors import InputSensor
rank, meeting, output, folder, steps, batch, *names = sys.argv[1:]
sys.path.append(folder)
from zoo import images, zoo
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + meeting, rank=int(rank), world_size=2)
mine = slice(int(rank), None, 2)

def parallel():
    return torch.nn.parallel.DistributedDataParallel(zoo())

def trained(ddp, optimizer):
    for x in images(0, int(steps), int(batch)):
        optimizer.zero_grad()
        ddp(x[mine]).square().mean().backward()
        optimizer.step()
    return [p.detach() for p in ddp.parameters()]

found = {}
for name in names:
    ddp = parallel()
    found[name] = trained(ddp, lab.create_optimizer(name, ddp, lr=0.01))
    if lab.get_optimizer(name).capabilities.reads_inputs:
        ddp = parallel()
        optimizer = lab.create_optimizer(name, ddp.module, lr=0.01, process_group=dist.group.WORLD)
        found[name + " with a group"] = trained(ddp, optimizer)

class Branch(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.always, self.first = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.always(x) + (self.first(x) if rank == "0" else 0)

for name in names:
    if lab.get_optimizer(name).capabilities.reads_inputs:
        torch.manual_seed(0)
        ddp = torch.nn.parallel.DistributedDataParallel(Branch(), find_unused_parameters=True)
        optimizer = lab.create_optimizer(name, ddp)
        ddp(torch.ones(1, 2) * (1 + int(rank))).sum().backward()
        optimizer.step()
        powers = [slots["log_power"] for slots in optimizer.state.values() if "log_power" in slots]
        found[name + " in a branch"] = [*(p.detach() for p in ddp.parameters()), *powers]
        torch.manual_seed(0)
        ddp = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2)).eval()
        optimizer = lab.create_optimizer(name, ddp, lr=0.5)
        ddp(torch.ones(1, 2)).sum().backward()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.step()
        assert ["was not measured" in str(warning.message) for warning in caught] == [True]
        found[name + " unmeasured"] = [p.detach() for p in ddp.parameters()]
ddp = parallel()
assert InputSensor(torch.compile(ddp, backend="eager"))._process_group is ddp.process_group
torch.save(found, output)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two ends with: parameters by rule."""
    folder = tmp_path_factory.mktemp("ranks")
    outputs = [folder / f"rank{rank}.pt" for rank in range(2)]
    common = [str(Path(__file__).parent), str(STEPS), str(BATCH), *toys.ALL]
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", RANK, str(rank), str(folder / "meet"), str(output), *common]
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(output, weights_only=True) for output in outputs]


@pytest.mark.parametrize("name", [*toys.ALL, *(f"{name} with a group" for name in toys.MEASURING)])
def test_two_processes_take_the_steps_of_one(name: str, ranks: list[dict[str, Any]]) -> None:
    model = zoo()
    optimizer = lab.create_optimizer(name.removesuffix(" with a group"), model, lr=0.01)
    toys.train(model, optimizer, images(0, STEPS, BATCH))
    first, second = (rank[name] for rank in ranks)
    toys.assert_same(first, second)
    toys.assert_near(toys.parameters(model), first, 1e-8)


@pytest.mark.parametrize("name", toys.MEASURING)
def test_a_layer_that_one_process_used_has_the_power_that_it_measured(name: str, ranks: list[dict[str, Any]]) -> None:
    first, second = (rank[f"{name} in a branch"] for rank in ranks)
    for left, right in zip(first, second, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
    options = lab.get_optimizer(name).defaults
    if not options.get("center", True) and options["power"] and options["p"] == 2:
        always, _, branch, _ = (power.exp() for power in first[4:])
        assert [always.item(), branch.item()] == pytest.approx([(2 + 8) / 2, 2.0])


@pytest.mark.parametrize("name", toys.MEASURING)
def test_a_layer_that_no_process_measured_takes_scale_1(name: str, ranks: list[dict[str, Any]]) -> None:
    torch.manual_seed(0)
    start = [p.detach() for p in torch.nn.Linear(2, 2).parameters()]
    for rank in ranks:
        toys.assert_near(rank[f"{name} unmeasured"], [p - 0.5 for p in start], 1e-6)
