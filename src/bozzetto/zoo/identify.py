"""What a checkpoint is, from the names and shapes of its tensors; so that one of the wrong system is named as such."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint.

    Attributes:
        name: of the network.
        title: of the file, with its article, to follow "PATH is".
        system: folder of ``systems/`` that loads it ("matting" for u2netp), or "" for none.
        entry: zoo entry in whose place it can stand, or "".
        advice: what to do with it.
    """

    name: str
    title: str
    system: str = ""
    entry: str = ""
    advice: str = "bozzetto has no use for it"


LGM = Kind("LGM", "an LGM checkpoint", "lgm", "lgm-big", "use --model lgm")
LGM_MINI = Kind("lgm-mini", "an lgm-mini checkpoint", "lgm", "lgm-mini", "use --model lgm-mini")
L4GM = Kind("L4GM", "an L4GM checkpoint", "l4gm", "l4gm-recon", "use --model l4gm")
L4GM_INTERP = Kind("L4GM", "an L4GM interpolation checkpoint", "l4gm", "l4gm-interp", "use --model l4gm")
TRIPOSR = Kind("TripoSR", "a TripoSR checkpoint", "triposr", "triposr", "use --model triposr")
IMAGEDREAM = Kind(
    "ImageDream",
    "the UNet of ImageDream",
    "mvdream",
    "imagedream",
    "give its whole folder: --weights imagedream=FOLDER",
)
MVDREAM = Kind(
    "MVDream", "the UNet of MVDream", "mvdream", "mvdream", "give its whole folder: --weights mvdream=FOLDER"
)
MVDREAM_ORIGINAL = Kind(
    "MVDream",
    "an MVDream or ImageDream checkpoint in its authors' own layout",
    advice="bozzetto reads the diffusers layout: see `bozzetto models mvdream`",
)
TRANSMITTER = Kind(
    "Shap-E transmitter",
    "a Shap-E transmitter",
    "shap_e",
    "shap-e-transmitter",
    "use --model shap-e with --weights shap-e-transmitter=FILE",
)
SHAP_E_TEXT = Kind(
    "Shap-E text300M",
    "a Shap-E text checkpoint",
    "shap_e",
    "shap-e-text",
    "use --model shap-e with --weights shap-e-text=FILE",
)
SHAP_E_IMAGE = Kind(
    "Shap-E image300M",
    "a Shap-E image checkpoint",
    "shap_e",
    "shap-e-image",
    "use --model shap-e with --weights shap-e-image=FILE",
)
CLIP = Kind("CLIP", "a CLIP checkpoint", "shap_e", "clip-vit-l14", "give its folder: --weights clip-vit-l14=FOLDER")
CLIP_ORIGINAL = Kind("CLIP", "a CLIP checkpoint in OpenAI's own layout", advice="see `bozzetto models clip-vit-l14`")
CLIP_TEXT = Kind("CLIP text encoder", "a CLIP text encoder", advice="it is a part of a diffusion model's folder")
CLIP_IMAGE = Kind("CLIP image encoder", "a CLIP image encoder", advice="it is a part of a diffusion model's folder")
VAE = Kind("VAE", "a diffusion model's VAE", advice="it is a part of a diffusion model's folder")
SD_UNET = Kind(
    "Stable Diffusion UNet",
    "the UNet of a Stable Diffusion model",
    advice="give the model's folder: --weights sd21-base=FOLDER",
)
SD_SINGLE = Kind(
    "Stable Diffusion",
    "a Stable Diffusion checkpoint in one file",
    advice="bozzetto reads the diffusers layout, a folder: see `bozzetto models sd21-base`",
)
U2NETP = Kind(
    "u2netp", "background-removal weights (u2netp)", "matting", "u2netp", "they are used by every photo command"
)
GAUSSIANS = Kind(
    "3DGS training state",
    "a training state of 3D Gaussian splatting",
    advice="it is a scene and not a network; save it as a .ply there",
)


def recognise(shapes: Shapes, file: str = "") -> Kind | None:
    """The kind of checkpoint with these tensors, or None. ``file`` tells L4GM's two files apart, which have the same."""
    names = {k.removeprefix("module."): tuple(v) for k, v in shapes.items()}

    def has(*keys: str) -> bool:
        return all(k in names for k in keys)

    def any_begins(prefix: str) -> bool:
        return any(k.startswith(prefix) for k in names)

    if has("unet.conv_in.weight", "conv.weight") and names["conv.weight"][2:] == (1, 1):
        if any(".t_attns." in k for k in names):
            return L4GM_INTERP if "interp" in Path(file).name.lower() else L4GM
        return LGM if names["unet.conv_in.weight"][1] == 9 else LGM_MINI
    if any_begins("image_tokenizer.model.") and has("tokenizer.embeddings"):
        return TRIPOSR
    if has("camera_embed.0.weight", "time_embed.0.weight"):
        return IMAGEDREAM if any_begins("image_embed.") else MVDREAM
    if has("wrapped.pos_emb", "wrapped.output_proj.weight"):
        return SHAP_E_IMAGE if any_begins("wrapped.clip_embed.0.") else SHAP_E_TEXT
    if any_begins("renderer.nerstf.") and any_begins("encoder.params_proj."):
        return TRANSMITTER
    if any_begins("model.diffusion_model."):
        return MVDREAM_ORIGINAL if any_begins("model.diffusion_model.camera_embed.") else SD_SINGLE
    if has("conv_in.weight", "time_embedding.linear_1.weight") and any_begins("down_blocks."):
        return SD_UNET
    if has("encoder.conv_in.weight", "decoder.conv_in.weight"):
        return VAE
    if has("visual.conv1.weight", "token_embedding.weight"):
        return CLIP_ORIGINAL
    text, image = any_begins("text_model."), any_begins("vision_model.")
    if text or image:
        return CLIP if text and image else CLIP_TEXT if text else CLIP_IMAGE
    if has("outconv.weight", "side1.weight") and any_begins("stage1."):
        return U2NETP
    if any(set(trio) <= {k.rpartition(".")[2].lstrip("_") for k in names} for trio in _GAUSSIAN_NAMES):
        return GAUSSIANS
    return None


# Trainers call the same five parameters by different names.
_GAUSSIAN_NAMES = (("xyz", "features_dc", "opacity"), ("xyz", "f_dc", "opacity"), ("means", "scales", "quats"))


def identify(shapes: Shapes, source: str) -> Kind:
    """The kind of a checkpoint that a zoo entry's loader can read.

    Raises :class:`CheckpointError` for tensors of no known network, and for known ones that cannot be used alone.
    """
    kind = recognise(shapes, source)
    if kind is None:
        some = ", ".join(list(shapes)[:4])
        raise CheckpointError(
            f"{source} holds the tensors of no network that bozzetto knows ({len(shapes)} tensors: {some}, ...)"
        )
    if not kind.entry:
        raise CheckpointError(f"{source} is {kind.title}; {kind.advice}")
    return kind


def refuse_other_system(path: str | Path, tensors: Mapping[str, Tensor], wanted: str) -> None:
    """Raise what :func:`wrong_system_error` finds: to be called by a system's loader before it looks at the tensors."""
    error = wrong_system_error(path, tensors, wanted)
    if error is not None:
        raise error


def wrong_system_error(path: str | Path, tensors: Mapping[str, Tensor], wanted: str) -> CheckpointError | None:
    """The error for a checkpoint that is recognised as another system's than ``wanted``; None where it is not.

    Args:
        path: of the checkpoint, for the message.
        tensors: as :func:`bozzetto.zoo.loading.read_tensors` gives them.
        wanted: folder of ``systems/``, such as "lgm".
    """
    kind = recognise({k: tuple(v.shape) for k, v in tensors.items()}, str(path))
    if kind is None or kind.system == wanted:
        return None
    return CheckpointError(f"{path} is {kind.title}, not {_TITLES.get(wanted, wanted)}; {kind.advice}")


_TITLES = {
    "lgm": "LGM",
    "l4gm": "L4GM",
    "triposr": "TripoSR",
    "mvdream": "MVDream",
    "shap_e": "Shap-E",
    "gaussian_dreamer": "Stable Diffusion",
    "matting": "u2netp",
}


def refuse_other_weights(name: str, path: str | Path) -> None:
    """Raise :class:`CheckpointError` where a file or folder given for the zoo entry ``name`` is recognised as another's.

    Only names and shapes are read, so it is fast. What is not recognised is left to the loader.
    """
    path = Path(path)
    kind = _folder_kind(path) if path.is_dir() else recognise(read_shapes(path), str(path))
    if kind is not None and _ALIKE.get(kind.entry, kind.entry) != _ALIKE.get(name, name):
        wanted = next((k.name for k in _USABLE if k.entry == _ALIKE.get(name, name)), name)
        raise CheckpointError(f"{path} is {kind.title}, not {wanted}; {kind.advice}")


# Entries whose files have the same tensors as another's.
_ALIKE = {"shap-e-text-cap3d": "shap-e-text", "lgm-big-legacy": "lgm-big", "l4gm-interp": "l4gm-recon"}
_IMAGEDREAM_FOLDER = Kind("ImageDream", "a folder of ImageDream", "mvdream", "imagedream", "give it as imagedream")
_MVDREAM_FOLDER = Kind(
    "MVDream", "a folder of MVDream", "mvdream", "mvdream", "give it as mvdream (gaussian-dreamer: --prior mvdream)"
)
_SD_FOLDER = Kind(
    "Stable Diffusion", "a folder of Stable Diffusion", "gaussian_dreamer", "sd21-base", "give it as sd21-base"
)

_USABLE = (
    LGM,
    LGM_MINI,
    L4GM,
    TRIPOSR,
    IMAGEDREAM,
    MVDREAM,
    TRANSMITTER,
    SHAP_E_TEXT,
    SHAP_E_IMAGE,
    CLIP,
    _SD_FOLDER,
    U2NETP,
)


def _folder_kind(folder: Path) -> Kind | None:
    """Which diffusion model a folder in the diffusers layout holds, by its ``unet/config.json``; None for anything else."""
    try:
        config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, Mapping):
        return None
    if "model_channels" in config:
        return _IMAGEDREAM_FOLDER if config.get("ip_dim") else _MVDREAM_FOLDER
    return _SD_FOLDER


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's tensors, without reading their content where the format allows it.

    Raises :class:`CheckpointError` as :func:`bozzetto.zoo.loading.read_tensors` does.
    """
    import torch

    from .loading import read_tensors, unwrap
    from .quantized import without_scales

    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file() and path.stat().st_size:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                shapes = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a valid safetensors file ({error}); download it again") from error
        return without_scales(shapes)
    if path.is_file() and path.suffix != ".safetensors":
        try:
            state = torch.load(path, map_location="meta", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError):
            pass  # read_tensors says what is wrong
        else:
            if _is_3dgs_tuple(state):
                return {"_xyz": tuple(state[0][1].shape), "_features_dc": (), "_opacity": ()}
            state = unwrap(state)
            if isinstance(state, Mapping) and all(
                isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
            ):
                return {k: tuple(v.shape) for k, v in state.items()}
    return {k: tuple(v.shape) for k, v in read_tensors(path).items()}


def _is_3dgs_tuple(state: object) -> bool:
    """Whether it is ((degree, positions [N, 3], ...), iteration), as the 3DGS trainer saves."""
    if not (isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], tuple) and len(state[0]) > 4):
        return False
    shape = getattr(state[0][1], "shape", ())
    return len(shape) == 2 and shape[1] == 3


def system_of(path: str | Path) -> str | None:
    """Folder of ``systems/`` that loads the file, or None where its tensors are those of no known network."""
    kind = recognise(read_shapes(path), str(path))
    return None if kind is None else kind.system


def describe(path: str | Path) -> str:
    """What the file is, with its article ("a TripoSR checkpoint"), or "an unknown checkpoint"."""
    kind = recognise(read_shapes(path), str(path))
    return "an unknown checkpoint" if kind is None else kind.title
