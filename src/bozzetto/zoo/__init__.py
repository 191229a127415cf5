"""Which weights exist, where they are, and how to load one by name."""

from .entries import ENTRIES, WeightsEntry, find_entry
from .load import check_name, load, weights_file

__all__ = ["ENTRIES", "WeightsEntry", "check_name", "find_entry", "load", "weights_file"]
