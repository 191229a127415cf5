"""Which weights exist, where they are, and how to load one by name."""

from .entries import ENTRIES, WeightsEntry, find_entry
from .load import load, weights_file

__all__ = ["ENTRIES", "WeightsEntry", "find_entry", "load", "weights_file"]
