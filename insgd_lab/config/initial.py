"""Where a run's weights come from if not from chance: transfer learning, checked without torch.

init_from = "runs/digits/0123456789abcdef"             # a run that kept its weights, or a file of weights
init_from = { path = "pretrained.pt", reset = ["head.*"], frozen = ["stem.*"] }
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from insgd_lab.config.base import Spec
from insgd_lab.store import RunFolder

__all__ = ["InitSpec", "sha256_of"]


class InitSpec(Spec):
    """The weights that a run starts from. What is in the file names the run; where it lies does not.

    Attributes:
        path: a file that torch.save wrote, of a state_dict or of a table with one as its "model"; or the folder of a
            run that kept its weights. Given relative to the working directory, kept absolute.
        sha256: of the file, in hexadecimal digits; computed if it is not given.
        reset: shell-style patterns of the parameters and buffers that keep their fresh initial values.
        frozen: shell-style patterns of the parameters that are not trained.
    """

    path: str
    sha256: str = Field(default="", validate_default=True)
    reset: list[str] = []
    frozen: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _from_toml(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("path")
    @classmethod
    def _there(cls, value: str) -> str:
        path = Path(value).absolute()
        if path.is_dir():
            path = RunFolder(path).weights_path
            if not path.is_file():
                raise ValueError(f"the folder holds no {path.name}; a run keeps its weights if record.weights = true")
        if not path.is_file():
            raise ValueError(f"there is no file {path}; check the path")
        return str(path)

    @field_validator("sha256")
    @classmethod
    def _right(cls, value: str, info: ValidationInfo) -> str:
        if "path" not in info.data:
            return value
        path = Path(info.data["path"])
        try:
            found = _remembered(path, path.stat().st_mtime_ns, path.stat().st_size)
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
        if value.lower() not in ("", found):
            raise ValueError(f"{path} has {found}; it is another file: look for the right one, or correct the sum")
        return found

    def canonical(self) -> dict[str, Any]:
        """Return the plain form that is hashed."""
        patterns = {"reset": sorted(set(self.reset)), "frozen": sorted(set(self.frozen))}
        return {"sha256": self.sha256, **{key: found for key, found in patterns.items() if found}}


@lru_cache(maxsize=64)
def _remembered(path: Path, modified: int, size: int) -> str:
    """`sha256_of`, once for each state of a file: a study checks it anew for every run."""
    return sha256_of(path)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
