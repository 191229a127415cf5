"""Components of transformers (CLIP and its tokenizer) from published folders: ``config.json`` and weights.

A component is built without memory, and its weights load strictly through the package's own loader. The libraries rename
their modules now and then while published files keep the names of their day, so the names are brought up to date here
(:func:`modern_keys`). The libraries are imported when a component is loaded, and not before.
"""

from __future__ import annotations

import importlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, MissingDependencyError
from .loading import place_state, read_tensors

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")  # of a diffusion model in the diffusers layout
SHOWN = 200  # characters of what a message says was cut
# Names of the attention projections in VAE files written before diffusers 0.18, and since.
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def library(package: str) -> Any:
    """The package "transformers"; raises :class:`MissingDependencyError` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"this model needs the package {package} ({error}); install it with: pip install 'bozzetto[diffusion]'"
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


def check_parts(folder: Path, parts: Sequence[str], model: str) -> None:
    """Raise :class:`CheckpointError` where ``folder`` is not the folder of a diffusion model with these sub-folders.

    ``model``: what should be in it, for the message.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; {model} is read from a folder (unet/, vae/, ...)")
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(m + '/' for m in missing)}; this is no {model} folder (diffusers layout)"
        )


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
        if key not in own:
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
    return set_positions(module, device)


def set_positions(module: nn.Module, device: torch.device | str) -> nn.Module:
    """Put the buffers that no file holds, the numbers of places, on ``device``; returns the module."""
    saved = module.state_dict().keys()
    for name, buffer in list(module.named_buffers()):
        if name in saved:
            continue
        if not name.endswith("position_ids"):
            raise CheckpointError(f"{type(module).__name__} has an unsaved buffer {name} that this package cannot set")
        place, _, last = name.rpartition(".")
        positions = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape).clone()
        module.get_submodule(place).register_buffer(last, positions, persistent=False)
    return module


def load_component(
    name: str,
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    config: Mapping[str, Any] | None = None,
    only: tuple[str, ...] = ("",),
) -> nn.Module:
    """A network of transformers with the weights in ``folder``, frozen, in evaluation mode.

    Args:
        name: "package.Class", such as "transformers.CLIPTextModel".
        config: None reads ``config.json``.
        only: beginnings of the names of the tensors to take, where a file holds more than this network.

    Raises:
        CheckpointError: a missing file, or weights that do not fit. MissingDependencyError: the library is not installed.
    """
    config = read_config(folder) if config is None else config
    package, kind = name.split(".")
    home = library(package)
    with torch.device("meta"):
        network_class = getattr(home, kind)
        module = network_class(network_class.config_class.from_dict(config))
    path = find_weights(folder)
    set_positions(module, device)
    state = {key: tensor for key, tensor in read_tensors(path, device).items() if key.startswith(only)}
    return place_state(module, modern_keys(state, module), str(path), device=device, dtype=dtype)


def load_tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer (``transformers.CLIPTokenizer``) from the vocabulary files in ``folder``; never asks the network."""
    if not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
        raise CheckpointError(f"{folder} must hold the tokenizer's vocab.json and merges.txt")
    transformers = library("transformers")
    try:
        return transformers.CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # a damaged vocabulary can break the reader anywhere
        raise CheckpointError(f"the tokenizer in {folder} is not readable ({error}); download it again") from error


def tokenize(tokenizer: Any, prompts: Sequence[str], length: int) -> Tensor:
    """Token ids [B, length], padded and, with a warning that names what is cut, truncated. The empty prompt is fine."""
    for prompt in prompts:
        token_ids(tokenizer, prompt, length)
    padded = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt", verbose=False
    )
    return padded["input_ids"]


def token_ids(tokenizer: Any, prompt: str, length: int) -> list[int]:
    """All ids of a prompt, start and end included; if they are more than ``length``, a warning says what will not be read."""
    ids = tokenizer(prompt, padding=False, truncation=False, verbose=False)["input_ids"]
    if len(ids) > length:
        cut = tokenizer.decode(ids[length - 1 : -1]).strip()
        shown = cut if len(cut) <= SHOWN else cut[:SHOWN] + " ..."
        where = prompt if len(prompt) <= 60 else prompt[:60] + " ..."
        warnings.warn(
            f"the prompt {where!r} has {len(ids)} tokens, the text encoder reads {length}; ignored: {shown!r}",
            stacklevel=3,
        )
    return ids
