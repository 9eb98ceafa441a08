"""How fast a run gets somewhere: times to a target, areas under loss curves, linear rates, over one task or many.

    time_to_target(study, 5.0)          # a row a cell and unit: median epochs, steps and seconds to 5 % test error
    loss_areas(study), linear_rates(study, optimum=0.0)
    time_profile({"digits": one, "cifar10": other}, {"digits": 5.0, "cifar10": 40.0})

How large a learning rate may be is in `divergence`.
"""

from __future__ import annotations

from insgd_lab.analysis.convergence.areas import loss_areas
from insgd_lab.analysis.convergence.rates import LinearRate, NotLinear, fewest_points, linear_rate, linear_rates
from insgd_lab.analysis.convergence.targets import target_times, time_to_target
from insgd_lab.analysis.convergence.tasks import time_profile

__all__ = [
    "LinearRate",
    "NotLinear",
    "fewest_points",
    "linear_rate",
    "linear_rates",
    "loss_areas",
    "target_times",
    "time_profile",
    "time_to_target",
]
