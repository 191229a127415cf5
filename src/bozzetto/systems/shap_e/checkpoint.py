"""Published Shap-E files -> networks. OpenAI's ``transmitter.pt``, ``vector_decoder.pt``, ``text_cond.pt``, ``image_cond.pt``
and Cap3D's fine-tuned text model. All are flat float32 state dicts; sizes are read off the tensors, the number of heads
(which no tensor shows) from the ``*_config.yaml`` beside the file where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from ...zoo.identify import refuse_other_system
from ...zoo.loading import place_state, read_tensors
from .network import IMAGE300M, TEXT300M, DiffusionConfig, LatentDiffusion
from .transmitter import Transmitter, TransmitterConfig

# The encoder (point clouds and views -> latents) lies in transmitter.pt too; nothing here needs it.
ENCODER_PREFIXES = (
    "encoder.output_tokens",
    "encoder.encoder.",
    "encoder.processor.",
    "encoder.ln_pre.",
    "encoder.ln_post.",
    "encoder.input_proj.",
    "encoder.output_proj.",
    "encoder.point_conv.",
    "encoder.mv_pcl_embed.",
    "encoder.patch_emb.",
)
PLACEHOLDER = re.compile(r"renderer\.nerstf\.mlp\.(\d+)\.weight")  # stored, but replaced by the latent's weights
HEAD_WIDTH = 64  # where no configuration tells the heads of a network of another size
DIFFUSION_MARK = "wrapped.backbone.resblocks.0.attn.c_qkv.weight"


def _built(
    module_class: type[nn.Module], config: object, state: Mapping[str, Tensor], source: str, device: str | torch.device
):
    with torch.device("meta"):
        module = module_class(config)
    return place_state(module, state, source, device=device)


def diffusion_config(shapes: Mapping[str, tuple[int, ...]], heads: int | None = None) -> DiffusionConfig:
    """The configuration that has these tensors (names and shapes as published).

    Args:
        heads: attention heads; None takes the released models' (16 for text, 8 for images) at their size, else one head
            per 64 channels.

    Raises:
        CheckpointError: these are no tensors of a Shap-E diffusion model.
    """
    try:
        width = shapes[DIFFUSION_MARK][1]
        text = "wrapped.clip_embed.weight" in shapes
        embedding = shapes["wrapped.clip_embed.weight" if text else "wrapped.clip_embed.1.weight"][1]
        channels, context = shapes["wrapped.input_proj.weight"][1], shapes["wrapped.pos_emb"][0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"these tensors are not a Shap-E diffusion model: {error} is missing") from error
    numbers = {int(m[1]) for k in shapes if (m := re.match(r"wrapped\.backbone\.resblocks\.(\d+)\.", k))}
    released = TEXT300M if text else IMAGE300M
    config = DiffusionConfig(
        condition="text" if text else "image",
        context=context,
        channels=channels,
        width=width,
        layers=max(numbers) + 1,
        heads=released.heads if width == released.width else max(width // HEAD_WIDTH, 1),
        embedding=embedding,
    )
    return config if heads is None else replace(config, heads=heads)


def heads_beside(path: Path) -> int | None:
    """Attention heads from ``<name>_config.yaml`` beside ``<name>.pt`` (OpenAI's naming), or None where there is none.

    Raises :class:`CheckpointError` if the file is there and is not such a configuration.
    """
    file = path.with_name(f"{path.stem}_config.yaml")
    if not file.is_file():
        return None
    import yaml

    try:
        return int(yaml.safe_load(file.read_text())["inner"]["heads"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{file} is not a configuration of a Shap-E diffusion model ({error}); delete it"
        ) from error


def load_diffusion(
    path: str | Path, device: str | torch.device = "cpu", condition: str | None = None
) -> LatentDiffusion:
    """A text or image model in evaluation mode, float32.

    Args:
        path: ``text_cond.pt``, ``image_cond.pt`` or Cap3D's ``shapE_finetuned_with_330kdata.pth``.
        condition: "text" or "image" to insist on one of them.

    Raises:
        CheckpointError: unreadable, something else, or missing, unexpected or misshapen tensors (listed).
    """
    path = Path(path)
    state = read_tensors(path)
    refuse_other_system(path, state, "shap_e")
    if DIFFUSION_MARK not in state:
        raise CheckpointError(
            f"{path} is not a Shap-E diffusion model ({what_is(state)}); give text_cond.pt or image_cond.pt"
        )
    config = diffusion_config({k: tuple(v.shape) for k, v in state.items()}, heads_beside(path))
    if condition is not None and config.condition != condition:
        raise CheckpointError(f"{path} is Shap-E's {config.condition} model; the {condition} model is needed here")
    return _built(LatentDiffusion, config, state, str(path), device)


def transmitter_config(shapes: Mapping[str, tuple[int, ...]]) -> TransmitterConfig:
    """The decoder's configuration from the shapes of its tensors (keys as in ``vector_decoder.pt``)."""
    try:
        hidden, width = (
            shapes["renderer.nerstf.mlp.0.bias"][0],
            shapes["params_proj.projections.nerstf__mlp__0__weight.proj.weight"][1],
        )
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"these tensors are not Shap-E's transmitter: {error} is missing") from error
    layers = {int(m[1]) for k in shapes if (m := re.match(r"renderer\.nerstf\.mlp\.(\d+)\.bias", k))}
    projected = sum(1 for k in shapes if k.startswith("params_proj.") and k.endswith("proj.bias"))
    return TransmitterConfig(width=width, hidden=hidden, projected=projected, layers=max(layers))


def split_transmitter(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The decoder's tensors under their keys in ``vector_decoder.pt``, and the keys that are known and not used."""
    used, unused = {}, []
    projected = sum(1 for k in state if ".projections.nerstf__mlp__" in k and k.endswith("proj.bias"))
    for key, tensor in state.items():
        placeholder = PLACEHOLDER.fullmatch(key)
        if key.startswith(ENCODER_PREFIXES) or (placeholder and int(placeholder[1]) < projected):
            unused.append(key)
        else:
            used[key.removeprefix("encoder.")] = tensor
    return used, unused


def load_transmitter(path: str | Path, device: str | torch.device = "cpu") -> Transmitter:
    """The decoder from ``transmitter.pt`` or ``vector_decoder.pt``, in evaluation mode, float32.

    Raises:
        CheckpointError: unreadable, something else, or missing, unexpected or misshapen tensors (listed).
    """
    state = read_tensors(path)
    refuse_other_system(path, state, "shap_e")
    used, _ = split_transmitter(state)
    if "renderer.nerstf.mlp.0.bias" not in used:
        raise CheckpointError(
            f"{path} is not Shap-E's transmitter ({what_is(state)}); give transmitter.pt or vector_decoder.pt"
        )
    config = transmitter_config({k: tuple(v.shape) for k, v in used.items()})
    return _built(Transmitter, config, used, str(path), device)


def what_is(state: Mapping[str, Tensor]) -> str:
    """What a checkpoint holds, as far as it is one of Shap-E's; for messages."""
    if DIFFUSION_MARK in state:
        return "it is Shap-E's " + ("text" if "wrapped.clip_embed.weight" in state else "image") + " model"
    if any(k.startswith(("renderer.nerstf.", "encoder.params_proj.")) for k in state):
        return "it is Shap-E's transmitter"
    return f"its tensors are called {', '.join(sorted(state)[:3])}, ..."
