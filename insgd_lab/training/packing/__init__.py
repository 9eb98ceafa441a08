"""Packing: several runs side by side on one device, each what it would be alone up to rounding (docs/packing.md)."""

from insgd_lab.training.packing.layers import NotPackable
from insgd_lab.training.packing.loop import train_packed
from insgd_lab.training.packing.model import PackedModel
from insgd_lab.training.packing.training import PackedTraining
from insgd_lab.training.packing.worth import worth_packing

__all__ = ["NotPackable", "PackedModel", "PackedTraining", "train_packed", "worth_packing"]
