"""What the papers' published code computes instead of what they print, shown (oracles are in test_oracles).

If the published tables were made with that code, this is what they measured; nothing in the texts ties the two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import insgd_lab as lab

from . import toys
from .trajectories import Course, Trail, apart, assert_agree, course, courses, follow, rates

PIXELS = 6 * 4
REFERENCES = ("insgd-reference-l1", "insgd-reference-l2")


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 4, 3, padding=1).double()


def images(seed: int, examples: int = 2, channels: int = 3, size: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(examples, channels, 6, 4, generator=generator, dtype=torch.float64)


def give(model: nn.Module, optimizer: Any, x: Tensor, gradients: list[Tensor]) -> None:
    """One step on gradients that are given; the model has only seen x."""
    optimizer.zero_grad()
    model(x).sum().backward()
    for p, g in zip(model.parameters(), gradients, strict=True):
        p.grad = g.clone()
    optimizer.step()


def gradients_of(model: nn.Module, seed: int, steps: int) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in model.parameters()] for _ in range(steps)
    ]


# ----------------------------------------------------------------------------- insgd-reference-l2 and its input


@given(
    seeds=st.tuples(toys.seeds, toys.seeds), sizes=st.tuples(st.floats(0.1, 1e3), st.floats(0.1, 1e3)),
    shift=st.floats(-5, 5), momentum=st.sampled_from([0.0, 0.9]), batch=st.integers(1, 4),
)  # fmt: skip
@settings(max_examples=20)
def test_insgd_reference_l2_does_not_depend_on_an_input_whose_planes_vary(
    seeds: tuple[int, int], sizes: tuple[float, float], shift: float, momentum: float, batch: int
) -> None:
    """Any two inputs, of any batch sizes, give one trajectory: SGD with a step and a momentum fixed per layer."""
    ends = []
    for seed, size, examples in zip(seeds, sizes, (batch, 2), strict=True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(conv(), nn.Flatten(1), nn.Linear(4 * PIXELS, 2).double())
        optimizer = lab.create_optimizer("insgd-reference-l2", model, lr=0.01, momentum=momentum)
        for step, gradients in enumerate(gradients_of(model, 5, 4)):
            give(model, optimizer, shift + images(seed + step, examples, size=size), gradients)
        ends.append(toys.parameters(model))
    toys.assert_near(*ends, 1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("create", "pixels"),
    [(conv, PIXELS), (lambda: nn.Conv2d(3, 3, 1, groups=3).double(), PIXELS), (lambda: nn.Linear(4, 2).double(), 4)],
)
def test_insgd_reference_l2_is_sgd_with_step_and_momentum_divided_by_log_of_pixels_less_one(
    create: Callable[[], nn.Module], pixels: int, momentum: float
) -> None:
    layer = create()
    f = math.log(pixels - 1)
    optimizer = lab.create_optimizer("insgd-reference-l2", layer, lr=0.1, momentum=momentum)
    weight = layer.weight.detach().clone()
    buffer = torch.zeros_like(weight)
    for step, gradients in enumerate(gradients_of(layer, 1, 5)):
        give(layer, optimizer, images(step), gradients)
        buffer = momentum / f * buffer + gradients[0] / f
        weight = weight - 0.1 * buffer
        torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-12, atol=1e-12)


def test_its_step_per_layer_is_fixed_by_the_planes_size_alone() -> None:
    """The larger the planes of a layer, the shorter its step, whatever is in them."""
    scales = {}
    for side in (3, 8, 32):
        layer = nn.Conv2d(1, 1, 1, bias=False).double()
        optimizer = lab.create_optimizer("insgd-reference-l2", layer, lr=1.0)
        before = layer.weight.detach().clone()
        x = torch.randn(2, 1, side, side, dtype=torch.float64)
        give(layer, optimizer, x, [torch.ones_like(before)])
        scales[side] = (before - layer.weight).item()
    assert scales == {side: pytest.approx(1 / math.log(side**2 - 1), rel=1e-12) for side in scales}


def test_the_papers_insgd_l2_does_depend_on_its_input() -> None:
    ends = []
    for size in (1.0, 10.0):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = conv()
        optimizer = lab.create_optimizer("insgd-l2", model, lr=0.1)
        give(model, optimizer, images(0, size=size), gradients_of(model, 5, 1)[0])
        ends.append(model.weight.detach().clone())
    assert (ends[0] - ends[1]).abs().max() > 1e-3


@given(examples=st.integers(1, 6), data=st.data())
@settings(max_examples=20)
def test_dead_planes_lower_the_power_by_their_share(examples: int, data: st.DataObject) -> None:
    """Behind ReLU: n = (N - 1) times the fraction of examples whose plane varies, channel by channel."""
    alive = torch.tensor(data.draw(st.lists(st.booleans(), min_size=3 * examples, max_size=3 * examples)))
    alive = alive.view(examples, 3)
    layer = nn.Conv2d(3, 2, 1, bias=False).double()
    optimizer = lab.create_optimizer("insgd-reference-l2", layer, lr=1.0)
    before = layer.weight.detach().clone()
    give(layer, optimizer, images(0, examples) * alive[:, :, None, None], [torch.ones_like(before)])
    powers = (PIXELS - 1) * alive.double().mean(0)
    divisors = [max(math.log(n), 0.01) if n > 0 else 0.01 for n in powers.tolist()]
    wanted = 1 / torch.tensor(divisors, dtype=torch.float64).view(1, 3, 1, 1).expand_as(before)
    torch.testing.assert_close(before - layer.weight.detach(), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2d(2, 3, 1, bias=False), torch.zeros(4, 2, 6, 4)),
        (nn.Conv2d(2, 3, 1, bias=False), torch.randn(4, 2, 1, 1)),  # as in squeeze-and-excite
        (nn.Linear(1, 3, bias=False), torch.randn(4, 1)),
    ],
    ids=["dead", "one-pixel", "one-feature"],
)
def test_behind_dead_planes_the_momentum_buffer_grows_ninetyfold_a_step(layer: nn.Module, x: Tensor) -> None:
    """n = 0 gives f = 0.01, and the buffer is divided by it: without any gradient it grows by momentum / f."""
    layer, x = layer.double(), x.double()
    optimizer = lab.create_optimizer("insgd-reference-l2", layer, lr=1e-9)
    give(layer, optimizer, x, [torch.ones_like(layer.weight)])
    sizes = [optimizer.state[layer.weight]["momentum_buffer"].clone()]
    assert sizes[0].eq(1 / 0.01).all()
    for _ in range(3):
        give(layer, optimizer, x, [torch.zeros_like(layer.weight)])
        sizes.append(optimizer.state[layer.weight]["momentum_buffer"].clone())
    for before, after in itertools.pairwise(sizes):
        torch.testing.assert_close(after / before, torch.full_like(before, 90.0), rtol=1e-13, atol=0)


def test_no_input_momentum_is_kept() -> None:
    """After a step on dead planes the next one forgets them: P is never stored."""
    layer = conv()
    optimizer = lab.create_optimizer("insgd-reference-l2", layer, lr=1.0, momentum=0.0)
    gradients = gradients_of(layer, 2, 1)[0]
    for x, f in ((torch.zeros(2, 3, 6, 4, dtype=torch.float64), 0.01), (images(1), math.log(PIXELS - 1))):
        before = layer.weight.detach().clone()
        give(layer, optimizer, x, gradients)
        torch.testing.assert_close(before - layer.weight.detach(), gradients[0] / f, rtol=1e-12, atol=1e-12)
    kept = {name for state in optimizer.state.values() for name, value in state.items() if isinstance(value, Tensor)}
    assert "log_power" not in kept


@pytest.mark.parametrize("name", REFERENCES)
def test_dampening_is_taken_for_the_input_too(name: str) -> None:
    """P = (1 - tau) n."""
    layer = nn.Linear(8, 1, bias=False).double()
    optimizer = lab.create_optimizer(name, layer, lr=1.0, momentum=0.5, dampening=0.4)
    x = images(0)[0, 0].reshape(3, 8)
    z = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    n = z.abs().sum(1).mean() if name.endswith("l1") else torch.tensor(7.0, dtype=torch.float64)
    before = layer.weight.detach().clone()
    give(layer, optimizer, x, [torch.ones_like(before)])
    constant = math.sqrt(1 + 1e-6) / (math.sqrt(0.5) + 1e-6) if name.endswith("l1") else 1.0
    wanted = constant / (0.6 * n).log().item()
    torch.testing.assert_close(before - layer.weight.detach(), torch.full_like(before, wanted), rtol=1e-12, atol=0)


# ---------------------------------------------------------------------------------------- insgd-reference-l1


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_insgd_reference_l1_multiplies_by_a_constant_that_was_meant_to_be_an_accumulator(momentum: float) -> None:
    """About 3.16 at momentum 0.9, at every step, and for measured parameters only."""
    layer = nn.Linear(8, 2).double()
    optimizer = lab.create_optimizer("insgd-reference-l1", layer, lr=1.0, momentum=momentum)
    constant = math.sqrt(1 + 1e-6) / (math.sqrt(1 - momentum) + 1e-6)
    if momentum == 0.9:
        assert constant == pytest.approx(3.16, abs=0.005)
    buffers = [torch.zeros_like(p) for p in layer.parameters()]
    for step, gradients in enumerate(gradients_of(layer, 3, 4)):
        x = images(step)[:, 0].reshape(6, 8)
        n = ((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)).abs().sum(1).mean()
        before = toys.parameters(layer)
        give(layer, optimizer, x, gradients)
        for i, factor in enumerate((constant / n.log(), 1.0)):
            buffers[i] = momentum * buffers[i] + factor * gradients[i]
            moved = before[i] - list(layer.parameters())[i].detach()
            torch.testing.assert_close(moved, buffers[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2)],
    ids=["grouped", "depth multiplier", "pairs"],
)
def test_grouped_convolutions_that_are_neither_plain_nor_depthwise_are_refused(name: str, layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"0\.weight.*groups"):
        lab.create_optimizer(name, nn.Sequential(layer))


@pytest.mark.parametrize("name", REFERENCES)
def test_nesterov_is_refused(name: str) -> None:
    with pytest.raises((LookupError, TypeError), match="nesterov"):
        lab.create_optimizer(name, conv(), nesterov=True)


# --------------------------------------------------------------------------------------- radamnorm-reference


def walk(name: str, path: Course, lr: float = 0.1, **options: Any) -> Trail:
    return follow(lambda params: lab.create_optimizer(name, params, lr=lr, **options), path)


@given(
    lr=rates, path=courses(), weight_decay=st.sampled_from([0.0, 0.3]), gamma=st.sampled_from([0.5, 0.95]),
    betas=st.sampled_from([(0.9, 0.999), (0.5, 0.9)]),
)  # fmt: skip
@settings(max_examples=25)
def test_radamnorm_reference_is_radam_to_the_last_bit(
    lr: float, path: Course, weight_decay: float, gamma: float, betas: tuple[float, float]
) -> None:
    """Its running norm is set to 0 before each step, so that it never exceeds the gradient's."""
    options = {"weight_decay": weight_decay, "betas": betas}
    corrected = walk("radamnorm-reference", path, lr, gamma=gamma, **options)
    assert_agree(corrected, walk("radam", path, lr, decoupled=True, **options), 0.0)


def test_radamnorm_reference_is_not_the_papers_radamnorm() -> None:
    path = course(0)
    options = {"gamma": 0.5, "betas": (0.9, 0.99)}
    assert (
        apart(walk("radamnorm-reference", path, **options), walk("radamnorm", path, decoupled=True, **options)) > 1e-3
    )


# ---------------------------------------------------------------------------------------- adamnorm-reference


def moments_after(name: str, gradient: float, steps: int, **options: Any) -> dict[str, Any]:
    theta = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = lab.create_optimizer(name, [theta], **options)
    for _ in range(steps):
        theta.grad = torch.full_like(theta, gradient)
        optimizer.step()
    return {**optimizer.state[theta], "theta": theta.item()}


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("gamma", [0.0, 0.95])
def test_adamnorm_references_second_moment_settles_higher_by_eps_over_one_less_beta2(steps: int, gamma: float) -> None:
    """v_t = (1 - beta2^t) (g^2 + eps / (1 - beta2)) for a constant gradient: corrected for bias, higher at once."""
    eps, beta2, gradient = 1e-8, 0.999, 1e-3
    v = moments_after("adamnorm-reference", gradient, steps, gamma=gamma)["exp_avg_sq"].item()
    assert v == pytest.approx((1 - beta2**steps) * (gradient**2 + eps / (1 - beta2)), rel=1e-11)


def test_its_denominator_is_three_times_that_of_adam_where_gradients_are_1e_3() -> None:
    """sqrt(1e-6 + 1e-5) over 1e-3, with eps = 1e-8 nominally."""
    lr, steps = 1e-3, 20
    moved = {name: moments_after(name, 1e-3, steps, lr=lr)["theta"] for name in ("adam", "adamnorm-reference")}
    assert moved["adam"] / moved["adamnorm-reference"] == pytest.approx(math.sqrt(11), rel=1e-4)
    assert math.sqrt(11) == pytest.approx(3.3, abs=0.05)
    assert math.sqrt(1e-8 / (1 - 0.999)) == pytest.approx(3.2e-3, rel=0.02)


def test_the_controls_are_two_by_two() -> None:
    """{correction on, off} x {eps accumulated, not}: each factor alone, and neither touches the other's moment."""
    path = course(9)
    table = {
        (True, False): ("adamnorm", {"gamma": 0.5}),
        (False, False): ("adam", {}),
        (True, True): ("adamnorm-reference", {"gamma": 0.5}),
        (False, True): ("adamnorm-reference", {"gamma": 0.0}),
    }
    states, trails = {}, {}
    for factors, (name, options) in table.items():
        made = []

        def create(params: list[Tensor], name: str = name, options: dict[str, Any] = options, made: Any = made) -> Any:
            made.append((lab.create_optimizer(name, params, lr=0.1, eps=1e-3, **options), params))
            return made[0][0]

        trails[factors] = follow(create, path)
        optimizer, params = made[0]
        states[factors] = [optimizer.state[p] for p in params]
    offset = 1e-3 * (1 - 0.999 ** len(path.gradients)) / (1 - 0.999)
    for accumulated in (True, False):
        for on, off in zip(states[True, accumulated], states[False, accumulated], strict=True):
            torch.testing.assert_close(on["exp_avg_sq"], off["exp_avg_sq"], rtol=0, atol=0)
    for corrected in (True, False):
        for with_eps, without in zip(states[corrected, True], states[corrected, False], strict=True):
            torch.testing.assert_close(with_eps["exp_avg"], without["exp_avg"], rtol=0, atol=0)
            torch.testing.assert_close(with_eps["exp_avg_sq"], without["exp_avg_sq"] + offset, rtol=1e-12, atol=0)
    cells = list(table)
    assert all(apart(trails[a], trails[b]) > 1e-4 for a in cells for b in cells if a < b)


@pytest.mark.parametrize("name", ["adamnorm-reference", "adamnorm", "diffgradnorm", "adabeliefnorm", "radamnorm"])
def test_a_zero_gradient_is_no_nan_here_as_it_is_in_the_published_code(name: str) -> None:
    """There s = g e / ||g|| is 0/0, and everything is NaN from that step on."""
    assert [moments_after(name, 0.0, steps, lr=0.1)["theta"] for steps in (1, 3)] == [0.0, 0.0]
    path = course(1)
    path.gradients[4] = [torch.zeros_like(p) for p in path.start]
    assert all(p.isfinite().all() for step in walk(name, path) for p in step)


@pytest.mark.parametrize("name", ["insgd-reference-l1", "insgd-reference-l2"])
def test_an_input_that_is_not_finite_counts_as_not_recorded(name: str) -> None:
    layer = nn.Linear(3, 1, bias=False)
    start = layer.weight.detach().clone()
    optimizer = lab.create_optimizer(name, layer, lr=1.0)
    layer(torch.tensor([[1.0, torch.inf, 2.0]])).sum().backward()
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), start - 1)
