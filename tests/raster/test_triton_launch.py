"""Launching compiled kernels: what is called with what."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("triton", reason="Triton exists for Linux only")


def test_a_kernel_that_is_ready_is_launched_without_tritons_wrapper():
    from bozzetto.raster import triton_launch

    def ready(version: tuple[int, int], **more: int) -> tuple:
        run = type("CudaLauncher", (), {"launch": "launch", "launch_cooperative_grid": False, "launch_pdl": False})()
        vars(run).update({"global_scratch_size": 0, "profile_scratch_size": 0} | more)
        compiled = SimpleNamespace(run=run, function=7, packed_metadata=(1,))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(triton_launch, "VERSION", version)
            start, head = triton_launch._ready(compiled)
        return "launch" if start == "launch" else start is run, head

    assert ready((3, 6)) == ("launch", (7, False, False, None, None, (1,), None, None, None))
    for other in (ready((3, 5)), ready((3, 6), global_scratch_size=4), ready((3, 6), profile_scratch_size=4)):
        assert other == (True, (7, (1,), None, None, None))
