import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from insgd_lab.analysis import report as module
from insgd_lab.analysis.comparisons import compare
from insgd_lab.analysis.report import is_current, report_path, write_report
from insgd_lab.analysis.runs import StudyError, load_study
from insgd_lab.analysis.selection import choose, tune_at
from insgd_lab.analysis.setup import commands, setup, trials_by_arm
from insgd_lab.analysis.statements import findings, mixture
from insgd_lab.analysis.statistics import paired_difference, summarize
from insgd_lab.store import DiskError, write_json

from .synthetic import BASE, arms, build_study

SGD_ONLY = [{**arm, "axes": {}, "base": {}} for arm in arms(rates=(0.03, 0.1)) if arm["name"] == "sgd"]


class Page(HTMLParser):
    """The tags of a page with their attributes, and its visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open) and data.strip():
            self.texts.append(" ".join(data.split()))

    def find(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "report.html").read_text(encoding="utf-8"))


def small(path, **options):
    return build_study(path, arm_list=SGD_ONLY, failed=0, epochs=2, steps=20, **options)


def test_every_tag_is_closed(page):
    assert page.open == []


def test_every_image_has_a_text_and_is_inline(page):
    images = page.find("img")
    assert len(images) == 15
    for image in images:
        assert len(image["alt"]) > 60
        assert image["src"].startswith("data:image/")
        assert image["width"].isdigit()


def test_nothing_is_loaded_from_elsewhere(page, report):
    loaded = [attributes.get("src", "") for _, attributes in page.tags] + [a["href"] for a in page.find("link")]
    assert all(value.startswith("data:") for value in loaded if value)
    assert all("src" not in script for script in page.find("script"))
    assert "url(" not in (report / "report.html").read_text(encoding="utf-8").split("</style>")[0]
    for link in page.find("a"):
        href = link["href"]
        assert href.startswith("#") or (report / href).is_file()


def test_links_within_the_page_lead_somewhere(page):
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {a["href"][1:] for a in page.find("a") if a["href"].startswith("#")} <= ids


def test_figures_and_tables_lie_beside_the_page_and_it_is_small(report):
    for figure in ("curves", "main-effects", "grids", "sensitivity", "layers"):
        assert all((report / f"{figure}.{ending}").stat().st_size > 1000 for ending in ("svg", "pdf", "png"))
    for table in ("results-best", "results-fixed", "main-effects", "failures", "divergences"):
        assert all((report / f"{table}.{ending}").is_file() for ending in ("md", "tex", "csv"))
    assert (report / "report.html").stat().st_size < 5e6


def test_no_label_is_left_in_the_notation_of_formulas(report):
    """Names may have a dollar, so none is a sign of a formula, and an axis that is labelled by formulas shows them."""
    drawn = [path.read_text(encoding="utf-8") for path in report.glob("*.svg")]
    assert drawn
    assert not [text for text in drawn if "mathdefault" in text]


def test_the_first_line_says_that_the_study_is_incomplete(page, study):
    assert page.texts[0].startswith("Incomplete: ")  # the title
    first = page.texts[1]
    done = sum(study.counts()[status] for status in ("done", "diverged"))
    assert first.startswith(f"Incomplete: {done} of {len(study.runs)} runs have finished (1 failed)")


def test_the_first_line_says_that_versions_are_mixed(tmp_path):
    folder = small(tmp_path / "s")
    first, second, *_ = folder.runs()
    first.write_info({**first.info(), "commit": None})
    assert mixture(load_study(folder.path)) is None, "of an unknown commit nothing is known to differ"
    first.write_info({**first.info(), "versions": {"insgd_lab": "0.2.0"}, "commit": "def456"})
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    assert page.texts[:2] == ["INSGD on handwritten digits", page.texts[1]]
    assert page.texts[1].startswith(
        "Mixed: runs by different versions of the lab: 0.1.0 at abc123 (5 runs), 0.2.0 at def456 (1 run)."
    )
    second.write_info({**second.info(), "status": "running"})
    assert re.match(r"Incomplete: 5 of 6 .* Mixed: ", Page(write_report(folder.path).read_text("utf-8")).texts[1])


def test_the_first_line_says_that_revisions_are_mixed(tmp_path):
    folder = small(tmp_path / "s")
    for number, run in enumerate(folder.runs()):
        run.write_info({**run.info(), "spec": {"optimizer": {"name": "sgd", "revision": 1 + number // 4}}})
    said = mixture(load_study(folder.path))
    assert said.startswith("Mixed: runs of sgd in different revisions: revision 1 (4 runs), revision 2 (2 runs).")


def test_statements_agree_with_recomputed_numbers(page, study, choices):
    def scores(arm):
        cell = study.base_cell(arm)
        return study.by_seed(arm, cell.key, tune_at(study, choices, cell, "best"))

    error, difference = summarize(list(scores("insgd").values())), paired_difference(scores("insgd"), scores("sgd"))
    [statement] = [text for text in page.texts if re.match(r"INSGD, one at a time \(.*% test error", text)]
    assert "at its own best learning rate 0.3" in statement
    assert f"{100 * error.mean:.2f} % test error" in statement
    assert f"95 % interval {100 * error.low:.2f} to {100 * error.high:.2f}, 3 seeds" in statement
    [primary] = [text for text in page.texts if text.startswith("INSGD, one at a time, against SGD")]
    assert f"{100 * difference.mean:+.2f} percentage points".replace("-", "\N{MINUS SIGN}") in primary


def test_settings_of_the_base_are_spelled_out(page):
    [statement] = [text for text in page.texts if re.match(r"INSGD, one at a time \(.*% test error", text)]
    for text in ("β = 0.9", "ε = 0.01", f"granularity = {BASE['granularity']}", "dampening = 0.9"):
        assert text in statement


def test_inert_axes_divergences_edges_and_failures_are_told(page, study):
    text = " ".join(page.texts)
    assert "ε is inert" in text
    assert f"{study.counts()['diverged']} diverged" in text
    assert "RuntimeError: worker 1 died" in text
    assert "lowest or highest of its grid" in text
    assert "exploratory" in text
    for run in study.runs.index[study.runs["status"] != "done"]:
        assert run in text


def test_setup_names_what_was_run(page):
    text = " ".join(page.texts)
    machine = "Test processor, device cpu, threads 1"
    for fact in ("digits-cnn", "digits", "epochs = 5", "abc123", "torch 2.13.0", machine, "5,000 parameters"):
        assert fact in text
    assert "validation error" in text
    assert "test split had no say" in text


def test_setup_tells_the_sizes_of_the_splits_and_what_intervals_are_over(tmp_path):
    folder = small(tmp_path / "s")
    assert "Examples" not in dict(setup(load_study(folder.path)).facts), "these runs have no sizes on record"
    for run in folder.runs():
        run.write_info({**run.info(), "examples": {"train": 1197, "val": 300, "test": 300}})
    facts = dict(setup(load_study(folder.path)).facts)
    assert facts["Examples"] == (
        "1,197 to train on, 300 to validate, 300 to test; one to test is 0.33 percentage points of error"
    )
    assert facts["Intervals"].startswith("over seeds; they do not cover")


def test_writing_tells_what_is_done(tmp_path):
    told = []
    write_report(small(tmp_path / "s").path, tell=told.append)
    assert told[:2] == ["reading the runs", "comparing"]
    figures = [words for words in told if words.startswith("drawing figures, ")]
    assert told[-1] == f"saving {len(figures)} figures"


def test_setup_lists_every_machine_and_commit_of_the_runs(tmp_path):
    folder = small(tmp_path / "s")
    first, second, *_ = folder.runs()
    first.write_info({**first.info(), "commit": None, "dirty": None, "device_name": "Other processor"})
    second.write_info({**second.info(), "dirty": True})
    facts = dict(setup(load_study(folder.path)).facts)
    assert set(facts["Machine"].split("; ")) == {
        "Other processor, device cpu, threads 1 (1 run)", "Test processor, device cpu, threads 1 (5 runs)",
    }  # fmt: skip
    assert set(facts["Code"].split("; ")) == {
        "not a checkout, so the commit is unknown (1 run)",
        "commit abc123 with uncommitted changes (1 run)",
        "commit abc123 (4 runs)",
    }


def test_a_current_report_is_left_alone(study_dir, report):
    before = report_path(study_dir).stat().st_mtime_ns
    assert is_current(study_dir)
    assert write_report(study_dir) == report / "report.html"
    assert report_path(study_dir).stat().st_mtime_ns == before


# ---------------------------------------------------------------------------------------------- other studies


def test_a_changed_run_makes_the_report_stale_and_forcing_writes_equal_bytes(tmp_path):
    folder = small(tmp_path / "s")
    path = write_report(folder.path)
    first, time_written = path.read_bytes(), path.stat().st_mtime_ns
    assert write_report(folder.path, force=True).read_bytes() == first
    assert path.stat().st_mtime_ns > time_written
    run = next(folder.runs())
    run.write_info({**run.info(), "seconds": 3.0})
    assert not is_current(folder.path)
    path.unlink()
    assert not is_current(folder.path)


def test_a_complete_study_without_failures_says_so(tmp_path):
    page = Page(write_report(small(tmp_path / "s").path).read_text(encoding="utf-8"))
    text = " ".join(page.texts)
    assert "Incomplete" not in text
    assert "No run diverged, failed or was unreadable." in text
    assert "None of the 6 runs that were started diverged or failed." in text


def test_a_study_that_has_not_begun_has_a_report(tmp_path):
    page = Page(write_report(small(tmp_path / "s", missing=6).path).read_text(encoding="utf-8"))
    assert page.texts[1].startswith("Incomplete: 0 of 6 runs have finished (6 not started)")
    assert not page.find("img")


def test_unreadable_files_are_listed_with_the_remedy(tmp_path):
    folder = small(tmp_path / "s")
    run = next(folder.runs())
    run.metrics_path.write_bytes(b"PAR1 broken")
    for other in folder.runs():
        other.layers_path.write_bytes(b"PAR1 broken")
    text = " ".join(Page(write_report(folder.path).read_text(encoding="utf-8")).texts)
    assert f"{run.id}/metrics.parquet" in text
    assert "/layers.parquet" in text
    assert "only this run is repeated" in text


def test_texts_from_the_study_are_escaped(tmp_path):
    folder = small(tmp_path / "s", fields={"title": "<script>alert(1)</script>"}, missing=6)
    html = write_report(folder.path).read_text(encoding="utf-8")
    assert "<script>alert" not in html


def test_files_of_an_earlier_report_that_are_no_longer_made_go(tmp_path):
    folder = small(tmp_path / "s")
    write_report(folder.path)
    assert (folder.report_path / "curves.png").is_file()
    for run in folder.runs():
        run.info_path.unlink()
    write_report(folder.path)
    assert not (folder.report_path / "curves.png").exists()


def test_a_list_of_files_that_points_elsewhere_deletes_nothing_there(tmp_path):
    folder = small(tmp_path / "s")
    write_report(folder.path)
    other = tmp_path / "precious.txt"
    other.write_text("mine")
    write_json(folder.report_path / ".inputs.json", {"digest": "", "files": [str(other), "../../precious.txt", ".."]})
    write_report(folder.path)
    assert other.is_file()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full to write to")
def test_a_full_disk_is_named_and_the_next_report_is_whole(tmp_path):
    folder = small(tmp_path / "s")
    folder.report_path.mkdir()
    table = folder.report_path / "results-best.md"
    table.symlink_to("/dev/full")
    with pytest.raises(DiskError, match=r"report.html cannot be written \(No space left on device\); free some space"):
        write_report(folder.path)
    assert not is_current(folder.path)
    table.unlink()
    write_report(folder.path)
    assert is_current(folder.path)


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_checking_reads_what_the_report_is_made_with(tmp_path, monkeypatch):
    folder = small(tmp_path / "s", missing=6)
    write_report(folder.path)
    assert is_current(folder.path)
    own = module._own_files()
    assert {"report.html.j2", "insgd.toml", "report.py"} <= {path.name for path in own}
    monkeypatch.setattr(module, "_own_files", lambda: own[1:])
    assert not is_current(folder.path)


def test_the_page_says_how_to_make_it_again(page, study):
    text = " ".join(page.texts)
    assert "insgd-lab study run digits --out again insgd-lab report again" in text
    other = dataclasses.replace(study, info={**study.info, "name": "mine"}, runs=study.runs.assign(commit="abc"))
    assert commands(other)[:2] == ("git checkout abc", "insgd-lab study run mine.toml --out again")
    asked = {"study": "tiny.toml", "settings": ["epochs=1", "arm.adam.tune.lr=[0.1, 0.2]"]}
    [again, _] = commands(dataclasses.replace(study, info={**study.info, "asked": asked}))[-2:]
    assert again == "insgd-lab study run tiny.toml --set epochs=1 --set 'arm.adam.tune.lr=[0.1, 0.2]' --out again"
    mixed = study.runs.assign(commit=[f"c{k % 2}" for k in range(len(study.runs))])
    assert len(commands(dataclasses.replace(study, runs=mixed))) == 2


def test_unequal_numbers_of_trials_are_said(tmp_path):
    chosen = [arm for arm in arms() if arm["name"] in ("sgd", "adam")]
    chosen[1] = {**chosen[1], "tune": {"lr": chosen[1]["tune"]["lr"][:2]}}
    folder = build_study(tmp_path / "s", arm_list=chosen, failed=0, epochs=2, steps=10, seeds=2)
    info = folder.info()
    search = {"method": "random", "trials": 4, "seeds": [0]}
    plan = [{**row, "stage": "trial"} for row in info["plan"]] + info["plan"]
    folder.write_info({**info, "search": search, "plan": plan})
    study = load_study(folder.path)
    assert trials_by_arm(study) == {"SGD": 4, "Adam": 2}
    chosen = dict(setup(study).facts)["Choice of settings"]
    assert "a number of trials that differs by arm: SGD 4, Adam 2 (random)" in chosen
    choices = choose(study)
    [told] = [text for text in findings(study, choices, compare(study, choices), []) if "unequal" in text]
    assert "unequal numbers of trials (SGD 4, Adam 2)" in told
    plain = dataclasses.replace(study, info={**study.info, "search": None})
    [told] = [text for text in findings(plain, choices, compare(study, choices), []) if "unequal" in text]
    assert told == (
        "The arms' cells were tuned among unequal numbers of settings (SGD 4, Adam 2): more settings find lower errors."
    )
