"""A plain PyTorch loop, as the papers' public training scripts have it: what the harness is measured beside.

A DataLoader in the same process reads pictures as torchvision's CIFAR-10 does, one PIL image after the other, through
torchvision's transforms; forward hooks keep what each layer was fed; the rule is a loop over parameters in Python; loss
and accuracy are asked for at every step. It computes what the harness computes: Algorithm 1 of INSGD, AdamNorm, and
torch's own SGD. Nothing slows it down on purpose; the INSGD scripts standardise every plane of every input besides,
which is left out.

Where torchvision cannot be imported (the index's torchvision wants CUDA, whatever the torch), the same operations are
done with PIL and torch, as torchvision does them but for its checks, in about two thirds of its time; `TRANSFORMS`
says which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from insgd_lab.training import vision

__all__ = ["INSGD", "TRANSFORMS", "AdamNorm", "Pictures", "PlainLoop", "augmenting", "keep_inputs", "normalising"]

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PADDING = 4

Transform = Callable[[Any], Any]

try:
    vision.torchvision()
except vision.VisionError:
    TRANSFORMS = "PIL"
else:
    from torchvision import transforms as T

    TRANSFORMS = "torchvision"


# ------------------------------------------------------------------------------------------------- pictures


class Pictures(Dataset[tuple[Tensor, int]]):
    """Pictures uint8 [N, H, W, 3] with their labels, each made a PIL image and transformed when asked for."""

    def __init__(self, images: NDArray[np.uint8], labels: list[int], transform: Transform) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def augmenting(size: int = 32) -> Transform:
    """Crop, mirror, make a normalised tensor of it."""
    if TRANSFORMS == "torchvision":
        return _composed(T.RandomCrop(size, padding=PADDING), T.RandomHorizontalFlip(), normalising())
    return _composed(_random_crop, _random_flip, normalising())


def normalising() -> Transform:
    """Make a normalised tensor of a picture."""
    if TRANSFORMS == "torchvision":
        return _composed(T.ToTensor(), T.Normalize(MEAN, STD))
    return _composed(_to_tensor, _normalise)


def _composed(*steps: Transform) -> Transform:
    def transform(picture: Any) -> Any:
        for step in steps:
            picture = step(picture)
        return picture

    return transform


def _random_crop(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    padded = ImageOps.expand(picture, border=PADDING, fill=0)
    top = int(torch.randint(0, 2 * PADDING + 1, (1,)).item())
    left = int(torch.randint(0, 2 * PADDING + 1, (1,)).item())
    return padded.crop((left, top, left + width, top + height))


def _random_flip(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else picture


def _to_tensor(picture: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
    return pixels.permute(2, 0, 1).contiguous().float().div(255)


def _normalise(picture: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN).view(-1, 1, 1), torch.tensor(STD).view(-1, 1, 1)
    return picture.clone().sub_(mean).div_(std)


# ---------------------------------------------------------------------------------------------------- rules


def keep_inputs(model: nn.Module) -> dict[Tensor, Tensor]:
    """What each convolution and linear layer was fed last, by its weight: hooks keep it."""
    inputs: dict[Tensor, Tensor] = {}

    def hook(module: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
        inputs[module.weight] = given[0].detach()

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(hook)
    return inputs


class INSGD(torch.optim.Optimizer):
    """Algorithm 1 with p = 1: gradients over max(log P, eps), P the running mean of ||x||_1."""

    def __init__(
        self, model: nn.Module, lr: float, momentum: float = 0.9, weight_decay: float = 5e-4, beta: float = 0.9
    ) -> None:
        self.inputs = keep_inputs(model)
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "beta": beta, "eps": 0.01}
        super().__init__(model.parameters(), defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Step on every parameter in turn."""
        for group in self.param_groups:
            for param in group["params"]:
                grad, state = param.grad, self.state[param]
                if param in self.inputs:
                    power = self.inputs[param].flatten(1).abs().sum(1).mean()
                    if "power" in state:
                        power = group["beta"] * state["power"] + (1 - group["beta"]) * power
                    state["power"] = power
                    grad = grad / torch.clamp(torch.log(power), min=group["eps"])
                grad = grad.add(param, alpha=group["weight_decay"])
                if "momentum_buffer" in state:
                    state["momentum_buffer"].mul_(group["momentum"]).add_(grad, alpha=1 - group["momentum"])
                else:
                    state["momentum_buffer"] = grad.clone()
                param.add_(state["momentum_buffer"], alpha=-group["lr"])


class AdamNorm(torch.optim.Optimizer):
    """Adam whose first moment takes gradients lengthened to their mean norm where they are shorter."""

    def __init__(self, model: nn.Module, lr: float, weight_decay: float = 5e-4) -> None:
        defaults = {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": weight_decay, "gamma": 0.95}
        super().__init__(model.parameters(), defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Step on every parameter in turn."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for param in group["params"]:
                state = self.state[param]
                if not state:
                    state.update(step=0, mean_norm=torch.zeros((), device=param.device))
                    state.update(exp_avg=torch.zeros_like(param), exp_avg_sq=torch.zeros_like(param))
                state["step"] += 1
                grad = param.grad.add(param, alpha=group["weight_decay"])
                norm = torch.linalg.vector_norm(grad)
                state["mean_norm"].mul_(group["gamma"]).add_(norm, alpha=1 - group["gamma"])
                corrected = grad * (state["mean_norm"] / norm) if state["mean_norm"] > norm > 0 else grad
                state["exp_avg"].mul_(beta1).add_(corrected, alpha=1 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                root = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt().add_(group["eps"])
                param.addcdiv_(state["exp_avg"], root, value=-group["lr"] / (1 - beta1 ** state["step"]))


# ----------------------------------------------------------------------------------------------------- loop


class PlainLoop:
    """Trains a model on pictures.

    Args:
        model: what is trained.
        make: its optimizer.
        pictures: what it is trained on.
        device: "cpu" or "cuda".
        batch_size: pictures of a step.
        workers: processes of the DataLoader, kept from epoch to epoch; 0: it reads in this one.
    """

    def __init__(
        self,
        model: nn.Module,
        make: Callable[[nn.Module], torch.optim.Optimizer],
        pictures: Pictures,
        device: str = "cpu",
        batch_size: int = 128,
        workers: int = 0,
    ) -> None:
        self.model, self.device = model.to(device), device
        self.optimizer = make(self.model)
        self.loader = DataLoader(
            pictures, batch_size, shuffle=True, num_workers=workers, pin_memory=device != "cpu",
            persistent_workers=workers > 0,
        )  # fmt: skip

    def epoch(self) -> tuple[float, float]:
        """Train on every picture once; mean loss and accuracy."""
        self.model.train()
        total, correct, count = 0.0, 0.0, 0
        for images, labels in self.loader:
            loss, hits = self.step(images.to(self.device), labels.to(self.device))
            total, correct, count = total + loss * len(labels), correct + hits, count + len(labels)
        return total / count, correct / count

    def step(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """Train on one batch; its mean loss, and how many were right."""
        outputs = self.model(images)
        loss = F.cross_entropy(outputs, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item(), (outputs.argmax(1) == labels).sum().item()
