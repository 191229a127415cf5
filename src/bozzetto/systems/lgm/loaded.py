"""LGM kept in memory: for many photos or prompts one after another, without a wait for weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...gaussians import Gaussians
from ..mvdream.checkpoint import load_mvdream
from ..mvdream.diffusion import MultiViewDiffusion
from .checkpoint import load_lgm
from .imagine import VIEW_SIZE, in_lgms_order, square_photo
from .network import LGM
from .options import PhotoOptions
from .pipeline import _opaque, reconstruct_views, share_missed


class LoadedLGM:
    """A diffusion model and LGM on one device; call it with a cut-out photo, or with a prompt where the model is MVDream.

    Attributes:
        diffusion: ImageDream for photos, MVDream for prompts. network: LGM.
    """

    def __init__(self, diffusion: MultiViewDiffusion, network: LGM) -> None:
        if network.config.head != "lgm":
            raise CheckpointError("lgm-mini makes no use of four imagined views; give LGM's own weights")
        self.diffusion, self.network = diffusion, network

    @classmethod
    def load(cls, diffusion: str | Path, lgm: str | Path, device: torch.device | str = "cuda") -> LoadedLGM:
        """From the folder of ImageDream or MVDream and LGM's weights file.

        Raises :class:`CheckpointError` for files that are not these.
        """
        return cls(load_mvdream(diffusion, device), load_lgm(lgm, device=device))

    def __call__(
        self, photo: Tensor | None = None, prompt: str = "", options: PhotoOptions | None = None, seed: int = 0
    ) -> Gaussians:
        """One object, as ``bozzetto image --model lgm`` makes it of such a photo.

        Args:
            photo: [H, W, 4] in 0..1, straight alpha (ImageDream only).
            prompt: what is seen, may be empty; used instead of ``options.prompt`` where it is not.
            options: None takes the defaults. seed: of everything random.

        Returns:
            Gaussians on the device, y up, front (the photo's side) facing +z.

        Raises:
            InputError: a photo where none is taken, or none where it is needed. ForegroundError: the photo shows nothing.
        """
        o = options or PhotoOptions()
        views = self.diffusion.generate(
            [prompt or o.prompt],
            None if photo is None else square_photo(photo)[None],
            negative=o.negative_prompt,
            steps=o.steps,
            guidance=o.guidance,
            elevation=o.elevation,
            solver=o.solver,
            candidates=o.candidates,
            size=VIEW_SIZE,
            seed=seed,
        )[0]
        candidates = _opaque(in_lgms_order(views))
        results = [reconstruct_views(self.network, four, o.elevation) for four in candidates]
        if len(results) == 1:
            return results[0].prune()
        missed = [share_missed(g, self.network, four, o.elevation) for g, four in zip(results, candidates)]
        return results[missed.index(min(missed))].prune()
