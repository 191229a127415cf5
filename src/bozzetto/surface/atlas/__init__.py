"""Charts of a mesh: which faces lie in one plane, where they lie in the picture."""
