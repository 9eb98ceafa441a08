import subprocess
import sys

import pytest

from insgd_lab.training.files import DataError
from insgd_lab.training.vision import torchvision


def forget(monkeypatch):
    """As if torchvision had not been imported yet; undone after the test."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "RuntimeError: operator torchvision::nms"),
        ("raise ImportError('libcudart.so.13: cannot open')", "ImportError: libcudart"),
    ],
)
def test_a_torchvision_that_does_not_fit_torch_is_refused_with_the_remedy(monkeypatch, tmp_path, source, found):
    (tmp_path / "torchvision.py").write_text(source)
    forget(monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        DataError, match=rf"cannot be imported \({found}.*install the two together, with the same --index-url"
    ):
        torchvision()


def test_a_missing_torchvision_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DataError, match="pip install --force-reinstall torch torchvision"):
        torchvision()


def test_torchvision_and_pillow_are_imported_only_when_they_are_needed():
    code = (
        "import sys, insgd_lab.training.loop, insgd_lab.training.data, insgd_lab.training.models as models\n"
        "models.resnet20((3, 8, 8), 2)\n"
        "assert not {'torchvision', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
