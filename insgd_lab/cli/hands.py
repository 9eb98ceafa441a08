"""With what `study run` works a study off: worker processes of its own, or Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from insgd_lab.cli.common import check_data, check_device, refuse

if TYPE_CHECKING:
    from insgd_lab.config import RunSpec, StudySpec
    from insgd_lab.store import StudyFolder
    from insgd_lab.studies.ledger import Tally
    from insgd_lab.studies.planning import Plan

__all__ = ["Engine", "Hands", "RayAddress", "Retries", "Workers", "cores", "local_workers", "use_ray"]

Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes, or tasks of Ray. Default: as many as there is room for.")
]
Engine = Annotated[
    Literal["local", "ray"] | None,
    typer.Option("--executor", help="Processes of its own (local, the default), or a Ray on this machine."),
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Use this Ray cluster: HOST:PORT, ray://HOST:PORT or auto."),
]
Retries = Annotated[int, typer.Option(min=0, help="How often a run whose worker dies is tried again.")]


@dataclass(frozen=True)
class Hands:
    """Who works a study off, and with what.

    Attributes:
        workers: how many at a time; None: as many as there is room for.
        device: "cpu", "cuda" or "cuda:1".
        data_dir: the folder of the data sets.
        loaders: processes beside each worker that decode images.
        retries: how often a run whose worker dies is tried again.
        ray: whether Ray does it.
        address: of its cluster; None starts one.
    """

    workers: int | None
    device: str
    data_dir: Path | None
    loaders: int
    retries: int
    ray: bool
    address: str | None

    def check(self, runs: Collection[RunSpec], study: StudySpec) -> None:
        """Refuse what cannot train these runs; of their study the arms are named."""
        if self.ray:
            self._check_ray(runs, study)
        if self.address is None:  # else it is the devices and the data of the cluster's machines that count
            check_device(self.device)
            check_data(runs, self.data_dir)

    def _check_ray(self, runs: Iterable[RunSpec], study: StudySpec) -> None:
        from insgd_lab.studies.ray_address import check_answers
        from insgd_lab.studies.ray_executor import require_ray

        if self.device not in ("cpu", "cuda"):
            refuse(f"--device {self.device}: on Ray a run has the GPU that it is given; expected cuda or cpu")
        if self.device == "cpu" and any(run.resources.gpus for run in runs):
            who, settings = _asking_for_gpus(study)
            refuse(f"{who} for GPUs, and --device is cpu; give --device cuda, or {settings}")
        require_ray()
        if self.address is not None:
            check_answers(self.address)

    def described(self, plan: Plan) -> str:
        """Them in words."""
        if not self.ray:
            count = self._count(plan)
            return f"{count} worker{'s' * (count > 1)}"
        where = "a Ray of its own" if self.address is None else f"Ray at {self.address}"
        return where if self.workers is None else f"{where}, at most {self.workers} tasks at a time"

    def execute(self, plan: Plan, folder: StudyFolder, number: int, on_change: Callable[[Tally], None]) -> Tally:
        """Work off a plan; `number` is this process's among those at work on the study."""
        if self.ray:
            from insgd_lab.studies import ray_executor

            return ray_executor.execute(
                plan, folder, address=self.address, workers=self.workers, cores=cores(), device=self.device,
                data_dir=self._shared_data(), loaders=self.loaders, number=number, retries=self.retries,
                on_change=on_change,
            )  # fmt: skip
        from insgd_lab.studies import executor

        return executor.execute(
            plan, folder, workers=self._count(plan), device=self.device, data_dir=self.data_dir, loaders=self.loaders,
            number=number, retries=self.retries, gpus=_gpus(self.device), on_change=on_change,
        )  # fmt: skip

    def _shared_data(self) -> Path | None:
        """The folder of data sets that nodes are told of: this process's variables are not theirs."""
        from insgd_lab.training.files import DATA_VARIABLE

        chosen = self.data_dir or os.environ.get(DATA_VARIABLE)
        return Path(chosen).expanduser() if chosen else None

    def _count(self, plan: Plan) -> int:
        if self.workers is None:
            return local_workers(plan, self.device)
        return max(1, min(self.workers, len(plan.runs)))


def _asking_for_gpus(study: StudySpec) -> tuple[str, str]:
    """Who asks for GPUs, and the options with which nobody does."""
    from insgd_lab.studies.placement import settings_over

    arms = [arm for arm in study.arm if study.resources_of(arm).gpus]
    names = ", ".join(arm.name for arm in arms)
    return f"the study asks (in {names})", settings_over(arms, "gpus", 0)


def use_ray(engine: str | None, address: str | None) -> bool:
    """Whether the two options ask for Ray; refuse what is no address, and options that contradict each other."""
    if engine == "local" and address is not None:
        refuse(f"--executor local and --ray {address} contradict each other; give one of them")
    if address is not None:
        from insgd_lab.studies.ray_address import place_of

        try:
            place_of(address)
        except ValueError as error:
            refuse(f"--ray {address}: {error}")
    return engine == "ray" or address is not None


def local_workers(plan: Plan, device: str) -> int:
    """How many workers there are on this machine if nobody says."""
    from insgd_lab.studies.placement import demand_of, worker_count

    demand = demand_of(plan.runs.values())
    return worker_count(demand, device, cores=cores(), gpus=_gpus(device), runs=len(plan.runs))


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus(device: str) -> int:
    if not device.startswith("cuda"):
        return 0
    import torch

    return torch.cuda.device_count()
