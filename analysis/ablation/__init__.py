"""What each option does, alone and with others, and what it costs to tune it.

    interactions(study), interaction_tests(study)    # is the effect of p another at another granularity?
    importance(study)                                # which share of the variance each option and pair explains
    forest_importance(study)                         # the same question of a random grid, which has no shares
    lr_sensitivity(study, within=1.0)                # how much of the tried range lies within a point of the best
    tuning_budget(study)                             # expected error after k tried settings

Main effects are in `effects`.
"""

from __future__ import annotations

from insgd_lab.analysis.ablation.budget import expected_best, tuning_budget
from insgd_lab.analysis.ablation.forest import forest_importance
from insgd_lab.analysis.ablation.importance import importance, omega_squared, variance_shares
from insgd_lab.analysis.ablation.interactions import interaction_f, interaction_tests, interactions
from insgd_lab.analysis.ablation.sensitivity import lr_sensitivity, near_best

__all__ = [
    "expected_best",
    "forest_importance",
    "importance",
    "interaction_f",
    "interaction_tests",
    "interactions",
    "lr_sensitivity",
    "near_best",
    "omega_squared",
    "tuning_budget",
    "variance_shares",
]
