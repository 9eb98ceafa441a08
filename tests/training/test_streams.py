import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab.training.streams import derive, generator, global_stream


def numbers(stream: torch.Generator) -> list[float]:
    return torch.rand(4, generator=stream).tolist()


def test_equal_addresses_give_equal_streams():
    assert numbers(generator(3, "order")) == numbers(generator(3, "order"))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.text(), st.text())
def test_streams_differ_by_seed_and_by_purpose(seed, other_seed, purpose, other_purpose):
    same = (seed, purpose) == (other_seed, other_purpose)
    assert (derive(seed, purpose) == derive(other_seed, other_purpose)) == same


def test_stream_numbers_do_not_change_between_versions():
    assert derive(0, "initial weights") == 0x4BA6B3D823F698E3  # the numbers of every published run hang on this


def test_global_stream_leaves_the_callers_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with global_stream(1, "dropout"):
        drawn = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with global_stream(1, "dropout"):
        assert torch.equal(torch.rand(3), drawn)


def test_global_stream_is_undone_after_an_error():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), global_stream(1, "dropout"):
        torch.rand(-3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("module", ["insgd_lab.training", "insgd_lab.training.files", "insgd_lab.training.provenance"])
def test_the_torch_free_modules_do_not_import_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
