"""Print every ratio against its target (the Speed table of the design), one compute thread."""

from __future__ import annotations

import argparse
import fnmatch
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

import insgd_lab as lab
from benchmarks.pairing import Ratio, compare
from insgd_lab.training.models import resnet20

Step = Callable[[], None]
Make = Callable[[torch.nn.Module], Any]


@dataclass(frozen=True)
class Row:
    """One ratio: what is compared, how often it repeats within a timing, and the highest ratio allowed."""

    name: str
    pair: Callable[[], tuple[Step, Step]]
    target: float | None = None
    repeats: int = 1


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return resnet20((3, 32, 32), 10)


def training_step(make: Make, every: int | None = None) -> Step:
    """Forward, backward and step of ResNet-20 on a batch of 128, recorded every n-th step if asked."""
    net = model()
    optimizer = make(net)
    if every is not None:
        lab.Recorder(net, optimizer, every=every)
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return run


def bare_step(make: Make) -> Step:
    """``step()`` alone over ResNet-20's 65 tensors, with gradients (and powers) from one real backward pass."""
    net = model()
    optimizer = make(net)
    F.cross_entropy(net(torch.randn(8, 3, 32, 32)), torch.randint(10, (8,))).backward()
    run: Step = optimizer.step
    return run


def torch_sgd(net: torch.nn.Module) -> Any:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, foreach=True)


def torch_adam(net: torch.nn.Module) -> Any:
    return torch.optim.Adam(net.parameters(), foreach=True)


def insgd(**options: Any) -> Make:
    return lambda net: lab.INSGD(net, lr=0.1, weight_decay=5e-4, **options)


def lab_sgd(net: torch.nn.Module) -> Any:
    return lab.SGD(net, lr=0.1, momentum=0.9, weight_decay=5e-4)


def rows() -> Iterator[Row]:
    """All ratios; those without a target are reported beside the others."""
    settings: list[tuple[dict[str, Any], float | None]] = [
        ({"p": 2}, 1.05), ({"p": 1}, 1.05), ({"p": math.inf}, None), ({"granularity": "channel"}, None),
        ({"granularity": "neuron"}, None), ({"center": True}, None),
    ]  # fmt: skip
    for options, target in settings:
        words = ", ".join(f"{key}={value}" for key, value in options.items())
        yield Row(
            f"training step: INSGD({words}) / torch SGD",
            lambda options=options: (training_step(insgd(**options)), training_step(torch_sgd)),  # type: ignore[misc]
            target,
        )
    yield Row(
        "training step: Recorder(every=10) / none",
        lambda: (training_step(torch_sgd, every=10), training_step(torch_sgd)), 1.02, repeats=10,
    )  # fmt: skip
    steps: list[tuple[str, Make, Make, float]] = [
        ("SGD / torch SGD", lab_sgd, torch_sgd, 1.3),
        ("INSGD without sensor / torch SGD", insgd(), torch_sgd, 1.3),
        ("Adam / torch Adam", lambda net: lab.Adam(net), torch_adam, 1.1),
        ("AdamNorm / torch Adam", lambda net: lab.AdamNorm(net), torch_adam, 1.1),
    ]
    for name, ours, theirs, target in steps:
        yield Row(
            f"step(): {name}",
            lambda ours=ours, theirs=theirs: (bare_step(ours), bare_step(theirs)),  # type: ignore[misc]
            target,
            repeats=20,
        )


def main() -> None:
    """Measure the rows whose name matches and print them as they come."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="rows to measure, e.g. 'step()*' (default: all)")
    parser.add_argument("--pairs", type=int, default=30, help="interleaved pairs a row (default: 30)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    console.print(
        f"ResNet-20, batch 128, float32, one thread; torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}; median of {arguments.pairs} interleaved pairs with its 95 % interval"
    )
    table = Table("ratio", "A (ms)", "B (ms)", "A / B", "95 % interval", "target", "verdict")
    for row in rows():
        if fnmatch.fnmatch(row.name, arguments.pattern):
            console.print(f"measuring {row.name} …", highlight=False)
            table.add_row(*cells(row, compare(*row.pair(), arguments.pairs, row.repeats)))
    console.print(table)


def cells(row: Row, ratio: Ratio) -> list[str]:
    """A table row in words."""
    milliseconds = [f"{1e3 * seconds:.3g}" for seconds in ratio.seconds]
    return [
        row.name, *milliseconds, f"{ratio.median:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}",
        "" if row.target is None else f"<= {row.target}", ratio.verdict(row.target),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
