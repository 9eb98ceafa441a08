"""The specs of everything built in: names, citations, equations, defaults. Data only, and no torch.

A factory is a string, imported when the first instance is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from insgd_lab.hyperparameters import DOMAINS
from insgd_lab.registry import Capabilities, DataSpec, ModelSpec, OptimizerSpec

__all__ = ["SPECS"]

INSGD_PAPER = "Input Normalized Stochastic Gradient Descent Training for Deep Neural Networks, TMLR 2024"
ADANORM_PAPER = (
    "Dubey, Singh, Chaudhuri: AdaNorm: Adaptive Gradient Norm Correction based Optimizer for CNNs, WACV 2023"
)

_LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_ADAM_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)

_INSGD_DEFAULTS: Mapping[str, Any] = {
    "lr": 0.1, "p": 2.0, "beta": 0.9, "eps": None, "damping": "log", "granularity": "layer", "center": False,
    "power": True, "momentum": 0.9, "dampening": None, "weight_decay": 0.0, "decay": "after",
    "nesterov": False, "maximize": False,
}  # fmt: skip
_INSGD_SEARCH: Mapping[str, Any] = {
    "lr": _LEARNING_RATES, "p": (1.0, 2.0, math.inf), "beta": (0.0, 0.9, 0.99),
    "granularity": ("layer", "neuron", "channel"),
}  # fmt: skip
_INSGD_EQUATION = (
    "P <- beta P + (1 - beta) ||x||_p^p;  theta <- theta - lr momentum(g / max(log P, eps) + weight_decay theta);  "
    "eps None: 0.01 (1e-8 where damping is additive);  dampening None: the momentum's value"
)


def _insgd(name: str, citation: str, equation: str = _INSGD_EQUATION, **defaults: Any) -> OptimizerSpec:
    return OptimizerSpec(
        name,
        "insgd_lab.optimizers:INSGD",
        family="input-normalised",
        citation=f"{INSGD_PAPER}: {citation}",
        equation=equation,
        defaults={**_INSGD_DEFAULTS, **defaults},
        search=_INSGD_SEARCH,
        domains=DOMAINS,
        capabilities=Capabilities(reads_inputs=True, chain=True, decay="coupled", momentum=True),
    )


_OPTIMIZERS = (
    OptimizerSpec(
        "sgd",
        "insgd_lab.optimizers:SGD",
        family="classic",
        citation="Robbins and Monro 1951; momentum and Nesterov's form as in torch.optim.SGD",
        equation="b <- momentum b + (1 - dampening) g;  theta <- theta - lr b",
        defaults={
            "lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False,
            "maximize": False,
        },
        search={"lr": _LEARNING_RATES, "momentum": (0.0, 0.9)},
        domains=DOMAINS,
        capabilities=Capabilities(chain=True, decay="coupled", momentum=True),
    ),
    OptimizerSpec(
        "adam",
        "insgd_lab.optimizers:Adam",
        family="adaptive",
        citation="Kingma and Ba 2015, Algorithm 1; INSGD Eq. 14-16",
        equation=(
            "m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  "
            "theta <- theta - lr m_hat / (sqrt(v_hat) + eps)"
        ),
        defaults={
            "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "maximize": False,
        },
        search={"lr": _ADAM_RATES},
        domains=DOMAINS,
        capabilities=Capabilities(chain=True, decay="coupled", momentum=True),
    ),
    OptimizerSpec(
        "adamnorm",
        "insgd_lab.optimizers:AdamNorm",
        family="norm-corrected",
        citation=f"{ADANORM_PAPER}: Eq. 2-9, Algorithm 2",
        equation=(
            "e <- gamma e + (1 - gamma) ||g||;  s = g max(1, e / ||g||);  m <- beta1 m + (1 - beta1) s;  "
            "v <- beta2 v + (1 - beta2) g^2;  theta <- theta - lr m_hat / (sqrt(v_hat) + eps)"
        ),
        defaults={
            "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "gamma": 0.95, "weight_decay": 0.0,
            "maximize": False,
        },
        search={"lr": _ADAM_RATES, "gamma": (0.0, 0.9, 0.95, 0.99)},
        domains=DOMAINS,
        capabilities=Capabilities(
            chain=True, base="adam", neutral={"gamma": 0.0}, decay="coupled", momentum=True
        ),
    ),
    OptimizerSpec(
        "nlms",
        "insgd_lab.optimizers:NLMS",
        family="input-normalised",
        citation=f"{INSGD_PAPER}: Eq. 7-8, 20",
        equation="theta <- theta - lr g / (eps + ||x||_2^2)",
        defaults={"lr": 1.0, "p": 2.0, "eps": 1e-8, "granularity": "layer", "maximize": False},
        search={"lr": (0.1, 0.3, 1.0, 1.5)},
        domains=DOMAINS,
        capabilities=Capabilities(reads_inputs=True, chain=True),
    ),
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
)  # fmt: skip

_MODELS = (
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
              "ResNet-20 for 32x32 images", "He et al., Deep Residual Learning, CVPR 2016, Section 4.2",
              {"batch_norm": True}, domains=DOMAINS),
)  # fmt: skip

_CIFAR10_FILES = (
    *(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)), "cifar-10-batches-py/test_batch",
    "cifar-10-batches-py/batches.meta",
)  # fmt: skip

_DATA = (
    DataSpec("digits", "insgd_lab.training.data:digits",
             "scikit-learn's 1,797 handwritten digits of 8x8 pixels; embedded, no download",
             "Alpaydin and Kaynak 1998, UCI Machine Learning Repository", {"fraction": 1.0}, classes=10,
             domains=DOMAINS),
    DataSpec("cifar10", "insgd_lab.training.data:cifar10",
             "60,000 colour images of 32x32 pixels in 10 classes",
             "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
             {"fraction": 1.0}, _CIFAR10_FILES, classes=10, domains=DOMAINS),
)  # fmt: skip

SPECS: tuple[OptimizerSpec | ModelSpec | DataSpec, ...] = (*_OPTIMIZERS, *_MODELS, *_DATA)
