"""Figures that a helper saves are those that this process would have, and nothing depends on the helper."""

import pickle
import time

import pytest

from insgd_lab.analysis import figures, saving, series
from insgd_lab.analysis.canvas import save_figure


@pytest.fixture
def drawn(study, choices):
    return [figures.draw_sensitivity([panel]) for panel in series.sensitivity(study, choices)[:3]]


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr(saving, "_cores", lambda: 2)


def wait_for_helper(saver):
    """Until it has come up."""
    until = time.monotonic() + 60
    while not saver._ready:
        assert time.monotonic() < until
        time.sleep(0.01)


def held_back(saver, monkeypatch):
    """Before this process saves anything, the helper gets all."""
    save_waiting = saver._save_waiting

    def wait():
        monkeypatch.setattr(saver, "_save_waiting", save_waiting)
        until = time.monotonic() + 60
        while not saver._waiting.empty():
            assert time.monotonic() < until
            time.sleep(0.01)
        save_waiting()

    monkeypatch.setattr(saver, "_save_waiting", wait)


def test_a_helper_saves_the_same_files(tmp_path, drawn, monkeypatch):
    (tmp_path / "alone").mkdir()
    (tmp_path / "shared").mkdir()
    for k, figure in enumerate(pickle.loads(pickle.dumps(drawn))):
        save_figure(figure, tmp_path / "alone", f"f{k}")
    with saving.Saver(tmp_path / "shared") as saver:
        held_back(saver, monkeypatch)
        for k, figure in enumerate(drawn):
            saver.save(figure, f"f{k}")
        saved = saver.finish()
    assert set(saved) == {"f0", "f1", "f2"}
    assert all(figure.get_layout_engine() is not None for figure in drawn)  # nobody has saved them here
    for name, paths in saved.items():
        for form, path in paths.items():
            assert path.read_bytes() == (tmp_path / "alone" / f"{name}.{form}").read_bytes(), (name, form)


def test_this_process_saves_too_while_the_helper_does(tmp_path, drawn, monkeypatch):
    """Either waits for the other's first figure, so both have one to save, and each is saved by one of them."""
    own, helped = [], []

    def noting(names, others, save):
        def noted(figure, name, *rest):
            until = time.monotonic() + 60
            names.append(name)
            while not others:
                assert time.monotonic() < until, f"nobody else saves anything beside {name}"
                time.sleep(0.01)
            return save(figure, name, *rest)

        return noted

    with saving.Saver(tmp_path) as saver:
        monkeypatch.setattr(saver, "_ask", noting(helped, own, saver._ask))
        monkeypatch.setattr(saving, "_save", noting(own, helped, saving._save))
        wait_for_helper(saver)
        for k in range(6):
            saver.save(pickle.loads(pickle.dumps(drawn[k % 3])), f"f{k}")
        saved = saver.finish()
    assert sorted(own + helped) == sorted(saved) == [f"f{k}" for k in range(6)]
    assert all(path.is_file() for paths in saved.values() for path in paths.values())


def test_what_a_helper_that_died_was_at_is_saved_all_the_same(tmp_path, drawn, monkeypatch):
    with saving.Saver(tmp_path) as saver:
        wait_for_helper(saver)
        monkeypatch.setattr(saver, "_hear", lambda: saver._helper.kill())  # it is gone before it answers
        for k, figure in enumerate(drawn):
            saver.save(figure, f"f{k}")
        while saver._feeder.is_alive():
            time.sleep(0.01)
        saved = saver.finish()
    assert set(saved) == {"f0", "f1", "f2"}
    assert all(path.is_file() for paths in saved.values() for path in paths.values())


@pytest.mark.parametrize("helper", ["raise SystemExit(3)", "import time; time.sleep(1000)"])
def test_a_helper_that_does_not_come_up_is_done_without(tmp_path, drawn, monkeypatch, helper):
    monkeypatch.setattr(saving, "_HELPER", helper)
    with saving.Saver(tmp_path) as saver:
        saver.save(drawn[0], "kept")
        assert saver.finish()["kept"]["pdf"].is_file()


def test_a_figure_that_cannot_be_sent_is_told(tmp_path, drawn, monkeypatch):
    with saving.Saver(tmp_path) as saver:
        held_back(saver, monkeypatch)
        drawn[0].mark = lambda: None
        saver.save(drawn[0], "x")
        with pytest.raises(Exception, match="pickle"):
            saver.finish()


@pytest.mark.parametrize("helped", [True, False])
def test_a_folder_that_cannot_be_is_told_by_either(tmp_path, drawn, monkeypatch, helped):
    monkeypatch.setattr(saving, "_cores", lambda: 1 + helped)
    (tmp_path / "file").touch()
    with saving.Saver(tmp_path / "file") as saver:
        if helped:
            held_back(saver, monkeypatch)
        saver.save(drawn[0], "x")
        with pytest.raises(FileExistsError):
            saver.finish()


def test_who_leaves_with_an_error_leaves_no_helper(tmp_path):
    with pytest.raises(KeyError), saving.Saver(tmp_path) as saver:
        raise KeyError
    assert saver._helper.poll() is not None
    assert not saver._feeder.is_alive()
