"""What several files of the command's tests share."""

from __future__ import annotations

import pytest


@pytest.fixture
def no_weights(monkeypatch):
    """Nothing to find and nobody to ask; whoever looks for weights fails."""
    monkeypatch.setattr("bozzetto.zoo.locate", lambda name, *a: pytest.fail(f"{name} was looked for"))
