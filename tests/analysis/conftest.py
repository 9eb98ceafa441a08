"""One synthetic study for the session: built once, read once, reported once."""

import pytest

from insgd_lab.analysis.effects import main_effects
from insgd_lab.analysis.report import write_report
from insgd_lab.analysis.runs import load_study
from insgd_lab.analysis.selection import choose

from .synthetic import build_study


@pytest.fixture(scope="session")
def study_dir(tmp_path_factory):
    return build_study(tmp_path_factory.mktemp("runs") / "digits", epochs=5, steps=60).path


@pytest.fixture(scope="session")
def study(study_dir):
    return load_study(study_dir)


@pytest.fixture(scope="session")
def choices(study):
    return choose(study)


@pytest.fixture(scope="session")
def effects(study, choices):
    return main_effects(study, choices)


@pytest.fixture(scope="session")
def report(study_dir):
    """The report's folder, written from the session's study."""
    return write_report(study_dir).parent
