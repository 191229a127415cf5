"""U2NETP: the same maps as the published ONNX file, and damaged weights."""

import numpy as np
import pytest
import torch

from bozzetto.errors import CheckpointError
from bozzetto.matting.u2netp import U2NetP, load_u2netp, saliency


def golden_input() -> torch.Tensor:
    """A shaded ball with seeded noise, normalised: [1, 3, 320, 320]."""
    y, x = np.mgrid[0:320, 0:320].astype(np.float32)
    inside = (x - 150) ** 2 + (y - 170) ** 2 < 90**2
    shade = np.where(inside, 1.2 - (x + y) / 500, -0.8 + x / 800)
    noise = np.random.RandomState(7).standard_normal((3, 320, 320))
    picture = shade + np.array([0.9, 0.1, -0.5])[:, None, None] * inside + 0.05 * noise
    return torch.from_numpy(picture[None].astype(np.float32))


def test_maps_equal_those_of_onnxruntime(data):
    golden = np.load(data / "u2netp_golden.npz")["maps"]  # every 16th pixel of the 7 maps, from onnxruntime
    with torch.inference_mode():
        maps = torch.cat(load_u2netp()(golden_input()))[:, 0, 8::16, 8::16]
    assert golden.max() > 0.99 and golden[0].std() > 0.2  # the ball is found, the file is not empty
    assert np.abs(maps.numpy() - golden).max() < 1e-4


def test_parameter_count():
    # 112 convolutions of the backbone, 6 side maps, 1 fusion.
    model = U2NetP()
    assert sum(isinstance(m, torch.nn.Conv2d) for m in model.modules()) == 119
    assert sum(p.numel() for p in model.parameters()) == 1_125_485


def test_saliency_has_the_size_of_the_picture():
    fake = lambda x: (x.mean(1, keepdim=True).sigmoid(),)  # noqa: E731
    for size in ((1, 1), (1, 700), (333, 2), (40, 50)):
        result = saliency(torch.rand(*size, 3), fake)
        assert result.shape == size and bool(result.isfinite().all())


def test_damaged_weights(tmp_path):
    file = tmp_path / "weights.safetensors"
    with pytest.raises(CheckpointError, match="cannot read"):
        load_u2netp(file)
    file.write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_u2netp(file)
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match="U2NETP"):
        load_u2netp(file)
