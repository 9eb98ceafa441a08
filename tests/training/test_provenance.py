import os
import subprocess

import pytest

import insgd_lab
from insgd_lab.training import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository that seems to be the one the lab is imported from, with one commit."""
    package = tmp_path / "insgd_lab"
    package.mkdir()
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "first")
    monkeypatch.setattr(insgd_lab, "__file__", str(package / "__init__.py"))
    monkeypatch.delenv("INSGD_LAB_COMMIT", raising=False)
    provenance.commit.cache_clear()
    yield tmp_path
    provenance.commit.cache_clear()


def git(folder, *arguments) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", folder, *arguments], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_the_labs_checkout_and_not_of_a_hook(checkout, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(checkout / "elsewhere"))
    assert provenance.commit() == (git(checkout, "rev-parse", "HEAD"), False)


def test_changed_files_make_it_dirty_and_new_ones_do_not(checkout):
    (checkout / "runs").mkdir()
    (checkout / "runs" / "run.json").write_text("{}")
    assert provenance.commit()[1] is False
    provenance.commit.cache_clear()
    (checkout / "insgd_lab" / "__init__.py").write_text("changed = True")
    assert provenance.commit()[1] is True


def test_an_installed_lab_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(insgd_lab, "__file__", str(tmp_path / "site-packages" / "insgd_lab" / "__init__.py"))
    monkeypatch.delenv("INSGD_LAB_COMMIT", raising=False)
    provenance.commit.cache_clear()
    assert provenance.commit() == (None, None)
    provenance.commit.cache_clear()


@pytest.mark.parametrize(("told", "commit"), [("0a1b", ("0a1b", False)), ("0a1b-dirty", ("0a1b", True))])
def test_whoever_installed_the_lab_can_tell_its_commit(checkout, monkeypatch, told, commit):
    monkeypatch.setenv("INSGD_LAB_COMMIT", told)
    assert provenance.commit() == commit


def test_the_device_has_a_name():
    assert provenance.device_name("cpu")
