"""The named optimizers: each a list of rules, in the order in which its paper prints them.

>>> import torch
>>> model = torch.nn.Linear(3, 1)
>>> INSGD(model, lr=0.1, p=1).rules[0].beta
0.9
"""

from insgd_lab.optimizers.adaptive import (
    AdaBelief,
    AdaBeliefNorm,
    Adam,
    AdamNorm,
    AdamNormReference,
    DiffGrad,
    DiffGradNorm,
    RAdam,
    RAdamNorm,
    RAdamNormReference,
)
from insgd_lab.optimizers.classic import LARS, LMS, LSALR, SGD
from insgd_lab.optimizers.groups import param_groups
from insgd_lab.optimizers.input_normalised import INSGD, NLMS, INSGDReferenceL1, INSGDReferenceL2

__all__ = [
    "INSGD", "LARS", "LMS", "LSALR", "NLMS", "SGD", "AdaBelief", "AdaBeliefNorm", "Adam", "AdamNorm",
    "AdamNormReference", "DiffGrad", "DiffGradNorm", "INSGDReferenceL1", "INSGDReferenceL2", "RAdam", "RAdamNorm",
    "RAdamNormReference", "param_groups",
]  # fmt: skip
