"""CLIP and the VAE around the diffusion network, from transformers and diffusers, built from the ``config.json`` in a folder.

Weights load strictly through the package's own loader. The libraries rename their modules now and then while published files
keep the names of their day, so the names are brought up to date here (:func:`modern_keys`).
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, MissingDependencyError
from ...zoo.loading import load_state, read_tensors

# Names of the attention projections in VAE files written before diffusers 0.18, and since.
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@contextmanager
def _needs(package: str):
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"multi-view diffusion needs the package {package} ({error}); install it with: pip install 'bozzetto[diffusion]'"
        ) from error


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The JSON object in ``folder/name``; raises :class:`CheckpointError` when it is missing or not one."""
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; the folder must hold the published files at their published places")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); download it again") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return config


def find_weights(folder: Path) -> Path:
    """The weights file of one component's folder: safetensors before torch files, full precision before ``.fp16``."""
    stems = ("diffusion_pytorch_model", "model", "pytorch_model")
    names = [f"{stem}{variant}{end}" for end in (".safetensors", ".bin") for variant in ("", ".fp16") for stem in stems]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"no weights in {folder}; looked for {', '.join(names[:3])} and the like")


def modern_keys(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """``state`` under the names that ``module`` uses in the installed version of its library.

    Handles the ``text_model.`` / ``vision_model.`` prefix (dropped in transformers 5), the position-index buffers (no longer
    saved), and the attention names of old VAE files (whose projections may also be 1x1 convolutions).
    """
    own = module.state_dict()
    wrapped = next((p for p in ("text_model.", "vision_model.") if any(k.startswith(p) for k in own)), "")
    renamed = {}
    for key, tensor in state.items():
        if key.endswith(".position_ids"):
            continue
        key = wrapped + re.sub(r"^(text_model|vision_model)\.", "", key)
        if match := re.search(r"\.attentions\.\d+\.(query|key|value|proj_attn)\.", key):
            key = key.replace(f".{match[1]}.", f".{_OLD_VAE_ATTENTION[match[1]]}.")
        if key in own and tensor.dim() == 4 and own[key].dim() == 2:
            tensor = tensor.flatten(1)  # [out, in, 1, 1] -> [out, in]
        renamed[key] = tensor
    return renamed


def materialize(module: nn.Module, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    """A module made on the meta device, with memory on ``device``: parameters unset, position-index buffers set."""
    module = nn.Module.to(module, dtype).to_empty(device=device)  # past the libraries' own .to(), which warns
    saved = module.state_dict().keys()
    for name, buffer in module.named_buffers():
        if name in saved:
            continue
        if not name.endswith("position_ids"):
            raise CheckpointError(f"{type(module).__name__} has an unsaved buffer {name} that this package cannot set")
        buffer.copy_(torch.arange(buffer.shape[-1], device=device).expand_as(buffer))
    return module


def _load(module: nn.Module, folder: Path, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    path = find_weights(folder)
    module = materialize(module, device, dtype)
    load_state(module, modern_keys(read_tensors(path), module), str(path))
    return module.eval().requires_grad_(False)


def load_text_encoder(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """CLIP's text tower (``transformers.CLIPTextModel``) from ``config.json`` and weights in ``folder``."""
    config = read_config(folder)
    with _needs("transformers"):
        from transformers import CLIPTextConfig, CLIPTextModel
    with torch.device("meta"):
        module = CLIPTextModel(CLIPTextConfig.from_dict(config))
    return _load(module, folder, device, dtype)


def load_image_encoder(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """CLIP's image tower (``transformers.CLIPVisionModel``) from ``config.json`` and weights in ``folder``."""
    config = read_config(folder)
    with _needs("transformers"):
        from transformers import CLIPVisionConfig, CLIPVisionModel
    with torch.device("meta"):
        module = CLIPVisionModel(CLIPVisionConfig.from_dict(config))
    return _load(module, folder, device, dtype)


def load_vae(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
    """The image autoencoder (``diffusers.AutoencoderKL``) from ``config.json`` and weights in ``folder``."""
    config = read_config(folder)
    with _needs("diffusers"):
        from diffusers import AutoencoderKL
    with torch.device("meta"):
        module = AutoencoderKL.from_config(config)
    return _load(module, folder, device, dtype)


def load_tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer (``transformers.CLIPTokenizer``) from the vocabulary files in ``folder``; never asks the network."""
    if not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
        raise CheckpointError(f"{folder} must hold the tokenizer's vocab.json and merges.txt")
    with _needs("transformers"):
        from transformers import CLIPTokenizer
    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # a damaged vocabulary can break the reader anywhere
        raise CheckpointError(f"the tokenizer in {folder} is not readable ({error}); download it again") from error


def tokenize(tokenizer: Any, prompts: Sequence[str], length: int) -> Tensor:
    """Token ids [B, length], padded and, with a warning that names what is cut, truncated. The empty prompt is fine."""
    ids = tokenizer(list(prompts), padding=False, truncation=False, verbose=False)["input_ids"]
    for text, row in zip(prompts, ids):
        if len(row) > length:
            cut = tokenizer.decode(row[length - 1 : -1]).strip()
            shown = cut if len(cut) <= 200 else cut[:200] + " ..."
            where = text if len(text) <= 60 else text[:60] + " ..."
            warnings.warn(
                f"the prompt {where!r} has {len(row)} tokens, the text encoder reads {length}; ignored: {shown!r}",
                stacklevel=3,
            )
    padded = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt", verbose=False
    )
    return padded["input_ids"]
