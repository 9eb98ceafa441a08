"""When a call counts, and for which parameter."""

from __future__ import annotations

import copy
import gc
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

import insgd_lab as lab
from insgd_lab.sensors import InputSensor


def power(optimizer: Any, param: Tensor) -> float:
    return float(optimizer.state[param]["log_power"].exp().mean())


def layer_and_optimizer(**options: Any) -> tuple[nn.Linear, Any]:
    layer = nn.Linear(3, 2)
    return layer, lab.INSGD(layer, lr=0.01, beta=0.0, **options)


def ones(value: float, examples: int = 2) -> Tensor:
    return torch.full((examples, 3), value)


# Forwards that must not count: each is given the layer, and an input of size 100.
def evaluation(layer: nn.Module, x: Tensor) -> None:
    layer.eval()
    layer(x).sum()
    layer.train()


def evaluation_with_gradients(layer: nn.Module, x: Tensor) -> None:
    layer.eval()
    torch.autograd.grad(layer(x).sum(), list(layer.parameters()))
    layer.train()


def without_gradients(layer: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        layer(x)
    with torch.inference_mode():
        layer(x)


def discarded_loss(layer: nn.Module, x: Tensor) -> None:
    layer(x).sum()


def discarded_gradient(layer: nn.Module, x: Tensor) -> None:
    layer(x).sum().backward()  # zero_grad follows


@pytest.mark.parametrize(
    "polluting",
    [evaluation, evaluation_with_gradients, without_gradients, discarded_loss, discarded_gradient],
)
def test_only_calls_that_lead_to_the_gradient_count(polluting: Any) -> None:
    layer, optimizer = layer_and_optimizer()
    polluting(layer, ones(100.0))
    optimizer.zero_grad()
    loss = layer(ones(2.0)).sum()
    discarded_loss(layer, ones(100.0))
    without_gradients(layer, ones(100.0))
    loss.backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx(12.0)


@pytest.mark.parametrize("cleared_first", [True, False])
def test_either_order_of_zero_grad_and_forward_is_right(cleared_first: bool) -> None:
    layer, optimizer = layer_and_optimizer()
    for value in (5.0, 2.0):
        if cleared_first:
            optimizer.zero_grad()
        loss = layer(ones(value)).sum()
        if not cleared_first:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert power(optimizer, layer.weight) == pytest.approx(3 * value**2)


def test_micro_batches_are_weighted_by_their_examples() -> None:
    layer, optimizer = layer_and_optimizer()
    for value, examples in ((1.0, 1), (2.0, 3)):
        layer(ones(value, examples)).sum().backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx((3 * 1 + 3 * 12) / 4)


def test_a_layer_used_twice_averages_its_calls() -> None:
    layer = nn.Linear(3, 3)
    optimizer = lab.INSGD(layer, lr=0.1, beta=0.0)
    x = ones(1.0)
    hidden = layer(x)
    layer(hidden).sum().backward()
    optimizer.step()
    wanted = (3 + hidden.detach().square().sum(1).mean()) / 2
    assert power(optimizer, layer.weight) == pytest.approx(wanted.item(), rel=1e-6)


def test_several_backward_passes_through_one_call_count_once() -> None:
    layer, optimizer = layer_and_optimizer()
    loss = layer(ones(2.0)).sum()
    loss.backward(retain_graph=True)
    layer(ones(1.0)).sum().backward()
    loss.backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx((12 + 3) / 2)


def test_each_step_starts_afresh_and_an_unmeasured_one_keeps_the_power() -> None:
    layer, optimizer = layer_and_optimizer()
    layer(ones(2.0)).sum().backward()
    optimizer.step()
    optimizer.step()  # the gradient is still there, no new call
    assert power(optimizer, layer.weight) == pytest.approx(12.0)
    optimizer.zero_grad()
    layer(ones(1.0)).sum().backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx(3.0)


class Attend(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attention(x, x, x)
        y += x
        return y


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(3, 2), torch.full((3,), 2.0)),
        (nn.Linear(3, 2), torch.full((5, 3), 2.0)),
        (nn.Linear(3, 2), torch.full((4, 5, 3), 2.0)),
        (nn.Linear(3, 2, bias=False), torch.full((4, 5, 3), 2.0)),
        (nn.Conv2d(3, 2, 1), torch.full((3, 1, 1), 2.0)),
        (nn.Conv1d(3, 2, 1), torch.full((4, 3, 1), 2.0)),
    ],
)
def test_an_output_that_is_then_written_in_place_counts(layer: nn.Module, x: Tensor, inplace: bool) -> None:
    model = nn.Sequential(copy.deepcopy(layer), nn.ReLU(inplace=inplace))
    optimizer = lab.INSGD(model, beta=0.0)
    model(x).sum().backward()
    optimizer.step()
    assert power(optimizer, model[0].weight) == pytest.approx(12.0)


def test_attention_whose_output_is_written_in_place_counts() -> None:
    model = Attend()
    optimizer = lab.INSGD(model, beta=0.0)
    model(torch.ones(2, 3, 4)).sum().backward()
    optimizer.step()
    assert power(optimizer, model.attention.in_proj_weight) == pytest.approx(4.0)
    assert optimizer.state[model.attention.out_proj.weight]["log_power"].isfinite()


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_counts_once(reentrant: bool) -> None:
    layer, optimizer = layer_and_optimizer()
    x = ones(2.0).requires_grad_()
    y = checkpoint(lambda v: F.relu(layer(v)), x, use_reentrant=reentrant)
    (y.sum() + layer(ones(1.0, 6)).sum()).backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx((2 * 12 + 6 * 3) / 8)


def test_a_step_that_the_scaler_skips_counts_nothing() -> None:
    layer, optimizer = layer_and_optimizer()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for value in (math.inf, 2.0):
        optimizer.zero_grad()
        x = ones(2.0 if value == 2.0 else 50.0)
        loss = layer(x).sum() * (1.0 if value == 2.0 else math.inf)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.state[layer.weight]["step"] == 1
    assert power(optimizer, layer.weight) == pytest.approx(12.0)


def test_autocast_and_half_precision_inputs_are_measured_in_float32() -> None:
    layer, optimizer = layer_and_optimizer()
    with torch.autocast("cpu", torch.bfloat16):
        layer(ones(2.0)).sum().backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx(12.0)
    half = nn.Linear(3, 2).half()
    optimizer = lab.INSGD(half, beta=0.0)
    half(torch.full((2, 3), 300.0, dtype=torch.float16)).float().mean().backward()
    optimizer.step()
    assert power(optimizer, half.weight) == pytest.approx(270000.0)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(3, 2), torch.full((3,), 2.0)),
        (nn.Conv2d(3, 2, 1), torch.full((3, 1, 1), 2.0)),
        (nn.Conv1d(3, 2, 1), torch.full((3, 1), 2.0)),
        (nn.Conv3d(3, 2, 1), torch.full((4, 3, 1, 1, 1), 2.0)),
        (nn.ConvTranspose2d(3, 2, 2), torch.full((4, 3, 1, 1), 2.0)),
    ],
)
@pytest.mark.parametrize("keyword", [True, False])
def test_unbatched_and_keyword_inputs_are_measured(layer: nn.Module, x: Tensor, keyword: bool) -> None:
    layer = copy.deepcopy(layer)
    optimizer = lab.INSGD(layer, beta=0.0)
    (layer(input=x) if keyword else layer(x)).sum().backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx(12.0)


def test_sequences_count_every_vector_as_an_example() -> None:
    layer, optimizer = layer_and_optimizer()
    x = torch.randn(4, 5, 3)
    layer(x).sum().backward()
    layer(ones(1.0, 20)).sum().backward()
    optimizer.step()
    wanted = (x.square().sum(-1).mean() + 3) / 2
    assert power(optimizer, layer.weight) == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("dims", [{}, {"kdim": 5, "vdim": 7}])
@pytest.mark.parametrize("bias", [True, False])
def test_attention_measures_its_in_and_out_projections(dims: dict[str, int], bias: bool) -> None:
    attention = nn.MultiheadAttention(4, 2, bias=bias, batch_first=True, **dims)
    optimizer = lab.INSGD(attention, lr=0.0, beta=0.0)
    query, key, value = (
        torch.randn(2, 3, 4),
        torch.randn(2, 5, dims.get("kdim", 4)),
        torch.randn(2, 5, dims.get("vdim", 4)),
    )
    seen: list[Tensor] = []
    linear = F.linear
    output, _ = attention(query, key, value=value)
    assert F.linear is linear
    output.sum().backward()
    optimizer.step()
    powers = [x.square().sum(-1).mean().item() for x in (query, key, value)]
    if dims:
        got = [power(optimizer, w) for w in (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)]
    else:
        blocks = optimizer.state[attention.in_proj_weight]["log_power"]
        assert blocks.shape == (12, 1)
        got = blocks.exp().view(3, 4)[:, 0].tolist()
    assert got == pytest.approx(powers, rel=1e-5)
    inverse = torch.linalg.solve(attention.out_proj.weight, (output - (attention.out_proj.bias if bias else 0)).mT)
    seen.append(inverse.mT.detach())
    assert power(optimizer, attention.out_proj.weight) == pytest.approx(
        seen[0].square().sum(-1).mean().item(), rel=1e-2
    )


def test_an_error_inside_attention_leaves_torch_as_it_was() -> None:
    attention = nn.MultiheadAttention(4, 2)
    optimizer = lab.INSGD(attention)
    linear = F.linear
    with pytest.raises((RuntimeError, AssertionError)):
        attention(torch.randn(2, 3, 5), torch.randn(2, 3, 5), torch.randn(2, 3, 5))
    assert F.linear is linear
    optimizer.close()


def test_a_broken_off_forward_through_attention_is_healed_by_zero_grad() -> None:
    attention = nn.MultiheadAttention(4, 2)
    optimizers = [lab.INSGD(attention, beta=0.0) for _ in range(2)]
    linear = F.linear

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = attention.register_forward_hook(stop, prepend=True)
    with pytest.raises(KeyboardInterrupt):
        attention(*[torch.ones(2, 3, 4)] * 3)
    handle.remove()
    for optimizer in optimizers:
        optimizer.zero_grad()
    assert F.linear is linear
    attention(*[torch.ones(2, 3, 4)] * 3)[0].sum().backward()
    assert F.linear is linear
    for optimizer in optimizers:
        optimizer.step()
        assert power(optimizer, attention.in_proj_weight) == pytest.approx(4.0)


def test_threads_that_train_attention_at_once_do_not_meet() -> None:
    linear, attentions = F.linear, [nn.MultiheadAttention(4, 2) for _ in range(4)]

    def trained(attention: nn.MultiheadAttention) -> list[float]:
        optimizer, x = lab.INSGD(attention, lr=0.0, beta=0.0), torch.ones(2, 3, 4)
        powers = []
        for _ in range(20):
            optimizer.zero_grad()
            attention(x, x, x)[0].sum().backward()
            optimizer.step()
            powers.append(power(optimizer, attention.out_proj.weight))
        return powers

    with ThreadPoolExecutor(len(attentions)) as pool:
        together = list(pool.map(trained, attentions))
    assert F.linear is linear
    assert together == [trained(attention) for attention in attentions]


def test_tied_weights_average_the_calls_of_every_layer_that_owns_them() -> None:
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    optimizer = lab.INSGD(nn.ModuleList([first, second]), beta=0.0)
    (first(ones(1.0, 1)).sum() + second(ones(2.0, 3)).sum()).backward()
    optimizer.step()
    assert power(optimizer, first.weight) == pytest.approx((3 + 3 * 12) / 4)


@pytest.mark.parametrize(
    ("layer", "granularity", "shape"),
    [
        (nn.Linear(3, 2), "channel", ()),
        (nn.Conv2d(4, 6, 3), "layer", ()),
        (nn.Conv2d(4, 6, 3), "neuron", ()),
        (nn.Conv2d(4, 6, 3), "channel", (1, 4, 1, 1)),
        (nn.Conv2d(4, 6, 3, groups=2), "neuron", (6, 1, 1, 1)),
        (nn.Conv2d(4, 6, 3, groups=2), "channel", (6, 2, 1, 1)),
        (nn.Conv1d(4, 6, 3), "channel", (1, 4, 1)),
        (nn.ConvTranspose2d(4, 6, 3), "channel", (4, 1, 1, 1)),
    ],
)
def test_powers_have_the_shape_of_their_granularity(layer: nn.Module, granularity: str, shape: tuple[int, ...]) -> None:
    layer = copy.deepcopy(layer)
    optimizer = lab.INSGD(layer, granularity=granularity)
    size = (2, 3) if isinstance(layer, nn.Linear) else (2, 4, *(5,) * (layer.weight.ndim - 2))
    layer(torch.randn(size)).sum().backward()
    optimizer.step()
    assert optimizer.state[layer.weight]["log_power"].shape == shape


def test_neuron_granularity_is_refused_for_transposed_convolutions() -> None:
    with pytest.raises(ValueError, match=r"granularity='neuron'.*ConvTranspose2d"):
        lab.INSGD(nn.ConvTranspose2d(4, 6, 3), granularity="neuron")


def test_a_granularity_is_asked_only_of_the_groups_own_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 3, 3))
    groups = [
        {"params": model[0].parameters(), "granularity": "neuron"},
        {"params": model[1].parameters(), "granularity": "channel"},
    ]
    optimizer = lab.INSGD(groups, model=model)
    model(torch.randn(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    assert optimizer.state[model[1].weight]["log_power"].shape == (4, 1, 1, 1)


def test_a_refused_granularity_leaves_the_optimizer_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 3, 3))
    optimizer = lab.INSGD(model[0].parameters(), model=model)
    with pytest.raises(ValueError, match="ConvTranspose2d"):
        optimizer.add_param_group({"params": list(model[1].parameters()), "granularity": "neuron"})
    assert len(optimizer.param_groups) == 1


def test_a_parametrised_weight_is_left_alone() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2))
    vector = layer.parametrizations.weight[0]._u.clone()
    with pytest.warns(UserWarning, match=r"computed from parametrizations\.weight\.original, .* scale 1"):
        optimizer = lab.INSGD(layer, momentum=0)
    assert torch.equal(layer.parametrizations.weight[0]._u, vector)
    layer(ones(2.0)).sum().backward()
    optimizer.step()
    assert all(state["log_power"].numel() == 0 for state in optimizer.state.values())


def test_a_restored_power_is_used_before_the_first_measurement_and_not_warned_of() -> None:
    layer, optimizer = layer_and_optimizer()
    layer(ones(2.0)).sum().backward()
    optimizer.step()
    restored = lab.INSGD(layer, lr=0.01)
    restored.load_state_dict(optimizer.state_dict())
    restored.step()
    assert power(restored, layer.weight) == pytest.approx(12.0)


def test_an_empty_batch_measures_nothing() -> None:
    layer, optimizer = layer_and_optimizer()
    (layer(torch.zeros(0, 3)).sum() + layer(ones(2.0)).sum()).backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx(12.0)


def test_hooks_die_with_the_optimizer_and_with_close() -> None:
    layer, optimizer = layer_and_optimizer()
    assert len(layer._forward_hooks) == 1
    optimizer.close()
    assert not layer._forward_hooks
    layer, optimizer = layer_and_optimizer()
    del optimizer
    gc.collect()
    assert not layer._forward_hooks


def test_a_copy_of_the_model_alone_measures_nothing_and_a_copied_pair_goes_on() -> None:
    layer, optimizer = layer_and_optimizer()
    twin = copy.deepcopy(layer)
    twin(ones(9.0)).sum().backward()
    pair = pickle.loads(pickle.dumps((layer, optimizer)))
    for copied_layer, copied in (copy.deepcopy((layer, optimizer)), pair, (layer, optimizer)):
        copied.zero_grad()
        copied_layer(ones(2.0)).sum().backward()
        copied.step()
        assert power(copied, copied_layer.weight) == pytest.approx(12.0)
        assert len(copied_layer._forward_hooks) == 1
    torch.testing.assert_close(pair[0].weight, layer.weight, rtol=0, atol=0)


def test_two_optimizers_share_a_model_without_mixing_their_powers() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    optimizers = [lab.INSGD(layer.parameters(), model=model, beta=0.0) for layer in model]
    hidden = model[0](ones(2.0))
    model[1](hidden).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    assert power(optimizers[0], model[0].weight) == pytest.approx(12.0)
    assert model[0].weight not in optimizers[1].state


def test_groups_may_measure_differently() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    groups = [{"params": model[0].parameters(), "p": 1.0}, {"params": model[1].parameters(), "p": math.inf}]
    optimizer = lab.INSGD(groups, model=model, beta=0.0)
    x = torch.full((2, 3), 2.0)
    hidden = model[0](x)
    model[1](hidden).sum().backward()
    optimizer.step()
    assert power(optimizer, model[0].weight) == pytest.approx(6.0)
    assert power(optimizer, model[1].weight) == pytest.approx(hidden.detach().abs().amax(1).mean().item())


def test_layers_added_later_are_picked_up_with_their_group() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    optimizer = lab.INSGD(model, beta=0.0)
    model.append(nn.Linear(3, 1))
    optimizer.add_param_group({"params": list(model[1].parameters())})
    model(ones(1.0)).sum().backward()
    optimizer.step()
    assert optimizer.state[model[1].weight]["log_power"].isfinite()


# Where a graph breaks, dynamo looks at the .grad of what is handed on; it hides torch's warning, but not an error.
hidden = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@hidden
def test_a_compiled_model_is_measured() -> None:
    layer, optimizer = layer_and_optimizer()
    compiled = torch.compile(layer, backend="eager")
    for _ in range(2):
        optimizer.zero_grad()
        compiled(ones(2.0)).sum().backward()
        optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx(12.0)


# Ways to run a model in which weights or inputs are not what they seem.
def test_streams_of_attention_are_weighted_by_their_own_examples() -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    optimizer = lab.INSGD(attention, beta=0.0)
    query = torch.ones(2, 3, 4)
    memories = [torch.ones(2, 1, 4), torch.full((2, 7, 4), 2.0)]
    for memory in memories:
        attention(query, memory, memory)[0].sum().backward()
    optimizer.step()
    blocks = optimizer.state[attention.in_proj_weight]["log_power"].exp().view(3, 4)[:, 0]
    assert blocks.tolist() == pytest.approx([4.0, (1 * 4 + 7 * 16) / 8, (1 * 4 + 7 * 16) / 8])


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_to_nothing_measures_the_query_alone(need_weights: bool) -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    optimizer = lab.INSGD(attention, beta=0.0)
    nothing = torch.zeros(2, 0, 4)
    attention(torch.ones(2, 3, 4), nothing, nothing, need_weights=need_weights)[0].sum().backward()
    optimizer.step()
    blocks = optimizer.state[attention.in_proj_weight]["log_power"].exp().view(3, 4)[:, 0]
    assert blocks[0].item() == pytest.approx(4.0)
    assert blocks[1:].isnan().all()


def test_an_out_projection_that_is_called_as_a_layer_is_measured() -> None:
    attention = nn.MultiheadAttention(4, 2)
    optimizer = lab.INSGD([attention.out_proj.weight], model=attention, beta=0.0)
    attention.out_proj(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    assert power(optimizer, attention.out_proj.weight) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (nn.utils.parametrizations.weight_norm, r"weight\.original0, .*weight\.original1"),
        (nn.utils.parametrizations.orthogonal, r"weight\.original"),
        (lambda layer: prune.l1_unstructured(layer, "weight", 1), "weight_orig"),
    ],
)
def test_weights_computed_from_other_parameters_are_named_and_take_scale_one(wrap: Any, names: str) -> None:
    plain = nn.Linear(3, 3)
    layer, twin = wrap(copy.deepcopy(plain)), wrap(plain)
    with pytest.warns(UserWarning, match=f"computed from .*{names}, .*take scale 1.*remove_parametrizations"):
        optimizer = lab.INSGD(layer, lr=0.1)
    for model, stepping in ((layer, optimizer), (twin, lab.SGD(twin, lr=0.1))):
        model(ones(2.0)).sum().backward()
        stepping.step()
    for ours, theirs in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_weight_that_is_parametrised_later_is_no_longer_measured() -> None:
    layer, optimizer = layer_and_optimizer()
    layer(ones(2.0)).sum().backward()
    optimizer.step()
    weight = layer.weight
    nn.utils.parametrizations.spectral_norm(layer)
    layer(ones(3.0)).sum().backward()
    optimizer.step()
    assert power(optimizer, weight) == pytest.approx(12.0)


def test_a_lazy_layer_is_measured_once_it_has_its_shape() -> None:
    layer = nn.LazyLinear(2)
    optimizer = lab.INSGD(layer, beta=0.0)
    layer(ones(2.0)).sum().backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx(12.0)
    with pytest.raises(ValueError, match=r"weight has no shape yet.*'channel'.*call the model once"):
        lab.INSGD(nn.LazyConv2d(2, 3), granularity="channel")


def test_a_functional_call_counts_for_the_parameters_that_it_was_given() -> None:
    layer, optimizer = layer_and_optimizer()
    own = dict(layer.named_parameters())
    others = {name: param.detach().clone().requires_grad_() for name, param in own.items()}
    torch.func.functional_call(layer, others, (ones(9.0),)).sum().backward()
    torch.func.functional_call(layer, own, (ones(2.0),)).sum().backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx(12.0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own, of its forward-mode rules
def test_function_transforms_run_and_count_nothing() -> None:
    layer, optimizer = layer_and_optimizer()
    torch.func.vmap(torch.func.jacrev(layer))(ones(9.0))
    torch.func.jacfwd(layer)(ones(9.0))

    def loss(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, params, (x,)).sum()

    torch.func.vmap(torch.func.grad(loss), (None, 0))(dict(layer.named_parameters()), ones(9.0))
    layer(ones(2.0)).sum().backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx(12.0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_ragged_sequences_count_every_vector_as_an_example() -> None:
    layer, optimizer = layer_and_optimizer()
    ragged = torch.nested.nested_tensor([ones(1.0, 1), ones(2.0, 3)], layout=torch.jagged)
    layer(ragged).values().sum().backward()
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx((3 + 3 * 12) / 4)


@pytest.mark.parametrize("granularity", ["layer", "neuron", "channel"])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_a_convolutions_statistic(granularity: str, center: bool, dtype: torch.dtype) -> None:
    x = torch.randn(2, 4, 5, 5) * 300
    powers = []
    for enabled in (False, True):
        layer = nn.Conv2d(4, 2, 3)
        optimizer = lab.INSGD(layer, beta=0.0, granularity=granularity, center=center)
        with torch.autocast("cpu", dtype, enabled=enabled):
            output = layer(x)
        output.float().mean().backward()
        optimizer.step()
        powers.append(optimizer.state[layer.weight]["log_power"])
    torch.testing.assert_close(powers[0], powers[1], rtol=0, atol=0)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("dims", [{}, {"kdim": 5, "vdim": 7}, {"add_bias_kv": True, "add_zero_attn": True}])
def test_the_out_projection_is_measured_however_attention_is_called(
    need_weights: bool, batch_first: bool, batched: bool, dims: dict[str, Any]
) -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=batch_first, **dims)
    nn.init.eye_(attention.out_proj.weight)  # so that the output is what the projection was fed
    optimizer = lab.INSGD(attention, beta=0.0)
    shape = (2, 3) if batched else (3,)
    inputs = [torch.randn(*shape, dims.get(dim, 4)) for dim in ("", "kdim", "vdim")]
    output, _ = attention(*inputs, need_weights=need_weights)
    output.sum().backward()
    optimizer.step()
    fed = output.detach().square().sum(-1).mean().item()
    assert power(optimizer, attention.out_proj.weight) == pytest.approx(fed, rel=1e-5)


@pytest.mark.parametrize("granularity", ["layer", "neuron", "channel"])
@pytest.mark.parametrize("p", [1.0, 2.0, 16.0, math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_largest_inputs_of_a_type_have_a_power(granularity: str, p: float, dtype: torch.dtype) -> None:
    size = 3e4 if dtype == torch.float16 else 1e30
    layer = nn.Conv2d(2, 1, 1).to(dtype)
    optimizer = lab.INSGD(layer, beta=0.0, p=p, granularity=granularity)
    x = torch.full((2, 2, 2, 2), size, dtype=dtype)
    layer(x).backward(torch.ones(2, 1, 2, 2, dtype=dtype))
    optimizer.step()
    numbers = {"layer": 8, "neuron": 2, "channel": 4}[granularity]
    size = x.flatten()[0].double().item()
    wanted = math.log(size) if p == math.inf else math.log(numbers) + p * math.log(size)
    got = optimizer.state[layer.weight]["log_power"]
    torch.testing.assert_close(got, torch.full_like(got, wanted), rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1.0, 1e30])
def test_centring_does_not_overflow(size: float) -> None:
    layer = nn.Linear(4, 1)
    optimizer = lab.INSGD(layer, beta=0.0, center=True)
    output = layer(torch.tensor([[3.0, -1.0, 2.0, 0.0]]) * size)
    output.backward(torch.ones_like(output))
    optimizer.step()
    assert power(optimizer, layer.weight) == pytest.approx(3.0)


def test_evaluation_is_one_graph_in_spite_of_the_sensor() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    optimizer = lab.INSGD(model)
    compiled = torch.compile(model.eval(), backend="eager", fullgraph=True)
    x = torch.ones(2, 5, 3)
    torch.testing.assert_close(compiled(x), model(x))
    optimizer.close()


@hidden
def test_a_closed_optimizer_measures_nothing_in_a_model_compiled_before() -> None:
    torch.compiler.reset()
    layer, optimizer = layer_and_optimizer()
    compiled = torch.compile(layer, backend="eager")
    compiled(ones(2.0)).sum().backward()
    sensor = optimizer.rules[0].sensor
    meter = sensor._meters[layer.weight]
    optimizer.close()
    calls = list(meter.calls)
    compiled(ones(2.0)).sum().backward()
    assert meter.calls == calls


def test_a_copied_sensor_keeps_its_process_group() -> None:
    layer, group = nn.Linear(3, 2), object()
    sensor = InputSensor(layer, group)
    assert copy.deepcopy(sensor)._process_group is not None
