import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from insgd_lab import registry
from insgd_lab.training import files
from insgd_lab.training.file_sets import FILE_SETS, FileSet
from insgd_lab.training.files import (
    DataError,
    check,
    data_folder,
    data_status,
    locate,
)
from insgd_lab.training.preparation import prepare


@pytest.fixture
def tiny(tiny_cifar) -> tuple[Path, dict[str, FileSet]]:
    data, files = tiny_cifar
    return data, {"cifar10": files}


def pack(folder: Path, archive: Path, prefix: str = "cifar-10-batches-py/") -> Path:
    """Pack the files of `folder` as the authors' archive does."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, prefix + path.name)
    return archive


def states(name, data_dir, sets):
    return {status.path.name: status.state for status in data_status(name, data_dir, sets)}


def test_right_files_pass_in_the_data_folder_and_as_the_data_folder(tiny):
    data, sets = tiny
    check("cifar10", data, sets)
    check("cifar10", data / "cifar-10-batches-py", sets)
    assert set(states("cifar10", data, sets).values()) == {"ok"}


def test_a_file_is_summed_once_as_long_as_it_is_left_alone(tiny, monkeypatch):
    data, sets = tiny
    summed, md5_of = [], files.md5_of
    monkeypatch.setattr(files, "md5_of", lambda path: summed.append(path.name) or md5_of(path))
    for _ in range(2):
        check("cifar10", data, sets)
    assert sorted(summed) == sorted(file.name for file in sets["cifar10"].files)
    path = data / "cifar-10-batches-py" / "test_batch"
    content = path.read_bytes()
    path.write_bytes(content[::-1])
    os.utime(path, ns=(0, 12345))
    with pytest.raises(DataError, match=r"test_batch: found .* with MD5"):
        check("cifar10", data, sets)
    path.write_bytes(content)
    os.utime(path, ns=(0, 67890))
    check("cifar10", data, sets)


def test_files_lying_directly_in_the_data_folder_are_found(tiny, tmp_path):
    data, sets = tiny
    shutil.move(data / "cifar-10-batches-py", tmp_path / "loose")
    check("cifar10", tmp_path / "loose", sets)


def test_every_kind_of_wrong_file_is_named_with_what_belongs_there(tiny):
    data, sets = tiny
    folder = data / "cifar-10-batches-py"
    expected = {file.name: file for file in sets["cifar10"].files}
    (folder / "data_batch_1").unlink()
    (folder / "data_batch_2").write_bytes(b"")
    (folder / "data_batch_3").write_bytes((folder / "data_batch_3").read_bytes()[:-100])
    swapped = (folder / "data_batch_4").read_bytes(), (folder / "data_batch_5").read_bytes()
    (folder / "data_batch_5").write_bytes(swapped[0])
    (folder / "data_batch_4").write_bytes(swapped[1])
    with pytest.raises(DataError) as caught:
        check("cifar10", data, sets)
    message = str(caught.value)
    for k, found in enumerate(("missing", "empty", "bytes", "with MD5", "with MD5"), start=1):
        line = next(line for line in message.splitlines() if f"data_batch_{k}:" in line)
        assert found in line
        assert expected[f"data_batch_{k}"].md5 in line
    assert "test_batch" not in message
    assert str(folder) in message
    assert "cifar-10-python.tar.gz" in message
    assert f"data prepare cifar10 --source cifar-10-python.tar.gz --data-dir {data}" in message
    assert "torchvision" in message


def test_sets_without_files_have_nothing_to_check(tmp_path):
    check("digits", tmp_path)
    assert data_status("digits", tmp_path) == []
    with pytest.raises(DataError, match="'digits' has no files to prepare; data sets that have: cifar10"):
        prepare("digits", tmp_path, tmp_path)


def test_the_data_folder_is_the_argument_then_the_variable_then_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("INSGD_LAB_DATA", str(tmp_path / "variable"))
    assert data_folder(tmp_path) == tmp_path
    assert data_folder() == tmp_path / "variable"
    monkeypatch.delenv("INSGD_LAB_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder() == tmp_path / "cache" / "insgd-lab"


@pytest.mark.parametrize("name", FILE_SETS)
def test_the_registry_lists_the_files_that_are_checked(name):
    files = FILE_SETS[name]
    names = [files.manifest] if files.manifest else [file.name for file in files.files]
    assert set(registry.get_data(name).files) == {f"{files.folder}/{name}" for name in names}


def emptied_file(path, other):
    path.write_bytes(b"")


def truncated(path, other):
    path.write_bytes(path.read_bytes()[:-1])


def swapped(path, other):
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def lost(path, other):
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "found"), [(emptied_file, "empty"), (truncated, "bytes"), (swapped, "bytes"), (lost, "missing")]
)
def test_a_bad_file_of_any_set_is_named_with_the_remedy_and_mended(tiny_set, tmp_path, spoil, found):
    good = tmp_path / "good"
    shutil.copytree(tiny_set.folder, good)
    spoiled, other = tiny_set.files.files[:2]
    spoil(tiny_set.folder / spoiled.name, tiny_set.folder / other.name)
    with pytest.raises(DataError) as caught:
        check(tiny_set.name, tiny_set.data, tiny_set.sets)
    message = str(caught.value)
    line = next(line for line in message.splitlines() if f" {spoiled.name}:" in line)
    assert found in line
    assert spoiled.md5 in line
    assert f"insgd-lab data prepare {tiny_set.name} --source " in message
    assert f"--data-dir {tiny_set.data}\n" in message
    assert f"torchvision.datasets.{tiny_set.files.torchvision}({str(tiny_set.data)!r}" in message
    prepare(tiny_set.name, tiny_set.data, good, tiny_set.sets)
    check(tiny_set.name, tiny_set.data, tiny_set.sets)


def test_any_folder_on_the_way_to_the_files_will_do(tiny_fashion):
    for place in (tiny_fashion.data, tiny_fashion.data / "FashionMNIST", tiny_fashion.folder):
        assert locate(tiny_fashion.files, place) == tiny_fashion.folder
        check("fashion-mnist", place, tiny_fashion.sets)


def test_a_file_called_like_one_of_the_set_is_not_taken_for_it(tiny_cifar100, tmp_path):
    (tmp_path / "test").write_text("someone's notes")
    assert locate(tiny_cifar100.files, tmp_path) == tmp_path / "cifar-100-python"


def test_files_published_one_by_one_are_prepared_from_their_folder_only(tiny_fashion, tmp_path):
    file = tiny_fashion.folder / "t10k-labels-idx1-ubyte.gz"
    with pytest.raises(
        DataError, match=r"is one file; give --source the folder that holds train-images-idx3-ubyte\.gz"
    ):
        prepare("fashion-mnist", tmp_path / "new", file, tiny_fashion.sets)
    with pytest.raises(DataError, match="is not there; give --source the folder that holds"):
        prepare("fashion-mnist", tmp_path / "new", tmp_path / "absent", tiny_fashion.sets)
    assert not (tmp_path / "new").exists()
    found = prepare("fashion-mnist", tmp_path / "new", tiny_fashion.folder, tiny_fashion.sets)
    assert {status.path.parent for status in found} == {tmp_path / "new" / "FashionMNIST" / "raw"}


def test_cifar100_is_prepared_from_its_archive(tiny_cifar100, tmp_path):
    archive = pack(tiny_cifar100.folder, tmp_path / "cifar-100-python.tar.gz", "cifar-100-python/")
    found = prepare("cifar100", tmp_path / "new", archive, tiny_cifar100.sets)
    assert [status.state for status in found] == ["ok"] * 3


@pytest.mark.parametrize("prefix", ["cifar-10-batches-py/", "./cifar-10-batches-py/", ""])
def test_prepare_unpacks_an_archive(tiny, tmp_path, prefix):
    data, sets = tiny
    archive = pack(data / "cifar-10-batches-py", tmp_path / "cifar-10-python.tar.gz", prefix)
    found = prepare("cifar10", tmp_path / "new", archive, sets)
    assert [status.state for status in found] == ["ok"] * 7
    check("cifar10", tmp_path / "new", sets)


def test_prepare_copies_from_a_folder_and_mends_only_what_is_wrong(tiny, tmp_path):
    data, sets = tiny
    new = tmp_path / "new"
    prepare("cifar10", new, data, sets)
    folder = locate(sets["cifar10"], new)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "test_batch").write_bytes(b"x")
    prepare("cifar10", new, data / "cifar-10-batches-py", sets)
    check("cifar10", new, sets)
    assert {path.name for path in folder.iterdir() if path.stat().st_mtime_ns != times[path.name]} == {"test_batch"}


def test_prepare_is_content_with_files_in_place_even_without_a_source(tiny, tmp_path):
    data, sets = tiny
    prepare("cifar10", data, tmp_path / "no-such-archive", sets)


def test_prepare_takes_no_other_member_and_no_path_of_the_archive(tiny, tmp_path):
    data, sets = tiny
    archive = pack(data / "cifar-10-batches-py", tmp_path / "good.tar.gz")
    evil = tmp_path / "evil.tar.gz"
    with tarfile.open(archive) as old, tarfile.open(evil, "w:gz") as new:
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        new.addfile(link)
        for name in ("../escaped", "cifar-10-batches-py/../../escaped", "cifar-10-batches-py/extra"):
            entry = tarfile.TarInfo(name)
            entry.size = 3
            new.addfile(entry, io.BytesIO(b"bad"))
        for member in old:
            new.addfile(member, old.extractfile(member))
    prepare("cifar10", tmp_path / "new" / "deep", evil, sets)
    written = {path.name for path in (tmp_path / "new").rglob("*") if not path.is_dir()}
    assert written == {file.name for file in sets["cifar10"].files}
    assert not (tmp_path / "escaped").exists()


def damaged(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])


def emptied(archive: Path) -> None:
    archive.write_bytes(b"")


def other(archive: Path) -> None:
    archive.write_text("<html>not found</html>")


@pytest.mark.parametrize("spoil", [damaged, emptied, other])
def test_prepare_refuses_a_broken_archive_and_leaves_no_wrong_file(tiny, tmp_path, spoil):
    data, sets = tiny
    archive = pack(data / "cifar-10-batches-py", tmp_path / "cifar-10-python.tar.gz")
    spoil(archive)
    with pytest.raises(DataError, match="damaged or not a tar archive"):
        prepare("cifar10", tmp_path / "new", archive, sets)
    assert "wrong" not in states("cifar10", tmp_path / "new", sets).values()
    assert not list((tmp_path / "new").rglob(".*"))


def test_prepare_checks_the_sum_before_a_file_takes_its_place(tiny, tmp_path):
    data, sets = tiny
    (data / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"something else")
    archive = pack(data / "cifar-10-batches-py", tmp_path / "cifar-10-python.tar.gz")
    for source in (archive, data):
        with pytest.raises(DataError, match=r"data_batch_3.*found 14 bytes with MD5 .*expected"):
            prepare("cifar10", tmp_path / "new", source, sets)
    assert not (tmp_path / "new" / "cifar-10-batches-py" / "data_batch_3").exists()


def test_prepare_says_what_a_source_lacks(tiny, tmp_path):
    data, sets = tiny
    with pytest.raises(DataError, match="is not there; give --source"):
        prepare("cifar10", tmp_path / "new", tmp_path / "absent.tar.gz", sets)
    (data / "cifar-10-batches-py" / "test_batch").unlink()
    archive = pack(data / "cifar-10-batches-py", tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(DataError, match="has no test_batch"):
        prepare("cifar10", tmp_path / "new", archive, sets)
    with pytest.raises(DataError, match="test_batch is not there"):
        prepare("cifar10", tmp_path / "other", data, sets)
