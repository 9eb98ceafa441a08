"""What is timed side by side does the same."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import loops, plain_loop
from benchmarks.networks import build
from benchmarks.pairing import Code, Row, compare
from benchmarks.report import Measured
from insgd_lab.training.augmentation import Normalize, crop_and_flip

NORMALIZE = Normalize(255.0, plain_loop.MEAN, plain_loop.STD)


def picture(seed: int = 0) -> tuple[torch.Tensor, Image.Image]:
    """The same random picture as the harness and as PIL has it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None], Image.fromarray(pixels)


def test_both_normalise_alike() -> None:
    mine, plain = picture()
    torch.testing.assert_close(plain_loop.normalising()(plain)[None], NORMALIZE(mine), rtol=0, atol=1e-5)


def test_the_plain_loop_draws_among_the_crops_and_mirrors_of_the_harness() -> None:
    mine, plain = picture()
    offsets = torch.cartesian_prod(torch.arange(9), torch.arange(9)).repeat(2, 1)
    flips = torch.arange(162) >= 81
    known = NORMALIZE(crop_and_flip(mine.expand(162, -1, -1, -1), offsets, flips))
    transform = plain_loop.augmenting()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = torch.stack([transform(plain) for _ in range(100)])
    distances = (drawn[:, None] - known).abs().amax((2, 3, 4))
    nearest, which = distances.min(1)
    assert float(nearest.max()) < 1e-5
    assert {bool(flip) for flip in flips[which]} == {False, True}
    assert {int(top) for top in offsets[which][:, 0]} == set(range(9))


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("name", loops.OPTIMIZERS)
def test_both_learn_the_same_from_the_same_batches(name: str) -> None:
    training = loops.training(name, "cpu", images=256)
    training.model.double()  # in float32, steps as AdamNorm's first one turn with the sign of rounding errors
    start = weights(training.model)
    model = build("ResNet-20").double()
    model.load_state_dict(training.model.state_dict())
    data = plain_loop.Pictures(np.zeros((1, 32, 32, 3), np.uint8), [0], plain_loop.normalising())
    loop = plain_loop.PlainLoop(model, lambda net: loops.plain_rule(name, net), data)
    stream = torch.Generator().manual_seed(0)
    for _ in range(4):
        images = torch.randn(8, 3, 32, 32, generator=stream, dtype=torch.float64)
        labels = torch.randint(10, (8,), generator=stream)
        training.step(images, labels, training.tally, 8)
        loop.step(images, labels)
    way = weights(training.model) - start
    assert float((weights(model) - weights(training.model)).norm() / way.norm()) < 1e-4


def test_the_plain_loop_reads_every_picture_once_an_epoch() -> None:
    seen: list[int] = []
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 10))
    data = plain_loop.Pictures(np.arange(15, dtype=np.uint8).reshape(5, 1, 1, 3), [0] * 5, plain_loop.normalising())
    loop = plain_loop.PlainLoop(model, lambda net: torch.optim.SGD(net.parameters(), lr=0.0), data, batch_size=2)
    model.register_forward_hook(lambda module, given, output: seen.extend(given[0][:, 0].flatten().tolist()))
    loss, accuracy = loop.epoch()
    assert len(set(seen)) == len(seen) == 5
    assert 0 < loss < 10
    assert 0 <= accuracy <= 1


def test_rows_tell_images_per_second_and_memory() -> None:
    clock = iter(range(1000))

    def tick() -> float:
        return float(next(clock))

    timed = Row("group", "epoch: a / b", lambda: (Code(lambda: 0), Code(lambda: 0)), 0.5, images=256)
    record = Measured(timed, compare(timed, 5, tick)).record()
    assert (record["a_ms"], record["a_images_per_second"], record["ratio"]) == (1000, 256, 1)
    sized = Row("group", "peak: a / b", lambda: (Code(lambda: 3 << 20), Code(lambda: 2 << 20)), 1.05, memory=True)
    record = Measured(sized, compare(sized, 5)).record()
    assert (record["a_mib"], record["b_mib"], record["ratio"], record["verdict"]) == (3, 2, 1.5, "missed")
