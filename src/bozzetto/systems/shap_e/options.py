"""What a user can set for Shap-E."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import InputError
from ...options import check_options, option


@dataclass(frozen=True)
class _Common:
    """Options that photo and text share."""

    steps: int = option(64, "sampling steps, two network evaluations each", low=1, high=1024)
    resolution: int = option(128, "samples of the signed distance along each side of the cube", low=16, high=512)
    texture: str = option("uv", "a texture picture, or one colour per vertex", choices=("uv", "vertex"))
    texture_size: int = option(1024, "side of the texture in texels", low=64, high=8192)
    mesh_format: str = option("glb", "file format of the mesh", choices=("glb", "obj", "usdz"))
    max_faces: int = option(0, "upper limit for the number of triangles; 0 keeps all", low=0)

    def __post_init__(self) -> None:
        check_options(self)
        if 0 < self.max_faces < 4:
            raise InputError(f"--max-faces must be 0 (keep all) or at least 4, got {self.max_faces}")


@dataclass(frozen=True)
class PhotoOptions(_Common):
    """Options of a photo."""

    guidance: float = option(3.0, "how much the photo is exaggerated; 1 is not at all", low=0.0, high=100.0)
    foreground_ratio: float = option(0.85, "share of the picture's side that the object fills", low=0.1, high=1.0)


@dataclass(frozen=True)
class TextOptions(_Common):
    """Options of a prompt."""

    guidance: float = option(15.0, "how much the prompt is exaggerated; 1 is not at all", low=0.0, high=100.0)
    weights_variant: str = option(
        "openai", "who trained the text model; cap3d: on captions of 330,000 objects", choices=("openai", "cap3d")
    )

    def entries(self) -> tuple[str, ...]:
        """The zoo entries that a run loads."""
        text = "shap-e-text-cap3d" if self.weights_variant == "cap3d" else "shap-e-text"
        return "clip-vit-l14", text, "shap-e-transmitter"
