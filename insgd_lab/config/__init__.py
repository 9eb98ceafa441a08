"""What to run: `RunSpec`, one training run, and `StudySpec`, a study file; both validated without torch.

A study file is TOML. It is checked as a whole before anything runs, and every mistake in it is reported at
once with its dotted path, its value and the remedy:

    study = load_study("digits")              # packaged with insgd_lab, or the path of a .toml file
    study.arm[0].optimizer                    # NamedSpec(name="insgd-lp", options={"p": 2, "lr": 0.1})

    study.toml: 2 problems
      arm.insgd.optimizer.betta = 0.9: unknown option of insgd-lp 'betta'; did you mean 'beta'?
      train.epochs = "8": expected an integer; write 8 without quotes

A run is named by the hash of its canonical form, in which everything that equals its default is left out: an
explicitly written default changes nothing.
"""

from __future__ import annotations

from insgd_lab.config.analysis import AnalysisSpec, PrimarySpec
from insgd_lab.config.arms import ArmSpec
from insgd_lab.config.files import list_studies, load_study, read_study, read_toml
from insgd_lab.config.grids import Cell
from insgd_lab.config.initial import InitSpec
from insgd_lab.config.levels import Interval
from insgd_lab.config.options import NamedSpec
from insgd_lab.config.problems import ConfigError, Problem
from insgd_lab.config.resources import ResourcesSpec
from insgd_lab.config.run import RecordSpec, RunSpec, TaskSpec, TrainSpec, parse_run
from insgd_lab.config.schedules import ScheduleSpec
from insgd_lab.config.search import SearchSpec
from insgd_lab.config.study import StudySpec, parse_study

__all__ = [
    "AnalysisSpec",
    "ArmSpec",
    "Cell",
    "ConfigError",
    "InitSpec",
    "Interval",
    "NamedSpec",
    "PrimarySpec",
    "Problem",
    "RecordSpec",
    "ResourcesSpec",
    "RunSpec",
    "ScheduleSpec",
    "SearchSpec",
    "StudySpec",
    "TaskSpec",
    "TrainSpec",
    "list_studies",
    "load_study",
    "parse_run",
    "parse_study",
    "read_study",
    "read_toml",
]
