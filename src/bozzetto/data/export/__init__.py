"""Rendered data on disk: the layouts of LGM's and L4GM's training data, and WebDataset shards. Resumable, whole files only."""

from .run import FORMATS, RenderOptions, render_dataset

__all__ = ["FORMATS", "RenderOptions", "render_dataset"]
