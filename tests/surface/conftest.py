"""Lets the tests of this room import ``shapes``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
