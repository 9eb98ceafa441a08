import pytest
import torch
from torch import nn

from insgd_lab import registry
from insgd_lab.training import models
from insgd_lab.training.streams import generator

COUNTS = [
    (models.digits_cnn, (1, 8, 8), {}, 3818),
    (models.digits_cnn, (1, 8, 8), {"batch_norm": True}, 3842),
    (models.mlp, (1, 8, 8), {}, 26122),
    (models.mlp, (1, 8, 8), {"batch_norm": True}, 26378),
    (models.mlp, (1, 8, 8), {"hidden": []}, 650),
    (models.custom_cnn, (3, 32, 32), {}, 34898),
    (models.custom_cnn, (3, 32, 32), {"batch_norm": False}, 34778),
    (models.resnet20, (3, 32, 32), {}, 272474),  # He et al.'s 0.27 million, with projections on two shortcuts
    (models.resnet20, (3, 32, 32), {"batch_norm": False}, 271690),
]


@pytest.mark.parametrize(("factory", "shape", "options", "count"), COUNTS)
def test_models_have_their_parameters_and_give_scores_and_gradients(factory, shape, options, count):
    model = factory(shape, 10, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    scores = model(torch.rand(3, *shape, generator=generator(0, "test")))
    assert scores.shape == (3, 10)
    scores.logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def shapes_of(model, image):
    """Output shape of each convolution, of one image."""
    shapes = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    model(image)
    return shapes


def test_the_custom_network_has_the_shapes_of_the_papers_table_2():
    model = models.custom_cnn((3, 32, 32), 10).eval()
    assert shapes_of(model, torch.zeros(1, 3, 32, 32)) == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4)]
    dropout, flatten, linear = list(model)[-3:]
    assert (dropout.p, linear.in_features) == (0.2, 1024)
    assert isinstance(flatten, nn.Flatten)


def test_resnet20_has_twenty_weighted_layers_and_65_tensors():
    model = models.resnet20((3, 32, 32), 10)
    weighted = [m for m in model.modules() if isinstance(m, nn.Linear) or getattr(m, "kernel_size", ()) == (3, 3)]
    assert len(weighted) == 20
    assert len(list(model.parameters())) == 65
    assert shapes_of(model.eval(), torch.zeros(1, 3, 32, 32))[-1] == (64, 8, 8)


@pytest.mark.parametrize("name", registry.list_models())
def test_batch_norm_is_there_only_if_asked_for(name):
    entry = registry.get_model(name)
    factory = registry.resolve_factory(entry.factory)
    for wanted in (True, False):
        model = factory((1, 8, 8), 10, **{**entry.defaults, "batch_norm": wanted})
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert bool(norms) == wanted
        assert all(layer.bias is not None for layer in layers) != wanted


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 20)])
def test_convolutional_models_take_other_image_sizes(shape):
    for factory in (models.digits_cnn, models.custom_cnn, models.resnet20):
        assert factory(shape, 7)(torch.zeros(2, *shape)).shape == (2, 7)
