import io

import numpy as np
import pytest
import torch
from PIL import Image

from insgd_lab.training.decoding import fitted, pixels, read_rgb
from insgd_lab.training.files import DataError

LEVELS = np.random.RandomState(0).randint(0, 256, (24, 40, 4)).astype(np.uint8)
IMAGE = Image.fromarray(LEVELS[:, :, :3])


def saved(tmp_path, image, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.usefixtures("vision")
@pytest.mark.parametrize("width", [7, 31, 32, 64, 65])
@pytest.mark.parametrize("height", [9, 32, 47])
@pytest.mark.parametrize(("shorter", "size"), [(32, 32), (37, 32), (20, 11)])
def test_fitting_is_torchvisions_resize_and_centre_crop_to_the_bit(width, height, shorter, size):
    from torchvision.transforms import v2

    levels = np.random.RandomState(width * height).randint(0, 256, (height, width, 3)).astype(np.uint8)
    image = Image.fromarray(levels)
    theirs = v2.Compose([v2.Resize(shorter), v2.CenterCrop(size), v2.PILToTensor()])(image)
    assert torch.equal(torch.from_numpy(pixels(fitted(image, shorter, size))), theirs)


def test_pixels_are_channels_then_rows_then_columns():
    assert np.array_equal(pixels(IMAGE), LEVELS[:, :, :3].transpose(2, 0, 1))


def test_grey_and_transparent_images_and_palettes_become_rgb(tmp_path):
    grey = Image.fromarray(LEVELS[:, :, 0])
    assert all(np.array_equal(channel, LEVELS[:, :, 0]) for channel in pixels(read_rgb(saved(tmp_path, grey))))
    clear = Image.fromarray(LEVELS)
    assert np.array_equal(pixels(read_rgb(saved(tmp_path, clear))), pixels(IMAGE))
    palette = Image.fromarray(LEVELS[:, :, 0] // 128).convert("P")
    path = saved(tmp_path, palette, transparency=b"\x00\xff")
    assert set(np.unique(pixels(read_rgb(path)))) == {0, 1}
    bits = Image.fromarray(LEVELS[:, :, 0]).convert("1")
    assert set(np.unique(pixels(read_rgb(saved(tmp_path, bits))))) == {0, 255}


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_deeper_images_are_refused_and_not_clipped(tmp_path, kind):
    deep = Image.fromarray((LEVELS[:, :, 0].astype(np.float64) * 200).astype(kind))
    with pytest.raises(DataError, match=r"image.tiff has more than 8 bits a channel .*; save it with 8"):
        read_rgb(saved(tmp_path, deep, "image.tiff"))


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    IMAGE.save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_image_is_named(tmp_path, kind, share):
    content = encoded(kind)
    path = tmp_path / "image.jpg"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"image.jpg is (damaged|not an image)"):
        read_rgb(path)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"one, two, three\n" * 9, "is not an image"), (None, "cannot be read")]
)
def test_what_is_no_image_is_named(tmp_path, content, reason):
    path = tmp_path / "image.jpg"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=f"image.jpg {reason}"):
        read_rgb(path)
