"""CLIP ViT-L/14 as Shap-E uses it, on top of the transformers package: one pooled vector per prompt, patch features per picture.

Source: Radford et al. 2021 (arXiv 2103.00020). The folder holds the published files of ``openai/clip-vit-large-patch14``.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CheckpointError, InputError
from ...zoo.libraries import load_component, load_tokenizer, read_config, token_ids

CONTEXT = 77  # tokens of a prompt, with start and end
PADDING = 0  # OpenAI pads with id 0; transformers would repeat the end token
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def clean_prompt(prompt: str) -> str:
    """The prompt without HTML entities and outer blanks (what the tokenizer does to the rest is its own matter).

    Raises :class:`InputError` when nothing is left.
    """
    text = html.unescape(html.unescape(prompt)).strip()
    if not text:
        raise InputError("the prompt is empty; describe the object in a few words")
    return text


def pad_tokens(rows: Sequence[Sequence[int]], context: int = CONTEXT) -> Tensor:
    """Token ids [B, context]: rows end with their end token; longer ones are cut and keep it; shorter ones get id 0."""
    out = torch.full((len(rows), context), PADDING, dtype=torch.long)
    for i, row in enumerate(rows):
        kept = list(row) if len(row) <= context else [*row[: context - 1], row[-1]]
        out[i, : len(kept)] = torch.tensor(kept)
    return out


class ClipText:
    """CLIP's text tower with its tokenizer."""

    def __init__(self, tower: nn.Module, tokenizer: Any) -> None:
        """``tower``: a ``transformers.CLIPTextModelWithProjection``; ``tokenizer``: a ``CLIPTokenizer`` or None."""
        self.tower, self.tokenizer = tower, tokenizer

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Ids [B, 77]. A prompt that does not fit is cut, with a warning that says what is not read."""
        context = self.tower.config.max_position_embeddings
        rows = []
        for prompt in map(clean_prompt, prompts):
            rows.append(token_ids(self.tokenizer, prompt, context))
        return pad_tokens(rows, context)

    @torch.no_grad()
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embeddings [B, E], L2-normalised, float32: the features at the end token, which has the largest id of all."""
        ids = ids.to(next(self.tower.parameters()).device)
        states = self.tower.text_model(input_ids=ids).last_hidden_state  # [B, L, C], after the last LayerNorm
        pooled = states[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]
        return F.normalize(self.tower.text_projection(pooled).float(), dim=-1)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings [B, E] of prompts; raises :class:`InputError` for an empty one."""
        return self.embed_tokens(self.tokenize(prompts))


class ClipGrid:
    """CLIP's image tower, used for its patch features."""

    def __init__(self, tower: nn.Module) -> None:
        """``tower``: a ``transformers.CLIPVisionModel``."""
        self.tower = tower

    def preprocess(self, pictures: Sequence[Tensor]) -> Tensor:
        """[B, 3, S, S] from pictures [H, W, 3] in 0..1 of any sizes: bicubic resize of the short side, crop, normalise."""
        import numpy as np
        from PIL import Image

        side = self.tower.config.image_size
        out = []
        for picture in pictures:
            if picture.ndim != 3 or picture.shape[-1] != 3:
                raise ValueError(f"expected a picture [H, W, 3], got {tuple(picture.shape)}")
            image = Image.fromarray((picture.detach().cpu().clamp(0, 1) * 255).round().byte().numpy())
            scale = side / min(image.size)
            width, height = (max(side, int(n * scale)) for n in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            left, top = round((width - side) / 2), round((height - side) / 2)
            image = image.crop((left, top, left + side, top + side))
            out.append(torch.from_numpy(np.asarray(image, dtype=np.float32) / 255))
        return ((torch.stack(out) - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)

    @torch.no_grad()
    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Features [B, C, L] (float32) of the L patches, row by row, after the last block; no LayerNorm, no projection."""
        pixels = pixels.to(next(self.tower.parameters()).device)
        return self.tower(pixel_values=pixels).last_hidden_state[:, 1:].transpose(1, 2).float()

    def __call__(self, pictures: Sequence[Tensor]) -> Tensor:
        """Features [B, C, L] of pictures [H, W, 3] in 0..1 (opaque)."""
        return self.embed_pixels(self.preprocess(pictures))


def _config(folder: Path, part: str) -> dict[str, Any]:
    """The ``part`` ("text_config", "vision_config") of ``config.json``."""
    try:
        whole = read_config(folder)
        return {**whole[part], "projection_dim": whole["projection_dim"]}
    except (CheckpointError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} holds no CLIP (config.json: {error}); it must hold the files of openai/clip-vit-large-patch14"
        ) from error


def load_clip_text(folder: str | Path, device: str | torch.device = "cpu") -> ClipText:
    """The text half of a CLIP folder, float32; raises CheckpointError, MissingDependencyError."""
    folder = Path(folder)
    config, only = _config(folder, "text_config"), ("text_model.", "text_projection.")
    tower = load_component("transformers.CLIPTextModelWithProjection", folder, device, config=config, only=only)
    return ClipText(tower, load_tokenizer(folder))


def load_clip_grid(folder: str | Path, device: str | torch.device = "cpu") -> ClipGrid:
    """The image half of a CLIP folder, float32; raises CheckpointError, MissingDependencyError."""
    folder = Path(folder)
    config, only = _config(folder, "vision_config"), ("vision_model.",)
    return ClipGrid(load_component("transformers.CLIPVisionModel", folder, device, config=config, only=only))
