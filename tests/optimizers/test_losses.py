from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

import insgd_lab as lab
from insgd_lab.losses import InverseActivationLoss

# Each activation that can be inverted, and targets that it takes.
INVERTIBLE: dict[str, tuple[Callable[[Tensor], Tensor], st.SearchStrategy[float]]] = {
    "sigmoid": (torch.sigmoid, st.floats(0.01, 0.99)),
    "tanh": (torch.tanh, st.floats(-0.99, 0.99)),
    "leaky-relu": (leaky_relu, st.floats(-5, 5)),
}
entries = st.lists(st.floats(-3, 3), min_size=4, max_size=4).map(lambda v: torch.tensor(v, dtype=torch.float64))
inputs = entries.filter(lambda x: x.norm() > 0.1)


def neuron(w: Tensor) -> nn.Linear:
    layer = nn.Linear(len(w), 1, bias=False).double()
    layer.weight.data = w[None].clone()
    return layer


def step(layer: nn.Linear, loss: nn.Module, x: Tensor, d: Tensor, lr: float = 1.0) -> None:
    optimizer = lab.create_optimizer("nlms", layer, lr=lr, eps=0.0)
    loss(layer(x), d).backward()
    optimizer.step()


@pytest.mark.parametrize("activation", INVERTIBLE)
@given(w=entries, x=inputs, data=st.data())
def test_after_one_nlms_step_the_neuron_gives_its_target(
    activation: str, w: Tensor, x: Tensor, data: st.DataObject
) -> None:
    """INSGD Eq. 21: psi(w x) = d, the constraint that Eq. 24 solves."""
    psi, targets = INVERTIBLE[activation]
    d = torch.tensor([[data.draw(targets)]], dtype=torch.float64)
    layer = neuron(w)
    step(layer, InverseActivationLoss(activation), x[None], d)
    # Rounding: of w x, with |w| <= 6 and after the step |w - w'| <= (|phi(d)| + |w x|) / |x|; psi is 1-Lipschitz.
    size = 1 + float(w.norm() * x.norm()) + 500
    torch.testing.assert_close(psi(layer(x[None])), d, rtol=0, atol=20 * 2.3e-16 * size)


@given(w=entries, x=inputs, d=st.floats(-5, 5))
def test_a_relu_neuron_is_led_to_its_target_with_negative_values_set_to_0(w: Tensor, x: Tensor, d: float) -> None:
    layer = neuron(w)
    step(layer, InverseActivationLoss("relu"), x[None], torch.tensor([[d]], dtype=torch.float64))
    assert layer(x[None]).item() == pytest.approx(max(d, 0.0), abs=1e-11)


@pytest.mark.parametrize("activation", INVERTIBLE)
@given(w=entries, truth=entries, x=inputs, lr=st.floats(0.01, 1.99))
def test_the_distance_to_the_true_weights_never_grows(
    activation: str, w: Tensor, truth: Tensor, x: Tensor, lr: float
) -> None:
    d = INVERTIBLE[activation][0](truth @ x)
    assume(activation == "leaky-relu" or float((truth @ x).abs()) < 8)  # else d rounds to the end of the range
    layer = neuron(w)
    step(layer, InverseActivationLoss(activation), x[None], d.view(1, 1), lr)
    # phi(d) gives truth @ x back to 1e-16 / psi'(8), about 1e-9.
    assert (layer.weight[0] - truth).norm() <= (w - truth).norm() + 1e-8 / x.norm()


@given(x=st.lists(inputs, min_size=3, max_size=3), w=entries)
def test_the_loss_is_the_mean_of_half_squared_errors_before_the_activation(x: list[Tensor], w: Tensor) -> None:
    rows = torch.stack(x)
    d = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64)
    layer = neuron(w)
    errors = [math.log(t / (1 - t)) - float(row @ w) for row, t in zip(x, (0.1, 0.5, 0.9), strict=True)]
    wanted = sum(0.5 * e**2 for e in errors) / 3
    assert InverseActivationLoss("sigmoid")(layer(rows), d).item() == pytest.approx(wanted, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("slope", [0.01, 0.3, 2.0])
def test_the_leaky_slope_is_inverted(slope: float) -> None:
    loss = InverseActivationLoss("leaky-relu", negative_slope=slope)
    z = torch.tensor([-4.0, -1e-3, 0.0, 2.0], dtype=torch.float64)
    assert loss(z, leaky_relu(z, slope)).item() == pytest.approx(0.0, abs=1e-30)
    assert loss(z + 2.0, leaky_relu(z, slope)).item() == pytest.approx(2.0, rel=1e-15)


def test_targets_carry_no_gradient_into_the_neuron_and_predictions_do() -> None:
    z = torch.tensor([[0.3], [-0.2]], dtype=torch.float64, requires_grad=True)
    d = torch.tensor([[0.6], [0.4]], dtype=torch.float64)
    InverseActivationLoss("sigmoid")(z, d).backward()
    torch.testing.assert_close(z.grad, -(torch.logit(d) - z.detach()) / 2)


@pytest.mark.parametrize(
    ("activation", "target", "interval"),
    [
        ("sigmoid", 0.0, "0 and 1"), ("sigmoid", 1.0, "0 and 1"), ("sigmoid", -0.5, "0 and 1"),
        ("tanh", 1.0, "-1 and 1"), ("tanh", -1.5, "-1 and 1"), ("sigmoid", math.nan, "0 and 1"),
    ],
)  # fmt: skip
def test_targets_that_the_activation_never_gives_are_refused(activation: str, target: float, interval: str) -> None:
    d = torch.tensor([[0.5], [target]])
    with pytest.raises(ValueError, match=f"{activation}.* {interval}.*got"):
        InverseActivationLoss(activation)(torch.zeros(2, 1), d)


def test_an_unknown_activation_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'softmax'.*sigmoid.*tanh.*leaky-relu.*relu"):
        InverseActivationLoss("softmax")


@pytest.mark.parametrize("slope", [0.0, -0.1])
def test_a_slope_without_an_inverse_is_refused(slope: float) -> None:
    with pytest.raises(ValueError, match="negative_slope"):
        InverseActivationLoss("leaky-relu", negative_slope=slope)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[2, 1\].*\[2\]"):
        InverseActivationLoss("tanh")(torch.zeros(2, 1), torch.zeros(2))


@pytest.mark.parametrize("neurons", [2, 3])
def test_every_neuron_of_a_layer_gives_its_target_after_one_step(neurons: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, neurons, bias=False).double()
    x, d = torch.randn(1, 4).double(), torch.linspace(0.2, 0.7, neurons).double()[None]
    step(layer, InverseActivationLoss("sigmoid"), x, d)
    torch.testing.assert_close(torch.sigmoid(layer(x)), d, rtol=1e-12, atol=0)


def test_the_loss_is_a_sum_over_neurons_and_a_mean_over_examples() -> None:
    scores, d = torch.zeros(2, 3), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert InverseActivationLoss("relu")(scores, d).item() == 0.5 * (1 + 4 + 9 + 16 + 25 + 36) / 2


def test_nlms_without_a_floor_takes_inputs_whose_power_is_no_float32() -> None:
    layer = nn.Linear(1, 1, bias=False)
    optimizer = lab.create_optimizer("nlms", layer, lr=1.0, eps=0.0)
    layer(torch.full((1, 1), 1e-25)).sum().backward()
    optimizer.step()
    assert layer.weight.item() == pytest.approx(-1e25, rel=1e-5)  # 1e-25 / (1e-25)^2
