"""The specs of everything built in: names, citations, equations, defaults. Data only, and no torch.

A factory is a string, imported when the first instance is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from insgd_lab.hyperparameters import DOMAINS, NO_LAYER, PAIRS
from insgd_lab.registry import Capabilities, DataSpec, ModelSpec, OptimizerSpec

__all__ = ["SPECS"]

INSGD_PAPER = "Input Normalized Stochastic Gradient Descent Training for Deep Neural Networks, TMLR 2024"
ADANORM_PAPER = (
    "Dubey, Singh, Chaudhuri: AdaNorm: Adaptive Gradient Norm Correction based Optimizer for CNNs, WACV 2023"
)

HE_PAPER = "He et al., Deep Residual Learning, CVPR 2016"

_LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_ADAM_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)

# What every named chain takes beside its own options.
_COMMON: Mapping[str, Any] = {"maximize": False, "project": None}
_CORRECTABLE: Mapping[str, Any] = {**_COMMON, "adanorm": None}

_ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
_CORRECTION = {"gamma": 0.95, "scope": "tensor"}
_GAMMAS = (0.0, 0.9, 0.95, 0.99)

_INSGD_DEFAULTS: Mapping[str, Any] = {
    "lr": 0.1, "p": 2.0, "beta": 0.9, "eps": None, "damping": "log", "granularity": "layer", "center": False,
    "power": True, "momentum": 0.9, "dampening": None, "weight_decay": 0.0, "decay": "after",
    "nesterov": False,
}  # fmt: skip
_INSGD_SEARCH: Mapping[str, Any] = {
    "lr": _LEARNING_RATES, "p": (1.0, 2.0, math.inf), "beta": (0.0, 0.9, 0.99),
    "granularity": ("layer", "neuron", "channel"),
}  # fmt: skip
_INSGD_EQUATION = (
    "P <- beta P + (1 - beta) ||x||_p^p;  theta <- theta - lr momentum(g / max(log P, eps) + weight_decay theta);  "
    "eps None: 0.01 (1e-8 where damping is additive);  dampening None: the momentum's value"
)


def _chain(
    name: str, factory: str, family: str, citation: str, equation: str, defaults: Mapping[str, Any],
    search: Mapping[str, Any], *, revision: int = 1, **capabilities: Any,
) -> OptimizerSpec:  # fmt: skip
    """A chain of this lab; all are capturable, and correctable unless they correct already."""
    corrects = "gamma" in defaults
    found = Capabilities(chain=True, capturable=True, correctable=not corrects, **capabilities)
    common = _COMMON if corrects else _CORRECTABLE
    return OptimizerSpec(
        name, f"insgd_lab.optimizers:{factory}", family, citation, equation, {**defaults, **common}, search, found,
        revision, DOMAINS,
    )  # fmt: skip


def _insgd(name: str, citation: str, equation: str = _INSGD_EQUATION, **defaults: Any) -> OptimizerSpec:
    return _chain(
        name, "INSGD", "input-normalised", f"{INSGD_PAPER}: {citation}", equation, {**_INSGD_DEFAULTS, **defaults},
        _INSGD_SEARCH, revision=2, reads_inputs=True, decay="coupled", momentum=True, scalar_gain=True,
        invariances=("input-scale-monotone",), bounds=("gain-over-eps",), closed_form="insgd",
    )  # fmt: skip


def _nlms(name: str, citation: str, equation: str, p: float, *invariances: str) -> OptimizerSpec:
    defaults = {"lr": 1.0, "p": p, "eps": 1e-8, "granularity": "layer"}
    return _chain(
        name, "NLMS", "input-normalised", f"{INSGD_PAPER}: {citation}", equation, defaults,
        {"lr": (0.1, 0.3, 1.0, 1.5)}, reads_inputs=True, scalar_gain=True, invariances=invariances,
        bounds=("gain-over-eps",), closed_form="nlms",
    )  # fmt: skip


def _insgd_reference(order: int, equation: str, **capabilities: Any) -> OptimizerSpec:
    return _chain(
        f"insgd-reference-l{order}", f"INSGDReferenceL{order}", "published code",
        f"what the published code of INSGD with l{order} computes, step for step", equation,
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0},
        {"lr": _LEARNING_RATES, "momentum": (0.0, 0.9)}, reads_inputs=True, decay="coupled", momentum=True,
        scalar_gain=True, closed_form=f"insgd-reference-l{order}", **capabilities,
    )  # fmt: skip


def _adaptive(
    name: str, factory: str, citation: str, equation: str, options: Mapping[str, Any], **capabilities: Any
) -> OptimizerSpec:
    """A first moment divided by something; with ``gamma`` among its options, a norm-corrected form of ``base``."""
    corrects = "gamma" in options
    search = {"lr": _ADAM_RATES, **({"gamma": _GAMMAS} if corrects else {})}
    neutral = {"neutral": {"gamma": 0.0}} if corrects else {}
    family = "norm-corrected" if corrects else "adaptive"
    return _chain(
        name, factory, family, citation, equation, {**_ADAM, **options, "decoupled": False}, search,
        **{**neutral, "decay": "coupled", "momentum": True, "closed_form": name.removesuffix("norm"), **capabilities},
    )  # fmt: skip


def _torchs(
    name: str, factory: str, citation: str, equation: str, defaults: Mapping[str, Any],
    rates: tuple[float, ...] = _LEARNING_RATES, **able: Any,
) -> OptimizerSpec:  # fmt: skip
    """One of torch.optim's own classes."""
    return OptimizerSpec(
        name, f"insgd_lab.optimizers.borrowed:{name}", "torch.optim", f"torch.optim.{factory}; {citation}", equation,
        {**defaults, "maximize": False}, {"lr": rates},
        Capabilities(complex=True, closed_form=name, **able), domains=DOMAINS,
    )  # fmt: skip


_CLASSIC = (
    _chain(
        "sgd", "SGD", "classic", "Robbins and Monro 1951; momentum and Nesterov's form as in torch.optim.SGD",
        "b <- momentum b + (1 - dampening) g;  theta <- theta - lr b",
        {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False},
        {"lr": _LEARNING_RATES, "momentum": (0.0, 0.9)}, decay="coupled", momentum=True, scalar_gain=True,
        closed_form="sgd",
    ),
    _chain(
        "lms", "LMS", "classic", f"Widrow and Hoff 1960; {INSGD_PAPER}: Eq. 6", "theta <- theta + lr e u",
        {"lr": 1e-3}, {"lr": _LEARNING_RATES}, scalar_gain=True, closed_form="sgd",
    ),
    _chain(
        "lars", "LARS", "layer-wise",
        f"You, Gitman and Ginsburg 2017, Algorithm 1; {INSGD_PAPER}: Eq. 17 (trust_coefficient for lr, no decay)",
        "r = trust_coefficient ||theta|| / (||g|| + weight_decay ||theta|| + eps);  "
        "b <- momentum b + lr r (g + weight_decay theta);  theta <- theta - b",
        {
            "lr": 1.0, "trust_coefficient": 0.001, "momentum": 0.9, "weight_decay": 0.0, "eps": 1e-8,
            "exclude": "1d",
        },
        {"lr": (0.3, 1.0, 3.0, 10.0), "trust_coefficient": (0.001, 0.02)}, decay="coupled", momentum=True,
        scalar_gain=True, invariances=("gradient-scale",), closed_form="lars",
    ),
    _chain(
        "lsalr", "LSALR", "layer-wise",
        f"Singh, De, Zhang, Goldstein and Taylor 2015; {INSGD_PAPER}: Eq. 18",
        "theta <- theta - lr g (1 + log(1 + 1 / ||g||))", {"lr": 1e-2, "weight_decay": 0.0},
        {"lr": _LEARNING_RATES}, decay="coupled", scalar_gain=True, bounds=("large-gradient-gain",),
        closed_form="lsalr",
    ),
)  # fmt: skip

_INPUT_NORMALISED = (
    _nlms("nlms", "Eq. 7-8, 20", "theta <- theta - lr g / (eps + ||x||_2^2)", 2.0, "joint-scale", "least-squares"),
    _nlms("nlms-l1", "Eq. 9", "theta <- theta - lr g / (eps + ||x||_1)", 1.0, "least-squares-l1"),
    _insgd("insgd-l1", "Algorithm 1, p = 1 (Eq. 28-29)", p=1.0),
    _insgd("insgd-l2", "Algorithm 1, p = 2 (Eq. 26-28)", p=2.0),
    _insgd("insgd-linf", "Algorithm 1, p = infinity (Section 3.1)", p=math.inf),
    _insgd("insgd-lp", "Algorithm 1, any p (Eq. 28-29)"),
    _insgd(
        "insgd-norm",
        "Eq. 25 in the simplified form of its project page (the norm itself, no running power)",
        equation="theta <- theta - lr momentum(g / (eps + ||x||_2) + weight_decay theta)",
        damping="additive", power=False, beta=0.0,
    ),
    _insgd_reference(
        1,
        "f = max(log((1 - dampening) mean ||z||_1), 0.01), z standardised planes;  "
        "h = 3.16 g / f + weight_decay theta;  b <- momentum b + (1 - dampening) h;  theta <- theta - lr b",
    ),
    _insgd_reference(
        2,
        "f = max(log((1 - dampening) mean ||z||_2^2), 0.01), z standardised planes;  "
        "b <- (momentum b + (1 - dampening) (g + weight_decay theta)) / f;  theta <- theta - lr b",
        invariances=("input-free",),
    ),
)  # fmt: skip

_ADAM_STEP = "theta <- theta - lr m_hat / (sqrt(v_hat) + eps)"
_CORRECTED = "e <- gamma e + (1 - gamma) ||g||;  s = g max(1, e / ||g||);  m <- beta1 m + (1 - beta1) s;  "
_MEAN = "m <- beta1 m + (1 - beta1) g;  "
_SQUARE = "v <- beta2 v + (1 - beta2) g^2;  "
_FRICTION = "theta <- theta - lr m_hat / ((1 + exp(-|g_{t-1} - g_t|)) (sqrt(v_hat) + eps))"
_RECTIFIED = (
    "theta <- theta - lr r_t m_hat sqrt(1 - beta2^t) / (sqrt(v) + eps) where rho_t > threshold, else - lr m_hat"
)
_SURPRISE = "v <- beta2 v + (1 - beta2) ({} - m)^2 + eps;  "
_LIMIT = ("gradient-scale-limit",)

_ADAPTIVE = (
    _adaptive(
        "adam", "Adam", f"Kingma and Ba 2015, Algorithm 1; {INSGD_PAPER}: Eq. 14-16", _MEAN + _SQUARE + _ADAM_STEP,
        {"amsgrad": False}, revision=2, invariances=_LIMIT, bounds=("adam-step",),
    ),
    _adaptive(
        "diffgrad", "DiffGrad", "Dubey, Chakraborty, Roy, Mukherjee, Singh and Chaudhuri 2020: diffGrad",
        _MEAN + _SQUARE + _FRICTION, {}, bounds=("adam-step",),
    ),
    _adaptive(
        "radam", "RAdam", "Liu et al. 2020, Algorithm 2, in torch.optim.RAdam's form", _MEAN + _SQUARE + _RECTIFIED,
        {"threshold": 5.0},
    ),
    _adaptive(
        "adabelief", "AdaBelief", "Zhuang et al. 2020, Algorithm 2", _MEAN + _SURPRISE.format("g") + _ADAM_STEP, {},
        invariances=_LIMIT,
    ),
    _adaptive(
        "adamnorm", "AdamNorm", f"{ADANORM_PAPER}: Eq. 2-9, Algorithm 2", _CORRECTED + _SQUARE + _ADAM_STEP,
        {**_CORRECTION, "correct": "first", "amsgrad": False}, revision=2, base="adam", invariances=_LIMIT,
        bounds=("norm-correction", "unbounded-step"),
    ),
    _adaptive(
        "diffgradnorm", "DiffGradNorm", f"{ADANORM_PAPER}: Section 3.2", _CORRECTED + _SQUARE + _FRICTION,
        {**_CORRECTION, "correct": "first"}, base="diffgrad", bounds=("norm-correction",),
    ),
    _adaptive(
        "radamnorm", "RAdamNorm", f"{ADANORM_PAPER}: Section 3.2", _CORRECTED + _SQUARE + _RECTIFIED,
        {"threshold": 5.0, **_CORRECTION, "correct": "first"}, base="radam", bounds=("norm-correction",),
    ),
    _adaptive(
        "adabeliefnorm", "AdaBeliefNorm", f"{ADANORM_PAPER}: Section 3.2",
        _CORRECTED + _SURPRISE.format("s") + _ADAM_STEP, {**_CORRECTION, "belief": "corrected"}, base="adabelief",
        invariances=_LIMIT, bounds=("norm-correction",),
    ),
    _chain(
        "adamnorm-reference", "AdamNormReference", "published code",
        "what the published code of AdamNorm computes, step for step",
        _CORRECTED + "v <- beta2 v + (1 - beta2) g^2 + eps;  " + _ADAM_STEP, {**_ADAM, "gamma": 0.95},
        {"lr": _ADAM_RATES, "gamma": _GAMMAS}, decay="coupled", momentum=True, bounds=("norm-correction",),
        closed_form="adamnorm-reference",
    ),
    _chain(
        "radamnorm-reference", "RAdamNormReference", "published code",
        "what the published code of RAdamNorm computes, step for step",
        "e <- 0, so that s = g;  " + _MEAN + _SQUARE + _RECTIFIED, {**_ADAM, "gamma": 0.95}, {"lr": _ADAM_RATES},
        base="radam", decay="decoupled", momentum=True, closed_form="radamnorm-reference",
    ),
)  # fmt: skip

_BORROWED = (
    _torchs(
        "adagrad", "Adagrad", f"Duchi, Hazan and Singer 2011; {INSGD_PAPER}: Eq. 10",
        "v <- v + g^2;  theta <- theta - lr g / (sqrt(v) + eps)",
        {"lr": 1e-2, "lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10},
        sparse=True, decay="coupled",
    ),
    _torchs(
        "adadelta", "Adadelta", f"Zeiler 2012; {INSGD_PAPER}: Eq. 11-12",
        "v <- rho v + (1 - rho) g^2;  d = g sqrt(a + eps) / sqrt(v + eps);  a <- rho a + (1 - rho) d^2;  "
        "theta <- theta - lr d",
        {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0}, decay="coupled", capturable=True,
    ),
    _torchs(
        "rmsprop", "RMSprop", f"Hinton 2012; {INSGD_PAPER}: Eq. 13",
        "v <- alpha v + (1 - alpha) g^2;  theta <- theta - lr g / (sqrt(v) + eps)",
        {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False},
        decay="coupled", momentum=True, capturable=True,
    ),
    _torchs(
        "adamw", "AdamW", "Loshchilov and Hutter 2019",
        "Adam's step;  theta <- theta - lr weight_decay theta",
        {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2, "amsgrad": False},
        _ADAM_RATES, decay="decoupled", momentum=True, capturable=True, bounds=("adam-step",),
    ),
)  # fmt: skip

_OPTIMIZERS = (*_CLASSIC, *_INPUT_NORMALISED, *_ADAPTIVE, *_BORROWED)

_MODELS = (
    ModelSpec("linear", "insgd_lab.training.models:linear", "one linear layer", defaults={"bias": True},
              domains=DOMAINS),
    ModelSpec("point", "insgd_lab.training.models:point",
              "a point that is its own output, for tasks that are functions of one", defaults={"start": [-1.2, 1.0]},
              domains=DOMAINS),
    ModelSpec("digits-cnn", "insgd_lab.training.models:digits_cnn",
              "two 3x3 convolutions and a linear layer, for 8x8 digits", defaults={"batch_norm": False},
              domains=DOMAINS),
    ModelSpec("mlp", "insgd_lab.training.models:mlp",
              "fully connected layers with ReLU", defaults={"hidden": [128, 128], "batch_norm": False},
              domains=DOMAINS),
    ModelSpec("custom-cnn", "insgd_lab.training.models:custom_cnn",
              "four 3x3 convolutions, dropout, linear (INSGD Table 2)", f"{INSGD_PAPER}: Table 2",
              {"batch_norm": True, "dropout": 0.2}, domains=DOMAINS),
    ModelSpec("resnet20", "insgd_lab.training.models:resnet20",
              "ResNet-20 for 32x32 images", f"{HE_PAPER}, Section 4.2",
              {"batch_norm": True}, domains=DOMAINS),
    ModelSpec("resnet18", "insgd_lab.training.models:resnet18",
              "ResNet-18 with a 3x3 stem, for 32x32 images", f"{HE_PAPER}, Table 1; {ADANORM_PAPER}",
              {"batch_norm": True}, domains=DOMAINS),
    ModelSpec("resnet50", "insgd_lab.training.models:resnet50",
              "ResNet-50 with a 3x3 stem, for 32x32 images, or torchvision's with 7x7, for ImageNet",
              f"{HE_PAPER}, Table 1; {ADANORM_PAPER}; {INSGD_PAPER}: Section 4.3",
              {"stem": "3x3", "batch_norm": True}, domains=DOMAINS),
    ModelSpec("wrn18", "insgd_lab.training.models:wrn18",
              "ResNet-18 with wider stages and a 3x3 stem, for 32x32 images",
              f"Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016; {INSGD_PAPER}: Section 4.2",
              {"width": 2, "batch_norm": True}, domains=DOMAINS),
    ModelSpec("vgg16", "insgd_lab.training.models:vgg16",
              "VGG16 with one linear layer, for 32x32 images",
              "Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015, configuration D; " + ADANORM_PAPER,
              {"batch_norm": True}, domains=DOMAINS),
    ModelSpec("vit", "insgd_lab.training.models:vit",
              "vision transformer with patches of 4x4, for 32x32 images",
              f"Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; {INSGD_PAPER}: Section 3.2, Table 8",
              {"patch": 4, "dim": 512, "depth": 6, "heads": 8, "mlp_dim": 512, "dropout": 0.0, "layer_norm": True},
              domains=DOMAINS),
    ModelSpec("mobilenetv3", "insgd_lab.training.models:mobilenetv3",
              "torchvision's small MobileNetV3, its first stride 1 for 32x32 images",
              f"Howard et al., Searching for MobileNetV3, ICCV 2019, Table 2; {INSGD_PAPER}: Section 3.2, Table 5",
              {"stem_stride": 1}, domains=DOMAINS),
)  # fmt: skip

_CIFAR10_FILES = (
    *(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)), "cifar-10-batches-py/test_batch",
    "cifar-10-batches-py/batches.meta",
)  # fmt: skip

_CIFAR100_FILES = tuple(f"cifar-100-python/{name}" for name in ("train", "test", "meta"))
_FASHION_FILES = tuple(
    f"FashionMNIST/raw/{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")
)

# What is kept of the training split; every classification set takes these.
_SUBSET: Mapping[str, Any] = {"fraction": 1.0, "shots": None, "imbalance": "none", "imbalance_ratio": 10.0}

_DATA = (
    DataSpec("digits", "insgd_lab.training.data:digits",
             "scikit-learn's 1,797 handwritten digits of 8x8 pixels; embedded, no download",
             "Alpaydin and Kaynak 1998, UCI Machine Learning Repository", _SUBSET, classes=10,
             domains=DOMAINS),
    DataSpec("fashion-mnist", "insgd_lab.training.data:fashion_mnist",
             "70,000 grey images of 28x28 pixels in 10 classes of clothing",
             "Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017, arXiv:1708.07747",
             _SUBSET, _FASHION_FILES, classes=10, domains=DOMAINS),
    DataSpec("cifar10", "insgd_lab.training.data:cifar10",
             "60,000 colour images of 32x32 pixels in 10 classes",
             "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
             _SUBSET, _CIFAR10_FILES, classes=10, domains=DOMAINS),
    DataSpec("cifar100", "insgd_lab.training.data:cifar100",
             "60,000 colour images of 32x32 pixels in 100 classes (the fine labels)",
             "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
             _SUBSET, _CIFAR100_FILES, classes=100, domains=DOMAINS),
    DataSpec("tiny-imagenet", "insgd_lab.training.data:tiny_imagenet",
             "110,000 colour images of 64x64 pixels in 200 classes",
             "Le and Yang, Tiny ImageNet Visual Recognition Challenge, CS 231N, Stanford 2015",
             _SUBSET, ("tiny-imagenet/manifest.json",), classes=200, domains=DOMAINS),
    DataSpec("imagenet", "insgd_lab.training.folder_data:imagenet",
             "1,331,167 colour photographs in 1000 classes, read from their files, seen at 224x224 pixels",
             "Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015",
             _SUBSET, ("imagenet/train", "imagenet/val"), classes=1000, domains=DOMAINS),
    DataSpec("image-folder", "insgd_lab.training.folder_data:image_folder",
             "your own images, in folders named after their classes", "",
             {"path": "", "size": 224, "stream": False, "val_share": 0.1, "test_share": 0.1, **_SUBSET},
             domains=DOMAINS),
)  # fmt: skip

# Tasks without classes and files.
_NEITHER: Mapping[str, Any] = {"images": False, "labels": False}
_ANALYTIC = (
    DataSpec("quadratic", "insgd_lab.training.analytic:quadratic",
             "sum h_i (theta_i - z_i)^2 / 2 with curvatures h from 1 / condition to 1; for the model point",
             "Zhang et al., Which Algorithmic Choices Matter at Which Batch Sizes?, NeurIPS 2019, arXiv:1907.04164",
             {"dimension": 10, "condition": 100.0, "noise": 0.0, "steps": 100}, domains=DOMAINS, model="point",
             **_NEITHER),
    DataSpec("rosenbrock", "insgd_lab.training.analytic:rosenbrock",
             "the sum over pairs of coordinates of 100 (y - x^2)^2 + (1 - x)^2; for the model point",
             "Rosenbrock, An Automatic Method for Finding the Greatest or Least Value of a Function, 1960",
             {"dimension": 2, "steps": 100}, domains=PAIRS, model="point", **_NEITHER),
    DataSpec("system-identification", "insgd_lab.training.analytic:system_identification",
             "an unknown FIR system to be followed online; for the model linear with bias = false, batch size 1",
             f"Sayed, Adaptive Filters, 2008; {INSGD_PAPER}: Section 1.2",
             {"taps": 32, "colour": 0.0, "snr": 30.0, "drift": 0.0, "samples": 1000, "regressors": "delay-line"},
             domains=DOMAINS, **_NEITHER),
    DataSpec("least-squares", "insgd_lab.training.analytic:least_squares",
             "noiseless linear regression with curvatures from curvature / condition to curvature, each batch the "
             "whole set; for the model linear with bias = false",
             "Nesterov, Introductory Lectures on Convex Optimization, 2004, Section 2.1",
             {"features": 10, "condition": 100.0, "curvature": 1.0, "distance": 1.0, "steps": 100},
             domains=DOMAINS, **_NEITHER),
    DataSpec("teacher-student", "insgd_lab.training.analytic:teacher_student",
             "regression on what a perceptron answers to normal inputs; for the models mlp and linear",
             "Saad and Solla, On-line Learning in Soft Committee Machines, 1995",
             {"features": 20, "condition": 1.0, "hidden": [10], "noise": 0.0, "examples": 1000},
             domains=NO_LAYER, **_NEITHER),
)  # fmt: skip

SPECS: tuple[OptimizerSpec | ModelSpec | DataSpec, ...] = (*_OPTIMIZERS, *_MODELS, *_DATA, *_ANALYTIC)
