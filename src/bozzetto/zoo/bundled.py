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
                "lgm-mini.safetensors", 16_048_792, "eb438d5fe9cbdb6aa541aa934719313e993ee862bed2ba799cd4a8890add3eec"
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
                21_185_292,
                "63bb51d6c18154461fbc20cbedc3e8b9f05784d9acc29c6d16a1b449c64acc35",
            ),
        ),
        licence="CC-BY-4.0",
        terms="free to use, also commercially, with attribution",
        summary="lgm-mini without share-alike data: --model lgm-mini-clean; softer where a photo does not look",
        options={"preset_name": "mini-sweep"},
        inputs=("photo", "views"),
        parameters=10_584_650,
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
