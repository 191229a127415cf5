"""The weights inside this package: what was trained with it, and the background remover."""

from __future__ import annotations

from .entry import FREE, WeightsEntry, WeightsFile

_SHARE_ALIKE = "free to use, also commercially, with attribution; weights derived from these keep the licence"

MINI = (
    WeightsEntry(
        name="lgm-mini",
        system="lgm",
        files=(
            WeightsFile(
                "lgm-mini.safetensors", 16_048_792, "80ddb433a97994d28c66ba018ee7d5108008999c01d3eccb6af218c458fe029b"
            ),
        ),
        licence="CC-BY-SA-4.0",
        terms=_SHARE_ALIKE,
        summary="photo or posed views (uses up to four) -> Gaussians; 15.9 M parameters, runs on a CPU",
        options={"preset_name": "mini-cascade"},
        inputs=("photo", "views"),
        parameters=15_912_856,
    ),
    WeightsEntry(
        name="lgm-mini-clean",
        system="lgm",
        files=(
            WeightsFile(
                "lgm-mini-clean.safetensors",
                16_048_792,
                "3e79ecd54a19da44d5e817c80356cf80132f9c8bded569525237fb0b623a5817",
            ),
        ),
        licence="CC-BY-4.0",
        terms="free to use, also commercially, with attribution",
        summary="lgm-mini without share-alike data: --model lgm-mini-clean; softer where a photo does not look",
        options={"preset_name": "mini-cascade"},
        inputs=("photo", "views"),
        parameters=15_912_856,
        stands_for="lgm-mini",
    ),
)

MATTING = (
    WeightsEntry(
        name="u2netp",
        system="matting",
        files=(
            WeightsFile(
                "u2netp.safetensors", 4_522_876, "7ce6946d53c9c70571864ad847722988d4d20c8f0770605554377aa664ce7a30"
            ),
        ),
        licence="Apache-2.0",
        terms=FREE,
        summary="background removal (U2-Net, small)",
        parameters=1_125_485,
    ),
)
