"""The one door to torchvision, which is imported when something of it is needed and not before.

Its C++ part fits one build of torch only: beside a torch from another index (the CPU build, say, and the package
index's torchvision) the import itself fails. Nothing here calls an operator of that part, but the import must
succeed.

>>> torchvision().models.resnet50
"""

from __future__ import annotations

import importlib
from types import ModuleType

from insgd_lab.training.files import DataError

__all__ = ["VisionError", "torchvision", "transforms"]


class VisionError(DataError):
    """torchvision is missing or does not fit torch; the message has the remedy."""


def torchvision() -> ModuleType:
    """The module torchvision, imported.

    Raises:
        VisionError: it cannot be imported.
    """
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError, AssertionError) as error:  # missing; built for another torch, or another CUDA
        raise VisionError(
            f"torchvision cannot be imported ({type(error).__name__}: {error}); it must be built for the very torch "
            "beside it: install the two together, with the same --index-url: pip install --force-reinstall torch "
            "torchvision (MobileNetV3, ImageNet's ResNet-50 and streamed images need it, nothing else does)"
        ) from error


def transforms() -> ModuleType:
    """Its transforms, version 2.

    Raises:
        VisionError: torchvision cannot be imported.
    """
    return importlib.import_module(f"{torchvision().__name__}.transforms.v2")
