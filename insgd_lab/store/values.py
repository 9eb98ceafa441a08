"""Values in plain JSON, and the one text of a specification that names its run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["canonical_json", "from_json_value", "run_id", "to_json_value"]


def to_json_value(value: Any) -> Any:
    """Return `value` in plain JSON types; infinities and NaN become the strings "inf", "-inf" and "nan"."""
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_value(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return to_json_value(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_json_value(value: Any) -> Any:
    """Undo `to_json_value`: the strings "inf", "-inf" and "nan" become floats again."""
    if isinstance(value, dict):
        return {key: from_json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json_value(item) for item in value]
    if isinstance(value, str) and value in ("inf", "-inf", "nan"):
        return float(value)
    return value


def canonical_json(spec: Mapping[str, Any]) -> str:
    """Return the one text of `spec` that is hashed: sorted keys, no spaces, infinities as strings."""
    return json.dumps(to_json_value(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def run_id(spec: Mapping[str, Any]) -> str:
    """Return the name of the run that `spec` describes: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()[:16]
