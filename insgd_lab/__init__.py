"""A laboratory for input- and gradient-normalised optimizers: the public names, imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "insgd_lab.chain": ("Batch", "ChainOptimizer", "Rule"),
    "insgd_lab.losses": ("InverseActivationLoss",),
    "insgd_lab.optimizers": (
        "INSGD", "LARS", "LMS", "LSALR", "NLMS", "SGD", "AdaBelief", "AdaBeliefNorm", "Adam", "AdamNorm",
        "AdamNormReference", "DiffGrad", "DiffGradNorm", "INSGDReferenceL1", "INSGDReferenceL2", "RAdam", "RAdamNorm",
        "RAdamNormReference", "param_groups",
    ),
    "insgd_lab.recorders": ("Recorder",),
    "insgd_lab.registry": (
        "Capabilities", "DataSpec", "ModelSpec", "OptimizerSpec", "create_optimizer", "get_data", "get_model",
        "get_optimizer", "list_data", "list_models", "list_optimizers", "register_data", "register_model",
        "register_optimizer",
    ),
    "insgd_lab.training.call": ("train",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from insgd_lab.chain import Batch, ChainOptimizer, Rule
    from insgd_lab.losses import InverseActivationLoss
    from insgd_lab.optimizers import (
        INSGD,
        LARS,
        LMS,
        LSALR,
        NLMS,
        SGD,
        AdaBelief,
        AdaBeliefNorm,
        Adam,
        AdamNorm,
        AdamNormReference,
        DiffGrad,
        DiffGradNorm,
        INSGDReferenceL1,
        INSGDReferenceL2,
        RAdam,
        RAdamNorm,
        RAdamNormReference,
        param_groups,
    )
    from insgd_lab.recorders import Recorder
    from insgd_lab.registry import (
        Capabilities,
        DataSpec,
        ModelSpec,
        OptimizerSpec,
        create_optimizer,
        get_data,
        get_model,
        get_optimizer,
        list_data,
        list_models,
        list_optimizers,
        register_data,
        register_model,
        register_optimizer,
    )
    from insgd_lab.training.call import train

__all__ = [
    "INSGD",
    "LARS",
    "LMS",
    "LSALR",
    "NLMS",
    "SGD",
    "AdaBelief",
    "AdaBeliefNorm",
    "Adam",
    "AdamNorm",
    "AdamNormReference",
    "Batch",
    "Capabilities",
    "ChainOptimizer",
    "DataSpec",
    "DiffGrad",
    "DiffGradNorm",
    "INSGDReferenceL1",
    "INSGDReferenceL2",
    "InverseActivationLoss",
    "ModelSpec",
    "OptimizerSpec",
    "RAdam",
    "RAdamNorm",
    "RAdamNormReference",
    "Recorder",
    "Rule",
    "__version__",
    "create_optimizer",
    "get_data",
    "get_model",
    "get_optimizer",
    "list_data",
    "list_models",
    "list_optimizers",
    "param_groups",
    "register_data",
    "register_model",
    "register_optimizer",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'insgd_lab' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
