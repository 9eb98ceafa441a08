import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from insgd_lab.config import RunSpec
from insgd_lab.training.augmentation import Normalize
from insgd_lab.training.feeds import BatchPlan, ResidentFeed
from insgd_lab.training.files import DataError
from insgd_lab.training.folder_data import image_folder
from insgd_lab.training.loop import train
from insgd_lab.training.streaming import MEAN, STD, StreamedFeed, StreamedSplits
from insgd_lab.training.streams import generator

from .pictures import STEP, each, pictures

pytestmark = [
    pytest.mark.usefixtures("vision"),
    # Since Python 3.12 a process with threads may not fork in silence, which is how torch starts workers.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

CPU = torch.device("cpu")
PLAN = BatchPlan(seed=3, batch_size=7, eval_batch_size=4, augment=True, device=CPU)


@pytest.fixture
def fruit(tmp_path: Path) -> Path:
    return pictures(tmp_path / "fruit", each(10))


@pytest.fixture
def data(fruit: Path) -> StreamedSplits:
    """Twenty-four pictures to train, three each to choose and to report on."""
    found = image_folder(path=str(fruit), size=16, stream=True)
    assert isinstance(found, StreamedSplits)
    return found


def levels(inputs: torch.Tensor) -> torch.Tensor:
    """Undo the normalisation."""
    return inputs * 255 * torch.tensor(STD).view(3, 1, 1) + 255 * torch.tensor(MEAN).view(3, 1, 1)


def same(one, two) -> bool:
    one, two = ([tensor for pair in pairs for tensor in pair] for pairs in (one, two))
    return len(one) == len(two) and all(map(torch.equal, one, two))


@pytest.mark.parametrize("augment", [False, True])
def test_an_epoch_gives_every_image_once_with_its_label(data, augment):
    feed = data.feed(replace(PLAN, augment=augment))
    batches = list(feed.epoch(1))
    assert feed.examples == 24
    assert [len(labels) for _, labels in batches] == [7, 7, 7, 3]
    for inputs, labels in batches:
        assert inputs.dtype == torch.float32
        assert inputs.shape == (len(labels), 3, 16, 16)
        red = levels(inputs)[:, 0]
        torch.testing.assert_close(red, (STEP * labels)[:, None, None].expand_as(red).float(), atol=1e-3, rtol=0)
    labels = torch.cat([labels for _, labels in batches])
    assert labels.bincount().tolist() == [8] * 3


@pytest.mark.parametrize("augment", [False, True])
def test_any_number_of_workers_gives_the_same_batches(data, augment):
    alone, helped = (data.feed(replace(PLAN, augment=augment, loaders=loaders)) for loaders in (0, 2))
    assert same(alone.epoch(2), helped.epoch(2))
    assert same(alone.evaluate("test"), helped.evaluate("test"))


@pytest.mark.parametrize("loaders", [0, 2])
def test_an_epoch_goes_on_from_any_batch_as_if_it_had_never_stopped(data, loaders):
    whole = list(data.feed(PLAN).epoch(5))
    for first in range(5):
        assert same(whole[first:], data.feed(replace(PLAN, loaders=loaders)).epoch(5, first))


def test_what_is_drawn_hangs_on_the_seed_and_the_epoch(data):
    feed = data.feed(PLAN)
    assert same(feed.epoch(1), feed.epoch(1))
    assert not same(feed.epoch(1), feed.epoch(2))
    assert not same(feed.epoch(1), data.feed(replace(PLAN, seed=4)).epoch(1))


def test_an_image_is_drawn_the_same_wherever_it_stands_in_a_batch(data):
    by_size = [torch.cat([x for x, _ in data.feed(replace(PLAN, batch_size=size)).epoch(1)]) for size in (7, 24)]
    assert torch.equal(*by_size)


def test_ranks_share_every_batch_row_by_row(data):
    for name in ("epoch", "evaluate"):
        argument = 1 if name == "epoch" else "val"
        whole = list(getattr(data.feed(PLAN), name)(argument))
        parts = [list(getattr(data.feed(replace(PLAN, rank=r, ranks=4)), name)(argument)) for r in range(4)]
        assert all(len(part) == len(whole) for part in parts)  # a rank gets an empty part where there is none for it
        for k, (inputs, labels) in enumerate(whole):
            for r, part in enumerate(parts):
                assert torch.equal(part[k][0], inputs[r::4])
                assert torch.equal(part[k][1], labels[r::4])


def test_the_streams_of_others_are_left_alone(data):
    state = torch.get_rng_state()
    for loaders in (0, 2):
        feed = data.feed(replace(PLAN, loaders=loaders))
        list(feed.epoch(1))
        list(feed.evaluate("val"))
        assert torch.equal(torch.get_rng_state(), state)


def test_without_augmentation_images_are_those_that_are_held(fruit, data):
    plan = replace(PLAN, augment=False)
    held = image_folder(path=str(fruit), size=16).feed(plan)
    assert isinstance(held, ResidentFeed)
    assert same(data.feed(plan).epoch(1), held.epoch(1))
    for split in ("val", "test"):
        assert same(data.feed(plan).evaluate(split), held.evaluate(split))


def test_augmented_images_are_torchvisions_random_crops(data):
    from torchvision.transforms import v2

    from insgd_lab.training.decoding import read_rgb

    row = int(torch.randperm(24, generator=generator(3, "order, epoch 1"))[0])
    image = read_rgb(data.train.path(row))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(3, f"augmentation, epoch 1, image {row}").initial_seed())
        theirs = v2.Compose([v2.RandomResizedCrop(16), v2.RandomHorizontalFlip(), v2.PILToTensor()])(image)
    inputs, _ = next(iter(data.feed(PLAN).epoch(1)))
    assert torch.equal(inputs[0], Normalize(255.0, MEAN, STD)(theirs[None])[0])


def test_evaluation_is_not_augmented_and_in_order(data):
    feed = data.feed(PLAN)
    assert same(feed.evaluate("val"), data.feed(replace(PLAN, augment=False)).evaluate("val"))
    assert torch.cat([labels for _, labels in feed.evaluate("test")]).tolist() == data.test.labels.tolist()


@pytest.mark.parametrize("loaders", [0, 2])
@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_file_that_goes_bad_in_the_middle_of_training_is_named(data, loaders, content):
    bad = data.train.path(11)
    bad.write_bytes(content)
    feed = data.feed(replace(PLAN, loaders=loaders))
    with pytest.raises(DataError, match=rf"^{re.escape(str(bad))} is (empty|not an image)$"):
        list(feed.epoch(1))
    os.unlink(bad)
    with pytest.raises(DataError, match=rf"^{re.escape(str(bad))} cannot be read \(No such file or directory\)$"):
        list(feed.epoch(1))


def test_a_feed_that_is_left_in_the_middle_can_be_read_again(data):
    feed = data.feed(replace(PLAN, loaders=2))
    for _ in feed.epoch(1):
        break
    assert same(feed.epoch(1), data.feed(PLAN).epoch(1))


def test_the_objective_tells_the_classes_apart_where_that_is_asked_for(fruit):
    for shots in (None, 2):
        found = image_folder(path=str(fruit), size=16, stream=True, shots=shots)
        tally = found.objective().tally("cpu")
        tally.add(torch.eye(3), torch.arange(3))
        assert ("balanced_accuracy" in tally.metrics()) == (shots is not None)


def test_a_run_is_the_same_with_workers_and_without(fruit):
    spec = RunSpec.model_validate(
        {
            "task": {
                "data": {"name": "image-folder", "path": str(fruit), "size": 16, "stream": True},
                "model": {"name": "custom-cnn", "batch_norm": False},  # with dropout
            },
            "train": {"epochs": 2, "batch_size": 8, "augment": True},
            "optimizer": {"name": "sgd", "lr": 0.01},
        }
    )
    alone, helped = train(spec), train(spec, loaders=2)
    assert alone.metrics.equals(helped.metrics)
    parameters = zip(alone.model.parameters(), helped.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in parameters)
    assert isinstance(image_folder(path=str(fruit), size=16, stream=True).feed(PLAN), StreamedFeed)
