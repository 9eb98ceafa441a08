"""From an image file to pixels: read it whole, make it RGB, fit it to a square. Pillow and numpy only.

Fitting is what torchvision's Resize and CenterCrop do, pixel for pixel (the tests compare them).

>>> pixels(fitted(read_rgb(path), shorter=256, size=224)).shape
(3, 224, 224)
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from insgd_lab.training.files import DataError

__all__ = ["fitted", "pixels", "read_rgb"]

_DEEP = ("I", "F")  # 16 or 32 bits a channel, whole or floating: Pillow's conversion to RGB would clip them


def read_rgb(path: Path) -> Image.Image:
    """The image in a file, as RGB: grey levels three times, transparency dropped, rotation by EXIF not done.

    Raises:
        DataError: the file cannot be read as an image of 8 bits a channel; the message names it and says why.
    """
    try:
        return decoded(io.BytesIO(path.read_bytes()))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
    except DataError as error:
        raise DataError(f"{path} {error}") from error


def decoded(stream: IO[bytes]) -> Image.Image:
    """The image in a stream, as in `read_rgb`.

    Raises:
        DataError: it is no such image; the message says what is wrong, to be put behind a name.
    """
    try:
        with Image.open(stream) as image:
            mode = image.mode
            if not mode.startswith(_DEEP):
                # Of a palette with transparency Pillow warns unless it becomes RGBA first.
                return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")
    except UnidentifiedImageError:
        empty = not stream.seek(0, io.SEEK_END)
        raise DataError("is empty" if empty else "is not an image") from None
    except Exception as error:  # decoders see anyone's bytes, and raise whatever they run into
        raise DataError(f"is damaged ({error})") from error
    raise DataError(f'has more than 8 bits a channel (mode "{mode}"); save it with 8')


def fitted(image: Image.Image, shorter: int, size: int) -> Image.Image:
    """The image resized to `shorter` pixels on its shorter side, and of that the square of `size` in the middle."""
    width, height = image.size
    longer = int(shorter * max(width, height) / min(width, height))
    width, height = (shorter, longer) if width <= height else (longer, shorter)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an RGB image, [3, height, width]."""
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
