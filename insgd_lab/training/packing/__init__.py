"""Packing: several runs side by side on one device, each what it would be alone up to rounding (docs/packing.md)."""

from insgd_lab.training.packing.layers import NotPackable
from insgd_lab.training.packing.model import PackedModel

__all__ = ["NotPackable", "PackedModel"]
