"""What a handful of seeds can say, and what it cannot.

    difference = paired_t(insgd_errors, sgd_errors)             # {seed: error} each
    difference.difference, difference.low, difference.high, difference.p

`intervals` for one arm, `differences`, `effect_sizes` and `improvement` for two, `multiplicity` for many statements,
`equivalence` and `power` for what was not found, `aggregates` and `profiles` over tasks, `survival` for times that some
runs never reached. All of it works on plain numbers, in any unit; what reads studies lies above.

No result depends, in any bit, on the order in which seeds are given.
"""

from __future__ import annotations

from insgd_lab.analysis.statistics.aggregates import Estimate, iqm, stratified_bootstrap
from insgd_lab.analysis.statistics.differences import MeanTest, RankTest, paired_t, welch, welch_error, wilcoxon
from insgd_lab.analysis.statistics.effect_sizes import EffectSize, hedges_g, hedges_g_paired, small_sample_correction
from insgd_lab.analysis.statistics.equivalence import Equivalence, tost_paired, tost_published, tost_welch
from insgd_lab.analysis.statistics.improvement import improvement_over_tasks, probability_of_improvement
from insgd_lab.analysis.statistics.intervals import Summary, binomial_interval, paired_difference, summarize
from insgd_lab.analysis.statistics.multiplicity import holm, holm_together
from insgd_lab.analysis.statistics.power import detectable_difference, power_of, seeds_needed
from insgd_lab.analysis.statistics.profiles import performance_profile, score_profile
from insgd_lab.analysis.statistics.survival import Survival, kaplan_meier, log_rank

__all__ = [
    "EffectSize",
    "Equivalence",
    "Estimate",
    "MeanTest",
    "RankTest",
    "Summary",
    "Survival",
    "binomial_interval",
    "detectable_difference",
    "hedges_g",
    "hedges_g_paired",
    "holm",
    "holm_together",
    "improvement_over_tasks",
    "iqm",
    "kaplan_meier",
    "log_rank",
    "paired_difference",
    "paired_t",
    "performance_profile",
    "power_of",
    "probability_of_improvement",
    "score_profile",
    "seeds_needed",
    "small_sample_correction",
    "stratified_bootstrap",
    "summarize",
    "tost_paired",
    "tost_published",
    "tost_welch",
    "welch",
    "welch_error",
    "wilcoxon",
]
