from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import insgd_lab as lab
from insgd_lab.store import read_table

from . import toys


def table(recorder: lab.Recorder) -> pd.DataFrame:
    return recorder.frame().pivot_table(
        index=["step", "parameter"], columns="quantity", values="value", observed=True, dropna=False
    )


OPTIMIZERS = {
    "torch.SGD": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
    "torch.Adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.1),
    "insgd": lambda m: lab.INSGD(m, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("closure", [False, True])
def test_quantities_are_what_the_parameters_say(make: Any, closure: bool) -> None:
    model = toys.net()
    optimizer = make(model)
    before = dict(zip((n for n, _ in model.named_parameters()), toys.parameters(model), strict=True))
    grads = {}
    with lab.Recorder(model, optimizer, every=1) as recorder:
        x = toys.batches(0, 1)[0]

        def compute() -> torch.Tensor:
            optimizer.zero_grad()
            value = toys.loss(model, x)
            value.backward()
            grads.update({n: p.grad.clone() for n, p in model.named_parameters()})
            return value

        if closure:
            optimizer.step(compute)
        else:
            compute()
            optimizer.step()
    rows = table(recorder).loc[1]
    for name, param in model.named_parameters():
        old, new, g = before[name].flatten(), param.detach().flatten(), grads[name].flatten()
        wanted = {
            "grad_norm": g.norm(),
            "update_norm": (new - old).norm(),
            "weight_norm": old.norm(),
            "effective_step": (new - old).norm() / g.norm(),
            "relative_update": (new - old).norm() / old.norm(),
            "cosine": torch.cosine_similarity(old - new, g, dim=0),
            "rotation": torch.arccos(torch.cosine_similarity(old, new, dim=0).clamp(max=1)),
        }
        for quantity, value in wanted.items():
            assert rows.loc[name, quantity] == pytest.approx(value.item(), rel=1e-5, abs=1e-6), quantity


def test_a_chain_tells_what_its_rules_know() -> None:
    model = toys.net()
    optimizer = lab.INSGD(model, lr=0.1, p=math.inf, eps=0.5)
    x = 0.1 * toys.batches(0, 1)[0]
    with lab.Recorder(model, optimizer) as recorder:
        toys.train(model, optimizer, [x])
    rows = table(recorder).loc[1]
    power = x.abs().amax((1, 2, 3)).mean().item()
    assert rows.loc["conv.weight", "input_power"] == pytest.approx(power, rel=1e-6)
    assert rows.loc["conv.weight", "step_scale"] == pytest.approx(2.0)
    assert rows.loc["conv.weight", "clipped"] == 1.0
    assert rows.loc["conv.bias", "step_scale"] == 1.0
    assert math.isnan(rows.loc["conv.bias", "input_power"])


def test_the_norm_gain_is_recorded() -> None:
    theta = nn.ParameterDict({"w": torch.zeros(2)})
    optimizer = lab.AdamNorm(theta, gamma=0.5)
    with lab.Recorder(theta, optimizer, every=1) as recorder:
        for size in (4.0, 1.0):
            theta["w"].grad = torch.tensor([size, 0.0])
            optimizer.step()
    gains = recorder.frame().query("quantity == 'norm_gain'").value.tolist()
    assert gains == pytest.approx([1.0, 1.5])


@pytest.mark.parametrize("size", [1e25, 1e-23])
def test_huge_and_tiny_gradients_have_a_direction(size: float) -> None:
    theta = nn.ParameterDict({"w": torch.zeros(3)})
    optimizer = torch.optim.SGD(theta.parameters(), lr=1.0)
    theta["w"].grad = torch.full((3,), size)
    with lab.Recorder(theta, optimizer) as recorder:
        optimizer.step()
    values = recorder.frame().set_index("quantity").value
    assert values["cosine"] == pytest.approx(1.0)
    assert values["effective_step"] == pytest.approx(1.0)


def test_two_recorders_of_one_optimizer_see_the_same() -> None:
    model = toys.net()
    optimizer = lab.INSGD(model)
    with lab.Recorder(model, optimizer, every=1) as first, lab.Recorder(model, optimizer, every=2) as second:
        toys.train(model, optimizer, toys.batches(0, 3))
    every_other = first.frame().query("step != 2").reset_index(drop=True)
    pd.testing.assert_frame_equal(every_other, second.frame(), check_categorical=False)


def test_a_step_that_raises_leaves_no_false_record() -> None:
    model = toys.net()
    optimizer = lab.SGD(model, lr=0.1)
    with lab.Recorder(model, optimizer, every=3) as recorder:
        with pytest.raises(ZeroDivisionError):
            optimizer.step(lambda: 1 / 0)
        toys.train(model, optimizer, toys.batches(0, 3))
    assert sorted(set(recorder.frame().step)) == [4]


def test_the_first_step_is_recorded_and_then_every_nth() -> None:
    model = toys.net()
    optimizer = lab.SGD(model, lr=0.1)
    with lab.Recorder(model, optimizer, every=3) as recorder:
        toys.train(model, optimizer, toys.batches(0, 7))
    assert sorted(set(recorder.frame().step)) == [1, 4, 7]
    toys.train(model, optimizer, toys.batches(0, 7))
    assert sorted(set(recorder.frame().step)) == [1, 4, 7]


def test_zero_denominators_give_nan() -> None:
    theta = nn.ParameterDict({"w": torch.zeros(2)})
    optimizer = torch.optim.SGD(theta.parameters(), lr=0.1)
    theta["w"].grad = torch.zeros(2)
    with lab.Recorder(theta, optimizer) as recorder:
        optimizer.step()
    values = recorder.frame().set_index("quantity").value
    undefined = {"effective_step", "relative_update", "cosine", "rotation"}
    assert {q for q, v in values.items() if math.isnan(v)} == undefined


def test_recording_changes_no_bit_of_the_training() -> None:
    plain, watched = toys.net(), toys.net()
    toys.train(plain, lab.INSGD(plain), toys.batches(0, 4))
    optimizer = lab.INSGD(watched)
    with lab.Recorder(watched, optimizer, every=2):
        toys.train(watched, optimizer, toys.batches(0, 4))
    toys.assert_same(toys.parameters(plain), toys.parameters(watched))


def test_a_resumed_recorder_keeps_the_rhythm() -> None:
    model = toys.net()
    optimizer = lab.SGD(model, lr=0.1)
    with lab.Recorder(model, optimizer, every=3) as first:
        toys.train(model, optimizer, toys.batches(0, 2))
    second = lab.Recorder(model, optimizer, every=3)
    second.load_state_dict(first.state_dict())
    toys.train(model, optimizer, toys.batches(0, 4))
    assert sorted(set(second.drain().step)) == [4]
    assert second.frame().empty


def test_chunks_go_to_the_sink(tmp_path: Path) -> None:
    model = toys.net()
    optimizer = lab.SGD(model, lr=0.1)
    with lab.Recorder(model, optimizer, every=1, sink=tmp_path) as recorder:
        toys.train(model, optimizer, toys.batches(0, 70, size=1))
    parts = sorted(tmp_path.glob("part-*.parquet"))
    assert [p.name for p in parts] == ["part-00000.parquet", "part-00001.parquet"]
    steps = np.concatenate([read_table(part).step.unique() for part in parts])
    assert steps.tolist() == list(range(1, 71))
    assert recorder.frame().empty


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_parameters_are_measured_in_float32(dtype: torch.dtype) -> None:
    theta = nn.ParameterDict({"w": torch.full((3,), 250.0, dtype=dtype)})
    optimizer = lab.SGD(theta, lr=1.0)
    theta["w"].grad = torch.full((3,), 200.0, dtype=dtype)
    with lab.Recorder(theta, optimizer) as recorder:
        optimizer.step()
    values = recorder.frame().set_index("quantity").value
    assert values["grad_norm"] == pytest.approx(200 * math.sqrt(3), rel=1e-3)
    assert values["effective_step"] == pytest.approx(1.0, rel=1e-2)


def test_foreign_models_and_bad_intervals_are_refused() -> None:
    optimizer = torch.optim.SGD(toys.net().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="holds none of the model's parameters"):
        lab.Recorder(toys.net(), optimizer)
    model = toys.net()
    with pytest.raises(ValueError, match="every = 0"):
        lab.Recorder(model, lab.SGD(model), every=0)
