"""Figures that a helper saves are those that this process would have, and nothing depends on the helper."""

import selectors

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
    """Until it has come up, or answers."""
    with selectors.DefaultSelector() as selector:
        selector.register(saver._helper.stdout, selectors.EVENT_READ)
        assert selector.select(60)


def test_a_helper_saves_the_same_files(tmp_path, drawn):
    (tmp_path / "alone").mkdir()
    (tmp_path / "shared").mkdir()
    with saving.Saver(tmp_path / "shared") as saver:
        wait_for_helper(saver)
        for k, figure in enumerate(drawn):
            saver.save(figure, f"f{k}")
        assert saver._helper is not None
    for k, figure in enumerate(drawn):
        save_figure(figure, tmp_path / "alone", f"f{k}")
    assert set(saver.paths) == {"f0", "f1", "f2"}
    for k in range(3):
        for form, path in saver.paths[f"f{k}"].items():
            assert path.read_bytes() == (tmp_path / "alone" / f"f{k}.{form}").read_bytes(), (k, form)


def test_what_a_helper_that_died_was_at_is_saved_all_the_same(tmp_path, drawn):
    with saving.Saver(tmp_path) as saver:
        wait_for_helper(saver)
        saver.save(drawn[0], "sent")
        assert "sent" not in saver.paths
        saver._helper.kill()
        saver.save(drawn[1], "kept")
    assert set(saver.paths) == {"sent", "kept"}
    assert all(path.is_file() for paths in saver.paths.values() for path in paths.values())


def test_a_helper_that_cannot_start_is_done_without(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(saving, "_HELPER", "raise SystemExit(3)")
    with saving.Saver(tmp_path) as saver:
        wait_for_helper(saver)
        saver.save(drawn[0], "kept")
    assert saver.paths["kept"]["pdf"].is_file()


@pytest.mark.parametrize("helped", [True, False])
def test_a_folder_that_is_not_there_is_told_by_either(tmp_path, drawn, monkeypatch, helped):
    def save():
        with saving.Saver(tmp_path / "nowhere") as saver:
            if helped:
                wait_for_helper(saver)
            saver.save(drawn[0], "x")

    monkeypatch.setattr(saving, "_cores", lambda: 1 + helped)
    with pytest.raises(FileNotFoundError):
        save()
