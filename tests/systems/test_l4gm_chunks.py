"""The plan of chunks: the published control flow exactly, and ours without its omissions and repeats."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from bozzetto.systems.l4gm.chunks import (
    interpolated_times,
    key_times,
    plan_chunks,
    published_plan,
    published_stride,
)


@pytest.mark.parametrize("case", range(6))
def test_published_plan(shared, case):
    expected = json.loads((shared / "parity/l4gm/chunk_plan.json").read_text())["cases"][case]
    frames, fps = expected["video_frames"], expected["video_fps"]
    plan = published_plan(frames, fps, interpolate=expected["interpolation"])
    keys, between = key_times(plan), interpolated_times(plan)
    assert keys == expected["key_times"]
    assert [round(t, 3) for t in between] == (expected["interp_times"] or [])

    sources = [77.0]  # the initial views, then the frame of every last kept set
    recorded = []
    for chunk in plan:
        source = sources[-1] if chunk.renewed else sources[0]
        recorded.append({"view0": list(chunk.frames), "views123": [source, source]})
        if chunk.kept:
            sources.append(float(chunk.frames[chunk.kept[-1]]))
    assert recorded == expected["chunk_inputs"]

    rate = fps / published_stride(fps)
    outputs = expected["outputs"]
    assert outputs["wo_interp_clip_fixed.mp4"]["frames"] == len(keys)
    assert outputs["wo_interp_clip_fixed.mp4"]["fps"] == rate
    if expected["interpolation"]:
        assert outputs["w_interp_clip_fixed.mp4"]["frames"] == len(between)
        assert outputs["w_interp_clip_fixed.mp4"]["fps"] == rate * len(between) / len(keys)


def test_the_recorded_cases_are_all_tested(shared):
    assert len(json.loads((shared / "parity/l4gm/chunk_plan.json").read_text())["cases"]) == 6


@pytest.mark.parametrize("frames", [1, 2, 3, 9, 15, 16, 17, 18, 31, 32, 40, 150, 1000])
@pytest.mark.parametrize("size", [2, 5, 16])
def test_every_frame_and_every_pair_once(frames, size):
    plan = plan_chunks(frames, size)
    assert key_times(plan) == [float(i) for i in range(frames)]
    expected = [i / 3 for i in range(3 * (frames - 1) + 1)] if frames > 1 else []
    assert interpolated_times(plan) == pytest.approx(expected)
    for before, after in pairwise(plan):
        assert after.frames[0] == before.frames[-1] == before.frames[before.kept[-1]]
        assert after.renewed and not after.whole
    assert not plan[0].renewed and plan[0].whole
    lengths = [len(c.frames) for c in plan]
    assert max(lengths) <= size and max(lengths) - min(lengths) <= 1  # no stump at the end


def test_without_interpolation_the_views_are_still_renewed():
    plan = plan_chunks(40, interpolate=False)
    assert [c.renewed for c in plan] == [False, True, True] and interpolated_times(plan) == []


def test_impossible_plans():
    with pytest.raises(ValueError):
        plan_chunks(0)
    with pytest.raises(ValueError):
        plan_chunks(5, 1)
