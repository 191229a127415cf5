"""Published and own checkpoint files -> LGM networks. The published keys equal our module names."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile
from pathlib import Path
from typing import NamedTuple

import torch

from ...errors import CheckpointError
from ...nn.layout import for_inference
from ...zoo.identify import refuse_other_system
from ...zoo.loading import place_state, read_tensors
from ...zoo.saving import save_weights
from .cascade import cascade_depths
from .network import LGM, LGMConfig
from .presets import PRESETS, preset
from .reconstruct import published_dtype

# Saved by the authors' training script beside the model, and not part of it.
IGNORED_PREFIXES = ("lpips_loss.",)
# The published file from before the rotation activation was mended. Nothing in its tensors tells it from the file that
# replaced it (``model_fp16_fixrot.safetensors``); its name does.
LEGACY_FILE = "model_fp16.safetensors"


class Structure(NamedTuple):
    """What the shapes of a network's tensors say of it, without building it. The U-Net's fields are empty for tokens."""

    given: int  # channels of the trunk's first layer
    made: int  # channels of its last
    tokens: tuple[int, int] | None = None  # width and number of blocks of a transformer
    down_channels: tuple[int, ...] = ()
    down_attention: tuple[bool, ...] = ()
    mid_attention: bool = False
    up_channels: tuple[int, ...] = ()
    up_attention: tuple[bool, ...] = ()
    layers_per_block: int = 0
    detail: int = 0
    cascade: int = 0

    @classmethod
    def of(cls, config: LGMConfig) -> Structure:
        """That of the network of ``config``."""
        ends = config.in_channels * config.patch**2, config.out_channels * config.unpatch**2
        if config.trunk == "tokens":
            return cls(*ends, (config.token_width, config.token_layers), detail=config.detail, cascade=config.cascade)
        return cls(*ends, **{name: getattr(config, name) for name in cls._fields[3:]})

    @classmethod
    def read(cls, shapes: Mapping[str, tuple[int, ...]]) -> Structure | None:
        """That of tensors of these names and shapes; None where they have not the two ends of a trunk."""
        first, last = shapes.get("unet.conv_in.weight", ()), shapes.get("unet.conv_out.weight", ())
        if len(first) != 4 or len(last) != 4:
            return None

        def run(name: str) -> list[str]:
            return list(takewhile(shapes.__contains__, (name.format(i) for i in count())))

        def widths(kind: str) -> tuple[int, ...]:
            return tuple(int(shapes[key][0]) for key in run(f"unet.{kind}.{{}}.nets.0.conv1.weight"))

        def attention(kind: str, levels: int) -> tuple[bool, ...]:
            return tuple(f"unet.{kind}.{level}.attns.0.norm.weight" in shapes for level in range(levels))

        blocks, down, up = run("unet.blocks.{}.qkv.weight"), widths("down_blocks"), widths("up_blocks")
        return cls(
            given=int(first[1]),
            made=int(last[0]),
            tokens=(int(first[0]), len(blocks)) if blocks else None,
            down_channels=down,
            down_attention=attention("down_blocks", len(down)),
            mid_attention="unet.mid_block.attns.0.norm.weight" in shapes,
            up_channels=up,
            up_attention=attention("up_blocks", len(up)),
            layers_per_block=len(run("unet.down_blocks.0.nets.{}.conv1.weight")),
            detail=int(shapes.get("detail.conv_in.weight", (0,))[0]),
            cascade=cascade_depths(shapes.get("detail.near.weight", (0, 0))[1]),
        )


def guess_preset(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The preset whose network has tensors like these; raises :class:`CheckpointError` when none fits."""
    structure = Structure.read(shapes)
    for name, config in PRESETS.items():
        if Structure.of(config) == structure:
            return name
    raise CheckpointError(
        f"these {len(shapes)} tensors fit none of the LGM presets ({', '.join(PRESETS)}); "
        "name the preset to see which tensors differ"
    )


def config_from_shapes(shapes: Mapping[str, tuple[int, ...]], source: str) -> LGMConfig:
    """The configuration of an LGM U-Net (LGM's own or L4GM's) whose tensors have these shapes.

    What is in no shape is taken from the published networks: 256 pixels in, 16 attention heads, renders of 512 pixels for
    training where a view has 128 x 128 Gaussians, else 256.

    Raises:
        CheckpointError: these are not the tensors of such a network.
    """
    read = Structure.read(shapes)
    down, up = (read.down_channels, read.up_channels) if read else ((), ())
    if not down or not up or len(up) > len(down) or up[0] != down[-1]:
        raise CheckpointError(f"{source} is not an LGM or L4GM checkpoint: it has not the blocks of their U-Net")
    splat_size = LGMConfig.input_size >> (len(down) - len(up))
    return LGMConfig(
        in_channels=read.given,
        out_channels=read.made,
        down_channels=down,
        down_attention=read.down_attention,
        mid_attention=read.mid_attention,
        up_channels=up,
        up_attention=read.up_attention,
        layers_per_block=read.layers_per_block,
        splat_size=splat_size,
        output_size=512 if splat_size >= 128 else 256,
    )


def load_lgm(
    path: str | Path,
    preset_name: str | None = None,
    rotation: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> LGM:
    """Read a ``.safetensors`` or torch checkpoint into an LGM network in evaluation mode.

    Args:
        preset_name: which preset's network to build; None recognises it by the tensors, or else reads an LGM of any size
            off their shapes (:func:`config_from_shapes`).
        rotation: "fixed" or "legacy" (published files from before April 2024); None is "legacy" for a file that is called as the
            published one was (``LEGACY_FILE``), else the preset's.
        device: where the network is to be; the file is read straight to it.
        dtype: of the weights; None is the arithmetic with which :func:`.reconstruct.reconstruct` runs LGM's network, and
            float32 for lgm-mini's, which it casts itself.

    Raises:
        CheckpointError: unreadable file, or missing, unexpected or misshapen tensors (listed).
    """
    device = torch.device(device)
    tensors = read_tensors(path, device, dtype)
    refuse_other_system(path, tensors, "lgm")
    shapes = {k: tuple(v.shape) for k, v in tensors.items()}
    if any(".t_attns." in key for key in shapes):
        raise CheckpointError(f"{path} is a checkpoint of L4GM (it attends over time), not of LGM; use it with l4gm")
    if preset_name is not None:
        config = preset(preset_name)
    else:
        try:
            config = preset(guess_preset(shapes))
        except CheckpointError:
            config = config_from_shapes(shapes, str(path))
    if rotation is None and Path(path).name == LEGACY_FILE and config.head == "lgm":
        rotation = "legacy"
    if rotation is not None:
        if rotation not in ("fixed", "legacy"):
            raise ValueError(f"rotation must be 'fixed' or 'legacy', got {rotation!r}")
        config = LGMConfig(**{**config.__dict__, "rotation": rotation})
    with torch.device("meta"):
        model = LGM(config)
    if dtype is None:
        dtype = published_dtype(device) if config.head == "lgm" else torch.float32
    model = place_state(model, tensors, str(path), IGNORED_PREFIXES, device=device, dtype=dtype)
    return for_inference(model) if device.type == "cuda" else model


def save_lgm(
    model: LGM, path: str | Path, metadata: dict[str, object] | None = None, dtype: torch.dtype = torch.float16
) -> None:
    """Write the weights as ``.safetensors``, atomically: in fp16, as published ones are, or with ``torch.int8`` in half of that.

    Takes and raises what :func:`bozzetto.zoo.saving.save_weights` does.
    """
    save_weights(model.state_dict(), path, metadata, dtype)
