import subprocess
import sys

import numpy as np
import pytest

from insgd_lab.analysis.comparisons import compare
from insgd_lab.analysis.runs import StudyError, guess_error, key_of, load_study
from insgd_lab.analysis.selection import choose, tune_at
from insgd_lab.analysis.statements import findings
from insgd_lab.store import StudyFolder

from .synthetic import AXES, BASE, RATES, arms, build_study

SGD_ONLY = [arm for arm in arms() if arm["name"] == "sgd"]


def small(path, **options):
    return build_study(path, arm_list=SGD_ONLY, failed=0, epochs=3, steps=20, **options)


def test_every_planned_row_is_there_once(study):
    per_seed = 1 + sum(len(levels) - 1 for levels in AXES.values())
    assert len(study.plan) == 3 * len(RATES) * (per_seed + 9 + 2 + 1)
    assert not study.plan.duplicated(["arm", "cell", "tune", "seed"]).any()
    assert study.runs.index.is_unique


def test_statuses_are_counted(study):
    counts = study.counts()
    assert counts["failed"] == 1
    assert counts["diverged"] > 0
    assert sum(counts.values()) == len(study.runs)
    assert not study.complete


def test_scores_are_those_of_the_files(study):
    rows = study.scores[study.scores["status"] == "done"]
    for _, row in rows.iloc[::40].iterrows():
        metrics = StudyFolder(study.path).run(row["run"]).metrics()
        test = metrics.query("split == 'test' and metric == 'accuracy'").set_index("epoch")["value"]
        assert row["test_error"] == 1 - test.loc[test.index.max()]
        assert row["best_test_error"] == 1 - test.max()


def test_a_diverged_run_scores_guessing_and_worst_loss(study):
    rows = study.scores[study.scores["status"] == "diverged"]
    assert (rows["test_error"] == 0.9).all()
    assert (rows["val_error"] == 0.9).all()
    assert np.isinf(rows["val_loss"]).all()
    assert (rows["best_test_error"] <= 0.9).all()


def test_a_failed_run_has_no_score(study):
    failed = study.runs.index[study.runs["status"] == "failed"][0]
    assert failed not in set(study.scores["run"])


def test_integers_and_floats_are_one_setting():
    assert key_of({"p": 1}) == key_of({"p": 1.0})
    assert key_of({"flag": True}) != key_of({"flag": 1})


def test_base_cell_is_found_whatever_the_order_of_keys(study):
    assert study.find_cell("insgd", dict(reversed(BASE.items()))) == study.base_cell("insgd")
    assert study.base_cell("insgd").varied is None


def test_guessing_depends_on_the_number_of_classes():
    assert guess_error({"classes": 100}) == 0.99
    assert guess_error({"classes": None}) == 1.0


def test_where_only_the_files_tell_the_classes_those_that_the_runs_met_are_guessed_among(tmp_path):
    folder = small(tmp_path, fields={"classes": None})
    assert (load_study(tmp_path).runs["guess"] == 1.0).all()
    for run in load_study(tmp_path).runs.index[:5]:
        folder.run(run).write_info({**folder.run(run).info(), "classes": 4})
    study = load_study(tmp_path)
    diverged = study.scores[study.scores["status"] == "diverged"]
    assert len(diverged) > 0
    assert set(diverged["test_error"]) == set(diverged["guess"]) == {0.75}


def test_an_arm_with_data_of_its_own_guesses_among_their_classes(tmp_path):
    insgd, _, sgd, _ = arms()
    listed = [{**insgd, "axes": {}, "base": {}}, {**sgd, "classes": 100}]
    folder = build_study(tmp_path, arm_list=listed, failed=0, epochs=3, steps=20)
    study = load_study(folder.path)
    assert len(study.runs.query("status == 'diverged'")) > 0
    guesses = study.scores.groupby("arm")["guess"].unique()
    assert guesses["sgd"].tolist() == [0.99]
    assert guesses["insgd"].tolist() == [0.9]
    lost = study.scores.query("status == 'diverged' and arm == 'sgd'")["run"].tolist()
    assert study.by_epoch(lost, "test_error").iloc[-1].tolist() == [0.99] * len(lost)
    [told] = [s for s in findings(study, choose(study), compare(study), []) if " diverged (" in s]
    assert "each counts with the error of guessing, 90 %, of SGD 99 %)" in told


def test_a_run_that_met_other_classes_than_the_studys_guesses_among_its_own(tmp_path):
    folder = small(tmp_path)
    first, *others = load_study(tmp_path).runs.query("status == 'diverged'").index
    folder.run(first).write_info({**folder.run(first).info(), "classes": 4})
    scores = load_study(tmp_path).scores.set_index("run")["test_error"]
    assert set(scores[[first]]) == {0.75}
    assert set(scores[others]) == {0.9}


def test_a_folder_that_is_no_study_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"holds no study.*study\.json"):
        load_study(tmp_path)


def test_a_foreign_study_file_is_refused_with_what_is_missing(tmp_path):
    StudyFolder(tmp_path).write_info({"name": "x", "arms": []})
    with pytest.raises(StudyError, match="plan"):
        load_study(tmp_path)


def test_a_corrupted_table_becomes_a_problem_and_the_rest_is_read(tmp_path):
    folder = small(tmp_path / "s")
    run = folder.info()["plan"][0]["run"]
    folder.run(run).metrics_path.write_bytes(b"not parquet")
    study = load_study(folder.path)
    assert study.counts()["unreadable"] == 1
    [problem] = study.problems
    assert problem.path == f"{run}/metrics.parquet"
    assert "run the study again" in problem.message
    assert run not in set(study.scores["run"])
    assert len(study.scores) == len(study.plan) - 1


def test_a_corrupted_run_file_becomes_a_problem(tmp_path):
    folder = small(tmp_path / "s")
    run = folder.info()["plan"][0]["run"]
    folder.run(run).info_path.write_text("{")
    study = load_study(folder.path)
    assert [problem.path for problem in study.problems] == [f"{run}/run.json"]


def test_a_study_that_has_not_begun_can_be_read(tmp_path):
    folder = small(tmp_path / "s", missing=24)
    study = load_study(folder.path)
    assert study.counts() == {"missing": 24}
    assert study.scores.empty


def test_reading_and_asking_whether_a_report_is_current_needs_no_torch_or_matplotlib(study_dir):
    code = (
        "import sys; from insgd_lab.analysis.report import is_current; "
        f"is_current({str(study_dir)!r}); "
        "assert not {'torch', 'matplotlib', 'pandas'} & set(sys.modules); "
        f"from insgd_lab.analysis.runs import load_study; load_study({str(study_dir)!r}); "
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arms_of_one_label_are_told_apart(tmp_path):
    [sgd] = SGD_ONLY
    other = {**sgd, "name": "other", "options": {"lr": 0.2}}
    folder = build_study(tmp_path, arm_list=[sgd, other], failed=0, epochs=3, steps=20)
    assert [arm.label for arm in load_study(folder.path).arms.values()] == ["SGD (sgd)", "SGD (other)"]


def test_a_run_without_a_score_is_not_called_diverged(tmp_path):
    folder = small(tmp_path, seeds=3)
    study = load_study(folder.path)
    choices = choose(study)
    cell = study.shown_cell("sgd")
    row = study.finished("sgd", cell.key, tune_at(study, choices, cell, "best")).iloc[0]
    run = StudyFolder(tmp_path).run(row["run"])
    found = run.metrics()
    run.write_metrics(found[found["split"] != "test"])
    again = load_study(folder.path)
    [said] = [text for text in findings(again, choices, compare(again, choices), []) if text.startswith("SGD ")]
    others = study.by_seed("sgd", cell.key, tune_at(study, choices, cell, "best"))
    mean = 100 * np.mean([error for seed, error in others.items() if seed != row["seed"]])
    assert f": {mean:.2f} % test error (95 % interval" in said
    assert said.endswith("2 seeds); 1 of 3 runs have none.")
