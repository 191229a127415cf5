"""Batched renderer of textured triangle objects: what training pictures are made with.

    scene = SceneBatch.pack(objects)                      # or PackedObject.pack in workers, then SceneBatch.collate
    views = render_objects(scene, cameras, 256, Lights.random(len(objects)))

Rendering has two passes. *Visibility* finds, for every sample of a supersampled picture, the nearest triangle (a z-buffer of
64-bit keys: inverse depth above, triangle id below). *Shading* looks up texture and light for each sample and averages
the samples of a pixel. :mod:`.cpu` (numba) and :mod:`.triton` do exactly the same arithmetic.
"""

from .api import RenderedViews, render_objects
from .lights import Lights
from .scene import PackedObject, SceneBatch

__all__ = ["Lights", "PackedObject", "RenderedViews", "SceneBatch", "render_objects"]
