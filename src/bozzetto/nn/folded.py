"""Weights that inference prepares from a module's own, and that are stale as soon as these change."""

from __future__ import annotations

from typing import ClassVar

from torch import nn


class Folded(nn.Module):
    """For modules with a ``fold_weights``, which ``for_inference`` calls: training and loading weights forget what it made.

    Attributes:
        folded: names of the buffers that it fills; they are None until then, and never saved.
    """

    folded: ClassVar[tuple[str, ...]] = ()

    def forget(self) -> None:
        """Back to the module's own weights; a constructor calls it to make the buffers."""
        for name in self.folded:
            self.register_buffer(name, None, persistent=False)

    def train(self, mode: bool = True) -> Folded:
        if mode:
            self.forget()
        return super().train(mode)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        self.forget()
        super()._load_from_state_dict(*args, **kwargs)
