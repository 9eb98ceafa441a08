"""The data sets' files as their authors publish them: names, sizes, sums, and where they come from. Data only.

>>> FILE_SETS["cifar100"].archive, [file.name for file in FILE_SETS["cifar100"].files]
('cifar-100-python.tar.gz', ['train', 'test', 'meta'])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class DataFile:
    """One published file: its name, its size in bytes and its MD5."""

    name: str
    size: int
    md5: str

    @property
    def expected(self) -> str:
        """What the file must be, in words."""
        return f"{self.size} bytes with MD5 {self.md5}"


@dataclass(frozen=True)
class FileSet:
    """The files of one data set, the folder below the data folder they live in, and where they come from.

    Without an `archive` the files are published one by one. With a `manifest` they are not the published ones, but
    decoded from the archive, and that file beside them lists them.
    """

    title: str
    folder: str = ""
    files: tuple[DataFile, ...] = ()
    archive: str = ""
    archive_md5: str = ""
    page: str = ""
    torchvision: str = ""
    manifest: str = ""


CIFAR10 = FileSet(
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    files=(
        DataFile("data_batch_1", 31035704, "c99cafc152244af753f735de768cd75f"),
        DataFile("data_batch_2", 31035320, "d4bba439e000b95fd0a9bffe97cbabec"),
        DataFile("data_batch_3", 31035999, "54ebc095f3ab1f0389bbae665268c751"),
        DataFile("data_batch_4", 31035696, "634d18415352ddfa80567beed471001a"),
        DataFile("data_batch_5", 31035623, "482c414d41f54cd18b22e5b47cb7c3cb"),
        DataFile("test_batch", 31035526, "40351d587109b95175f43aff81a1287e"),
        DataFile("batches.meta", 158, "5ff9c542aee3614f3951f8cda6e48888"),
    ),
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    torchvision="CIFAR10",
)
CIFAR100 = FileSet(
    title="CIFAR-100",
    folder="cifar-100-python",
    files=(
        DataFile("train", 155249918, "16019d7e3df5f24257cddd939b257f8d"),
        DataFile("test", 31049707, "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        DataFile("meta", 1473, "7973b15100ade9c7d40fb424638fde48"),
    ),
    archive="cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    torchvision="CIFAR100",
)
FASHION_MNIST = FileSet(
    title="Fashion-MNIST",
    folder="FashionMNIST/raw",
    files=(
        DataFile("train-images-idx3-ubyte.gz", 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        DataFile("train-labels-idx1-ubyte.gz", 29515, "25c81989df183df01b3e8a0aad5dffbe"),
        DataFile("t10k-images-idx3-ubyte.gz", 4422102, "bef4ecab320f06d8554ea6380940ec79"),
        DataFile("t10k-labels-idx1-ubyte.gz", 5148, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    page="https://github.com/zalandoresearch/fashion-mnist",
    torchvision="FashionMNIST",
)
TINY_IMAGENET = FileSet(
    title="Tiny ImageNet",
    folder="tiny-imagenet",
    archive="tiny-imagenet-200.zip",
    archive_md5="90528d7ca1a48142e341f4ef8d21d0de",
    page="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    manifest="manifest.json",
)
FILE_SETS: Mapping[str, FileSet] = MappingProxyType(
    {
        "digits": FileSet("scikit-learn's digits"),
        "cifar10": CIFAR10,
        "cifar100": CIFAR100,
        "fashion-mnist": FASHION_MNIST,
        "tiny-imagenet": TINY_IMAGENET,
    }
)
