import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from insgd_lab.training.augmentation import Normalize, crop_and_flip, draw
from insgd_lab.training.streams import generator


def slowly(images, offsets, flips, padding):
    """One image at a time, as the definition reads."""
    count, channels, height, width = images.shape
    out = np.zeros_like(images)
    for b in range(count):
        padded = np.zeros((channels, height + 2 * padding, width + 2 * padding), images.dtype)
        padded[:, padding : padding + height, padding : padding + width] = images[b]
        top, left = offsets[b]
        window = padded[:, top : top + height, left : left + width]
        out[b] = window[:, :, ::-1] if flips[b] else window
    return out


@settings(max_examples=40)
@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 5),
    st.integers(0),
)
def test_crop_and_flip_equals_the_slow_definition(count, channels, height, width, padding, seed):
    stream = generator(seed, "test")
    images = torch.randint(0, 256, (count, channels, height, width), generator=stream, dtype=torch.uint8)
    draws = draw(count, stream, padding)
    out = crop_and_flip(images, draws.offsets, draws.flips, padding)
    assert out.dtype == torch.uint8
    expected = slowly(images.numpy(), draws.offsets.numpy(), draws.flips.numpy(), padding)
    assert np.array_equal(out.numpy(), expected)


def test_draws_cover_every_offset_and_flip_half():
    draws = draw(20_000, generator(0, "test"))
    assert sorted(draws.offsets.unique().tolist()) == list(range(9))
    assert float(draws.flips.float().mean()) == pytest.approx(0.5, abs=0.02)
    rows, columns = draws.offsets.double().T
    assert float(torch.corrcoef(torch.stack([rows, columns, draws.flips.double()])).triu(1).abs().max()) < 0.03


def test_normalize_is_the_definition_in_float32():
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8, generator=generator(0, "test"))
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    out = Normalize(255.0, mean, std)(images)
    channel = [(images[:, c].double() / 255 - mean[c]) / std[c] for c in range(3)]
    assert out.dtype == torch.float32
    assert torch.allclose(out.double(), torch.stack(channel, 1), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalising_never_writes_to_the_images(dtype):
    images = torch.full((2, 1, 3, 3), 8, dtype=dtype)
    Normalize(16.0, (0.5,), (0.5,))(images)
    assert (images == 8).all()
