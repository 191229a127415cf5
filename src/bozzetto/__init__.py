"""bozzetto: a photo, a prompt, posed views or a video in; Gaussian splats, a textured mesh, films and a viewer page out."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# Public name -> module that owns it. Loaded on first use, so that `import bozzetto` stays fast.
_PUBLIC = {
    "image_to_3d": ".api",
    "text_to_3d": ".api",
    "video_to_4d": ".api",
    "views_to_3d": ".api",
    "fit_gaussians": ".fitting",
    "load": ".zoo",
    "Asset": ".asset",
    "Asset4D": ".asset4d",
    "Gaussians": ".gaussians",
    "Mesh": ".mesh",
    "Cameras": ".camera",
    "rasterize": ".raster",
    "BozzettoError": ".errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name], __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
