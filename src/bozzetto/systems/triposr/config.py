"""TripoSR's shape: the published ``config.yaml`` read into dataclasses. No torch.

The file names its classes by dotted Python paths. They are compared with the names that are known here and never imported.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import CheckpointError

CLASSES = {
    "image_tokenizer": "tsr.models.tokenizers.image.DINOSingleImageTokenizer",
    "tokenizer": "tsr.models.tokenizers.triplane.Triplane1DTokenizer",
    "backbone": "tsr.models.transformer.transformer_1d.Transformer1D",
    "post_processor": "tsr.models.network_utils.TriplaneUpsampleNetwork",
    "decoder": "tsr.models.network_utils.NeRFMLP",
    "renderer": "tsr.models.nerf_renderer.TriplaneNeRFRenderer",
}


@dataclass(frozen=True)
class ViTConfig:
    """A vision transformer; the defaults are ViT-B/16, which the published weights have. Names as in its config.json."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    layer_norm_eps: float = 1e-12
    image_size: int = 224  # pixels for which the position embeddings were made
    patch_size: int = 16


@dataclass(frozen=True)
class TokenizerConfig:
    """The learned triplane tokens: three planes of plane_size² tokens."""

    plane_size: int = 32
    num_channels: int = 1024


@dataclass(frozen=True)
class BackboneConfig:
    """The transformer from triplane tokens and image tokens to triplane tokens."""

    in_channels: int = 1024
    num_attention_heads: int = 16
    attention_head_dim: int = 64
    num_layers: int = 16
    cross_attention_dim: int = 768
    norm_num_groups: int = 32


@dataclass(frozen=True)
class PostProcessorConfig:
    """The transposed convolution that doubles the planes' resolution."""

    in_channels: int = 1024
    out_channels: int = 40


@dataclass(frozen=True)
class DecoderConfig:
    """The MLP from triplane features to density and colour. ``n_hidden_layers`` counts the layers before the last."""

    in_channels: int = 120
    n_neurons: int = 64
    n_hidden_layers: int = 9
    activation: str = "silu"


@dataclass(frozen=True)
class RendererConfig:
    """How the planes are read and rendered. The field fills the cube [-radius, radius]³."""

    radius: float = 0.87
    feature_reduction: str = "concat"  # or "mean": over the three planes
    density_activation: str = "exp"  # "trunc_exp" has the same values
    density_bias: float = -1.0
    num_samples_per_ray: int = 128


@dataclass(frozen=True)
class TripoSRConfig:
    """The whole system; the defaults are the published ones."""

    cond_image_size: int = 512
    vit: ViTConfig = field(default_factory=ViTConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    post_processor: PostProcessorConfig = field(default_factory=PostProcessorConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    renderer: RendererConfig = field(default_factory=RendererConfig)

    def __post_init__(self) -> None:
        planes = 3 if self.renderer.feature_reduction == "concat" else 1
        heads = self.backbone.num_attention_heads * self.backbone.attention_head_dim
        pairs = (
            ("backbone.in_channels", self.backbone.in_channels, "tokenizer.num_channels", self.tokenizer.num_channels),
            ("backbone.in_channels", self.backbone.in_channels, "heads times head size", heads),
            ("post_processor.in_channels", self.post_processor.in_channels, "backbone's", self.backbone.in_channels),
            ("decoder.in_channels", self.decoder.in_channels, "planes read", planes * self.post_processor.out_channels),
            ("backbone.cross_attention_dim", self.backbone.cross_attention_dim, "ViT's", self.vit.hidden_size),
        )
        for name, value, other, expected in pairs:
            if value != expected:
                raise CheckpointError(
                    f"TripoSR's configuration contradicts itself: {name} is {value}, {other} {expected}"
                )
        if self.vit.hidden_size % self.vit.num_attention_heads:
            raise CheckpointError(
                f"the ViT's width {self.vit.hidden_size} cannot be split into {self.vit.num_attention_heads} heads"
            )
        if self.cond_image_size % self.vit.patch_size:
            raise CheckpointError(
                f"cond_image_size {self.cond_image_size} must be a multiple of the ViT's patches of {self.vit.patch_size}"
            )
        choices = (
            ("renderer.feature_reduction", self.renderer.feature_reduction, ("concat", "mean")),
            ("renderer.density_activation", self.renderer.density_activation, ("exp", "trunc_exp")),
            ("decoder.activation", self.decoder.activation, ("silu", "relu")),
        )
        for name, value, known in choices:
            if value not in known:
                raise CheckpointError(f"{name} {value!r} is not known; known: {', '.join(known)}")


def read_config(path: Path) -> TripoSRConfig:
    """Read ``config.yaml``.

    The ViT is ViT-B/16, unless ``pretrained_model_name_or_path`` of the image tokenizer names a folder beside the file that
    holds a ``config.json`` of the same kind.

    Raises:
        CheckpointError: missing or malformed file, an unknown class, a missing or contradictory value.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read TripoSR's configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict) or not any(f"{part}_cls" in values for part in CLASSES):
        raise CheckpointError(f"{path} is not TripoSR's configuration (it names none of TripoSR's parts)")
    values = _resolve(values, values)
    for part, known in CLASSES.items():
        given = values.get(f"{part}_cls")
        if given != known:
            raise CheckpointError(f"{path}: {part}_cls is {given!r}; only {known!r} is supported")
    parts = {
        f.name: _build(f.default_factory, values.get(f.name), f"{path}: {f.name}")
        for f in dataclasses.fields(TripoSRConfig)
        if f.name in CLASSES
    }
    size = values.get("cond_image_size", 512)
    if not isinstance(size, int):
        raise CheckpointError(f"{path}: cond_image_size must be a whole number, got {size!r}")
    return TripoSRConfig(cond_image_size=size, vit=_read_vit(path, values.get("image_tokenizer") or {}), **parts)


def _resolve(value: Any, root: dict[str, Any], depth: int = 0) -> Any:
    """Replace ``${a.b}`` by the value at that place of ``root``."""
    if isinstance(value, dict):
        return {k: _resolve(v, root, depth) for k, v in value.items()}
    if not (isinstance(value, str) and (match := re.fullmatch(r"\$\{([\w.]+)\}", value))):
        return value
    found: Any = root
    for name in match[1].split("."):
        if not isinstance(found, dict) or name not in found:
            raise CheckpointError(f"the configuration refers to {value}, which it does not hold")
        found = found[name]
    if depth > 8:
        raise CheckpointError(f"the configuration refers to {value} in a circle")
    return _resolve(found, root, depth + 1)


def _build(kind: type, values: Any, where: str) -> Any:
    """A dataclass from a mapping; numbers are checked, names that the class does not have are an error."""
    if not isinstance(values, dict):
        raise CheckpointError(f"{where} is missing")
    known = {f.name: f for f in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise CheckpointError(f"{where}: {name} is not known; known: {', '.join(known)}")
        wanted = type(known[name].default)
        fits = isinstance(value, (int, float) if wanted is float else wanted) and not isinstance(value, bool)
        if not fits or (wanted is int and value < 1):
            raise CheckpointError(f"{where}: {name} must be a {wanted.__name__} of the right size, got {value!r}")
    return kind(**values)


def _read_vit(path: Path, values: dict[str, Any]) -> ViTConfig:
    """ViT-B/16, or the ``config.json`` in the folder beside ``path`` that the configuration names."""
    name = str(values.get("pretrained_model_name_or_path", ""))
    file = path.parent / name / "config.json"
    if name and ".." not in name and file.is_file():
        try:
            own = json.loads(file.read_text(encoding="utf-8"))
            wanted = {f.name for f in dataclasses.fields(ViTConfig)}
            return _build(ViTConfig, {k: v for k, v in own.items() if k in wanted}, str(file))
        except (ValueError, AttributeError) as error:
            raise CheckpointError(f"{file} is not a ViT's configuration: {error}") from error
    if not name.endswith("dino-vitb16"):
        raise CheckpointError(f"{path}: the image tokenizer {name!r} is not known; put its config.json at {file}")
    return ViTConfig()
