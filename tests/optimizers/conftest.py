from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Layers and inputs drawn without a generator are the same in every order of the tests."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
