import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import insgd_lab as lab
from insgd_lab import registry
from insgd_lab.catalogue import SPECS
from insgd_lab.training import models
from insgd_lab.training.streams import generator
from insgd_lab.training.vision import torchvision

pytestmark = pytest.mark.usefixtures("vision")

DIGITS, SMALL, LARGE = (1, 8, 8), (3, 32, 32), (3, 224, 224)
BUILT_IN = {spec.name: spec for spec in SPECS if isinstance(spec, registry.ModelSpec)}
NORMS = {"batch_norm", "layer_norm"}
NORM_MODULES = nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm

# Input, classes, parameters, the same without norms, multiply-adds, and what is published of the parameters.
TABLE = {
    "linear": (DIGITS, 10, 650, None, 640, None),
    "point": ((10,), 10, 10, None, 0, None),
    "mlp": (DIGITS, 10, 26_122, 26_122, 25_856, None),
    "digits-cnn": (DIGITS, 10, 3_818, 3_818, 25_600, None),
    "custom-cnn": (SMALL, 10, 34_898, 34_778, 1_116_160, None),
    "resnet20": (SMALL, 10, 272_474, 271_690, 40_813_184, "0.27 M"),
    "resnet18": (SMALL, 10, 11_173_962, 11_169_162, 555_422_720, "11.17 M"),
    "resnet50": (SMALL, 10, 23_520_842, 23_494_282, 1_297_829_888, "23.52 M"),
    "resnet50, 7 × 7": (LARGE, 1000, 25_557_032, None, 4_089_184_256, "25,557,032"),
    "wrn18": (SMALL, 100, 44_688_036, 44_678_372, 2_149_355_520, None),
    "vgg16": (SMALL, 10, 14_724_042, 14_719_818, 313_201_664, "14.73 M"),
    "vit": (SMALL, 10, 9_532_938, 9_519_626, 640_953_344, None),
    "mobilenetv3": (SMALL, 10, 1_528_106, None, 5_502_720, None),
    "mobilenetv3, stride 2": (LARGE, 1000, 2_542_856, None, 56_510_400, "2,542,856"),
}

# Rows that are a model of the registry with other options than its defaults.
CHOSEN = {"resnet50, 7 × 7": {"stem": "7x7"}, "mobilenetv3, stride 2": {"stem_stride": 2}}

# Options that make a large model small, where it has any.
TINY_VIT = {"depth": 1, "dim": 32, "heads": 2, "mlp_dim": 16}


def without_numbers(row, **options):
    """The model of a row of the table on the meta device: shapes only."""
    shape, classes = TABLE[row][:2]
    spec = spec_of(row)
    with torch.device("meta"):
        chosen = {**spec.defaults, **CHOSEN.get(row, {}), **options}
        return registry.resolve_factory(spec.factory)(shape, classes, **chosen)


def spec_of(row):
    return BUILT_IN[row.partition(",")[0]]


@pytest.mark.parametrize("spec", BUILT_IN.values(), ids=lambda spec: spec.name)
def test_options_have_domains_that_hold_their_defaults(spec):
    parameters = inspect.signature(registry.resolve_factory(spec.factory)).parameters
    options = {name: value.default for name, value in parameters.items() if value.kind is value.KEYWORD_ONLY}
    assert {name: tuple(v) if isinstance(v, list) else v for name, v in spec.defaults.items()} == options
    for option, default in spec.defaults.items():
        assert spec.domains[option].accepts(default)
        assert not spec.domains[option].accepts(-1)


def images(shape, count=3):
    return torch.rand(count, *shape, generator=generator(0, "test"))


def test_the_table_has_every_model():
    assert {spec_of(row).name for row in TABLE} == set(BUILT_IN)


@pytest.mark.parametrize("name", TABLE)
def test_models_have_the_size_of_the_table(name):
    shape, _, parameters, plain, multiply_adds, _ = TABLE[name]
    assert models.count(without_numbers(name), shape) == models.Size(parameters, multiply_adds)
    switches = {} if name in CHOSEN else dict.fromkeys(NORMS & spec_of(name).defaults.keys(), False)
    assert bool(switches) == (plain is not None)
    if switches:
        assert models.count(without_numbers(name, **switches), shape) == models.Size(plain, multiply_adds)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[5]])
def test_models_have_the_published_number_of_parameters(name):
    spared = 4_224 if name == "vgg16" else 0  # biases of the convolutions in front of batch normalisation
    number = TABLE[name][2] + spared
    assert TABLE[name][5] in (f"{number / 1e6:.2f} M", f"{number:,}")


@pytest.mark.parametrize(("width", "published"), [(1, 11.7), (2, 45.6), (3, 101.8)])
def test_the_wide_network_is_zagoruyko_and_komodakis_on_imagenet_but_for_the_stem(width, published):
    with torch.device("meta"):
        model = models.wrn18((3, 32, 32), 1000, width=width)
    of_seven = 3 * 64 * (7**2 - 3**2)
    assert round((models.count(model, SMALL).parameters + of_seven) / 1e6, 1) == published


def test_vgg16_has_the_multiply_adds_that_li_et_al_count():
    second_linear_layer = 512 * 512
    assert f"{TABLE['vgg16'][4] + second_linear_layer:.2e}" == "3.13e+08"


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet50, 7 × 7", "ResNet50_Weights"),
        ("mobilenetv3, stride 2", "MobileNet_V3_Small_Weights"),
    ],
)
def test_the_networks_for_imagenet_are_those_that_torchvision_publishes_weights_for(name, weights):
    published = getattr(torchvision().models, weights).IMAGENET1K_V1
    assert published.meta["num_params"] == TABLE[name][2]
    assert published.meta["_ops"] == round(TABLE[name][4] / 1e9, 3)  # in thousands of millions
    with torch.device("meta"):
        theirs = getattr(torchvision().models, weights.removesuffix("_Weights").lower())()
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in without_numbers(name).state_dict().items()} == shapes


def in_the_docs(name):
    shape, classes, parameters, plain, multiply_adds, published = TABLE[name]
    size = " × ".join(map(str, shape))
    label = "".join([f"`{spec_of(name).name}`", *name.partition(",")[1:]])
    cells = [label, size, classes, f"{parameters:,}", f"{plain:,}" if plain else "", f"{multiply_adds:,}"]
    return re.sub(" +", " ", "| " + " | ".join(map(str, [*cells, published or ""])) + " |")


def test_the_docs_have_the_table():
    docs = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `.*$", docs, re.MULTILINE) == [in_the_docs(name) for name in TABLE]


def test_counting_sums_the_products_of_each_kind_of_layer_and_leaves_the_model_alone():
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(6), nn.Flatten(2), nn.Linear(16, 5)
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert models.count(model, (4, 8, 8)).multiply_adds == 6 * 16 * 2 * 9 + 6 * 16 * 5
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    one = models.vit((1, 4, 4), 3, patch=2, dim=8, depth=1, heads=2, mlp_dim=6)
    tokens = 5
    attention = 3 * tokens * 8 * 8 + 2 * tokens * tokens * 8 + tokens * 8 * 8
    assert models.count(one, (1, 4, 4)).multiply_adds == 4 * 4 * 8 + attention + 2 * tokens * 8 * 6 + 8 * 3


def small_resnet(block):
    return lambda shape, classes, batch_norm: models.ResNet(
        shape[0], classes, block, (8, 16), (1, 2), stem=4, batch_norm=batch_norm
    )


SMALL_ENOUGH = [
    pytest.param(factory, shape, options, id=f"{label}-{options}")
    for label, factory, shape, choices in [
        ("linear", models.linear, DIGITS, [{}]),
        ("mlp", models.mlp, DIGITS, [{}, {"batch_norm": True}, {"hidden": []}]),
        ("digits-cnn", models.digits_cnn, DIGITS, [{}, {"batch_norm": True}]),
        ("custom-cnn", models.custom_cnn, SMALL, [{}, {"batch_norm": False}]),
        ("resnet20", models.resnet20, (3, 16, 16), [{}, {"batch_norm": False}]),
        ("basic", small_resnet(models.Block), SMALL, [{"batch_norm": True}, {"batch_norm": False}]),
        ("bottleneck", small_resnet(models.Bottleneck), SMALL, [{"batch_norm": True}, {"batch_norm": False}]),
        ("vgg16", models.vgg16, (3, 16, 16), [{}, {"batch_norm": False}]),
        ("vit", models.vit, (3, 8, 8), [TINY_VIT, {**TINY_VIT, "layer_norm": False, "dropout": 0.1}]),
        ("mobilenetv3", models.mobilenetv3, SMALL, [{}]),
    ]
    for options in choices
]


@pytest.mark.parametrize(("factory", "shape", "options"), SMALL_ENOUGH)
def test_models_give_scores_and_a_gradient_to_every_parameter(factory, shape, options):
    torch.manual_seed(0)
    model = factory(shape, 10, **options)
    scores = model(images(shape))
    assert scores.shape == (3, 10)
    nn.functional.cross_entropy(scores, torch.tensor([0, 1, 2])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50, 7 × 7", "wrn18", "vit"])
def test_large_models_give_scores_and_a_gradient_to_every_parameter(name):
    model = without_numbers(name)
    shape, classes = TABLE[name][:2]
    scores = model(torch.empty(2, *shape, device="meta"))
    assert scores.shape == (2, classes)
    scores.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("factory", "shape", "options"), SMALL_ENOUGH)
def test_insgd_measures_every_weight(factory, shape, options):
    torch.manual_seed(0)
    model = factory(shape, 10, **options)
    optimizer = lab.INSGD(model, lr=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    nn.functional.cross_entropy(model(images(shape)), torch.tensor([0, 1, 2])).backward()
    optimizer.step()
    layers = (nn.Conv2d, nn.Linear)  # attention's projection out is a Linear
    weights = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, layers)}
    weights |= {name for name, _ in model.named_parameters() if name.endswith("in_proj_weight")}
    named = dict(model.named_parameters())
    assert all(optimizer.state[named[name]]["log_power"].isfinite().all() for name in weights)
    assert not any(optimizer.state[named[name]]["log_power"].numel() for name in named.keys() - weights)
    assert all(not old.equal(new) for old, new in zip(before, model.parameters(), strict=True))


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


@pytest.mark.parametrize(
    ("name", "layers", "tensors", "last"),
    [
        ("resnet20", 20, 65, (64, 8, 8)),
        ("resnet18", 18, 62, (512, 4, 4)),
        ("wrn18", 18, 65, (1024, 4, 4)),
        ("resnet50", 50, 161, (2048, 4, 4)),
        ("vgg16", 14, 41, (512, 2, 2)),
    ],
)
def test_residual_networks_and_vgg16_have_their_layers(name, layers, tensors, last):
    model = without_numbers(name)
    on_the_way = [module for key, module in model.named_modules() if "shortcut" not in key]
    assert sum(isinstance(module, nn.Linear | nn.Conv2d) for module in on_the_way) == layers
    assert len(list(model.parameters())) == tensors
    final = shapes_of(model.eval(), torch.empty(1, *SMALL, device="meta"))
    assert last in final[-2:]  # the last block's shortcut, or its last convolution


@pytest.mark.parametrize("name", [name for name, spec in BUILT_IN.items() if NORMS & spec.defaults.keys()])
def test_norms_are_there_only_if_asked_for(name):
    (option,) = NORMS & BUILT_IN[name].defaults.keys()
    for wanted in (True, False):
        model = without_numbers(name, **{option: wanted})
        assert any(isinstance(module, NORM_MODULES) for module in model.modules()) == wanted
        layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        assert any(layer.bias is None for layer in layers) == (wanted and option == "batch_norm")


def test_torchvisions_models_differ_from_it_in_the_first_convolution_only():
    torch.manual_seed(0)
    model = models.mobilenetv3(SMALL, 10)
    assert shapes_of(model.eval(), images(SMALL, 1))[0] == (16, 32, 32)
    assert shapes_of(model, images(SMALL, 1))[-2] == (96, 2, 2)
    stem = model.features[0][0]
    assert (stem.kernel_size, stem.stride, stem.padding, stem.bias) == ((3, 3), (1, 1), (1, 1), None)
    with torch.device("meta"):
        theirs = torchvision().models.mobilenet_v3_small(num_classes=10)
    assert repr(model).replace("stride=(1, 1)", "", 1) == repr(theirs).replace("stride=(2, 2)", "", 1)
    grey = models.resnet50((1, 64, 64), 5, stem="7x7").conv1
    assert (grey.kernel_size, grey.stride, grey.padding) == ((7, 7), (2, 2), (3, 3))
    assert float(grey.weight.detach().std()) == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)  # by its outputs


def test_torchvisions_resnet50_has_batch_norm():
    with pytest.raises(ValueError, match=r'batch_norm = False: stem = "7x7" .* choose stem = "3x3"'):
        models.resnet50(LARGE, 10, stem="7x7", batch_norm=False)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 20)])
def test_convolutional_models_take_other_image_sizes(shape):
    for factory in (models.digits_cnn, models.custom_cnn, models.resnet20):
        assert factory(shape, 7)(torch.zeros(2, *shape)).shape == (2, 7)
    for factory in (models.resnet18, models.resnet50, models.wrn18, models.vgg16, models.mobilenetv3):
        with torch.device("meta"):
            assert factory(shape, 7)(torch.empty(2, *shape)).shape == (2, 7)


def test_the_transformer_sees_its_patches_in_place_and_scores_its_class_token():
    torch.manual_seed(0)
    model = models.vit((2, 4, 6), 5, patch=2, **TINY_VIT).eval()
    x = images((2, 4, 6))
    by_hand = x.reshape(3, 2, 2, 2, 3, 2).permute(0, 2, 4, 1, 3, 5).reshape(3, 6, 8)  # rows of patches, then columns
    seen = []
    model.embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert model(x).shape == (3, 5)
    assert seen[0].equal(by_hand)
    tokens = torch.cat([model.token.expand(3, -1, -1), model.embed(by_hand)], 1) + model.position
    torch.testing.assert_close(model(x), model.head(model.norm(model.blocks(tokens)[:, 0])))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"patch": 5}, "images of 32 x 32 are no whole number"), ({"heads": 7}, "choose heads that divide it")],
)
def test_the_transformer_refuses_parts_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        models.vit(SMALL, 10, **options)
