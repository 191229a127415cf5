"""Networks and what belongs to each: one folder per system."""
