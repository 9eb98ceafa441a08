"""Images that are read from their files batch by batch, in worker processes, because they are too many to hold.

What is drawn for an image depends on the seed, the epoch and the image alone, not on who decodes it: any number of
workers gives the same batches, and an epoch can go on from any of them.

>>> data = imagenet("/data")
>>> feed = data.feed(BatchPlan(seed=0, batch_size=256, eval_batch_size=256, augment=True, device=cuda, loaders=8))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from insgd_lab.training.augmentation import Normalize
from insgd_lab.training.decoding import fitted, pixels, read_rgb
from insgd_lab.training.feeds import BatchPlan
from insgd_lab.training.files import DataError
from insgd_lab.training.image_folders import ImageFiles
from insgd_lab.training.objectives import Classification
from insgd_lab.training.streams import derive, generator
from insgd_lab.training.vision import transforms

__all__ = ["MEAN", "STD", "StreamedFeed", "StreamedSplits"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images per channel, on the [0, 1] scale, as PyTorch's ImageNet code has them."""

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class StreamedSplits:
    """A classification set whose images stay in their files; equal only to itself.

    Attributes:
        name: the registry's name of the set.
        train: the images to train on; val: those to choose on; test: those to report on.
        size: height and width of what the model sees, cut from the middle in evaluation.
        shorter: what an image's shorter side is resized to before.
        fingerprint: a digest of the names and sizes of all the set's files, by which other images are noticed.
        by_class: whether the metrics tell the classes apart.
    """

    name: str
    train: ImageFiles
    val: ImageFiles
    test: ImageFiles
    size: int
    shorter: int
    fingerprint: str
    by_class: bool = False

    @property
    def classes(self) -> int:
        """Number of classes; labels run from 0."""
        return len(self.train.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height, width."""
        return (3, self.size, self.size)

    def feed(self, plan: BatchPlan) -> StreamedFeed:
        """The batches of a run.

        Raises:
            VisionError: training images are to be augmented, and torchvision cannot be imported.
        """
        return StreamedFeed(self, plan)

    def objective(self, label_smoothing: float = 0.0) -> Classification:
        """The cross-entropy."""
        return Classification(self.classes, tell_classes=self.by_class, label_smoothing=label_smoothing)


class StreamedFeed:
    """The batches of one run, as in `feeds.Feed`.

    With `augment` a training image is torchvision's RandomResizedCrop (8 % to all of its area, at 3:4 to 4:3) and
    mirrored in half of the cases, as in PyTorch's ImageNet code; without, and in evaluation, it is resized and its
    middle cut out.
    """

    def __init__(self, data: StreamedSplits, plan: BatchPlan) -> None:
        self.data, self.plan = data, plan
        self.normalize = Normalize(255.0, MEAN, STD, plan.device)
        self.augment = _augmentation(data.size) if plan.augment else None

    @property
    def examples(self) -> int:
        """Training images."""
        return len(self.data.train)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Pair]:
        """As in `Feed`.

        Raises:
            DataError: an image cannot be read.
        """
        order = torch.randperm(self.examples, generator=generator(self.plan.seed, f"order, epoch {epoch}"))
        draws = None if self.augment is None else Draws(self.augment, self.plan.seed, epoch)
        batches = torch.split(order, self.plan.batch_size)[first:]
        return self._batches(self.data.train, batches, draws)

    def evaluate(self, split: str) -> Iterator[Pair]:
        """As in `Feed`.

        Raises:
            DataError: an image cannot be read.
        """
        part = {"val": self.data.val, "test": self.data.test}[split]
        return self._batches(part, torch.split(torch.arange(len(part)), self.plan.eval_batch_size), None)

    def _batches(self, images: ImageFiles, batches: Sequence[Tensor], draws: Draws | None) -> Iterator[Pair]:
        plan = self.plan
        loader: DataLoader[Any] = DataLoader(
            _Reader(images, self.data.shorter, self.data.size, draws),
            batch_size=None,  # the reader takes and gives whole batches
            sampler=[batch[plan.rank :: plan.ranks].tolist() for batch in batches],
            num_workers=plan.loaders,
            pin_memory=plan.device.type == "cuda",
            generator=torch.Generator(),  # else the loader draws its workers' seeds from the stream of dropout
        )
        for found in loader:
            if isinstance(found, _Unreadable):
                raise DataError(found.message)
            pictures, labels = (tensor.to(plan.device, non_blocking=True) for tensor in found)
            yield self.normalize(pictures), labels


@dataclass(frozen=True)
class Draws:
    """What is done at random to the images of an epoch: the transform, and the address of what it draws."""

    transform: Callable[[Image.Image], Image.Image]
    seed: int
    epoch: int

    def __call__(self, image: Image.Image, row: int) -> Image.Image:
        """The image of that row, transformed."""
        with _drawn_from(self.seed, f"augmentation, epoch {self.epoch}, image {row}"):
            return self.transform(image)


@contextmanager
def _drawn_from(seed: int, purpose: str) -> Iterator[None]:
    """Run a block on the CPU's global generator, which torchvision draws from, and put the caller's state back.

    Unlike `torch.manual_seed` this leaves the generators of other devices, which dropout draws from, alone.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(derive(seed, purpose))
    try:
        yield
    finally:
        torch.set_rng_state(state)


@dataclass(frozen=True)
class _Unreadable:
    """A file that could not be read: a message, because an error from a worker would bring its traceback along."""

    message: str


class _Reader(Dataset[Any]):
    """Decodes the images of a batch of rows, in whichever process it is called: uint8 [B, 3, size, size], labels."""

    def __init__(self, images: ImageFiles, shorter: int, size: int, draws: Draws | None) -> None:
        self.images, self.shorter, self.size, self.draws = images, shorter, size, draws

    def __getitem__(self, rows: list[int]) -> Pair | _Unreadable:
        batch = torch.empty((len(rows), 3, self.size, self.size), dtype=torch.uint8)
        try:
            for place, row in enumerate(rows):
                batch[place] = torch.from_numpy(pixels(self._image(row)))
        except DataError as error:
            return _Unreadable(str(error))
        return batch, torch.from_numpy(self.images.labels[rows])

    def _image(self, row: int) -> Image.Image:
        image = read_rgb(self.images.path(row))
        return fitted(image, self.shorter, self.size) if self.draws is None else self.draws(image, row)


def _augmentation(size: int) -> Callable[[Image.Image], Image.Image]:
    v2 = transforms()
    augment: Callable[[Image.Image], Image.Image] = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()])
    return augment
