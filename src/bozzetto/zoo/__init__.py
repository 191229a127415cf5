"""Which weights exist, where they are, how they get here, and how to load one by name."""

from .entries import ENTRIES, WeightsEntry, WeightsFile, find_entry
from .load import check_name, identify_file, load, locate, weights_file

__all__ = [
    "ENTRIES",
    "WeightsEntry",
    "WeightsFile",
    "check_name",
    "find_entry",
    "identify_file",
    "load",
    "locate",
    "weights_file",
]
