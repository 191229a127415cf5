"""File formats of the collections, each parsed from bytes into NumPy arrays; they know no collection."""
