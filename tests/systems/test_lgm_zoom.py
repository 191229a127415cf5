"""How large training objects are in their pictures, and where they stand."""

import torch

from bozzetto.data.render import SceneBatch
from bozzetto.systems.lgm.cameras import SLOTS, sample_views
from bozzetto.systems.lgm.generated import make_packed_object
from bozzetto.systems.lgm.recipe import MiniRecipe
from bozzetto.systems.lgm.zoom import MAX_RADIUS, PLACED_RADIUS, draw_fill, zoom, zoom_of


def test_zoom_fills_the_picture_and_respects_the_depth_range():
    generator = torch.Generator().manual_seed(0)
    views = sample_views(4, 1, generator)
    scene = SceneBatch.collate([make_packed_object(i, 16) for i in range(4)])
    scale = zoom(scene, views, generator)
    assert scale.shape == (len(scene.vertices), 1)
    scene.vertices *= scale
    for b in range(4):
        points = scene.vertices[scene.vertex_start[b] : scene.vertex_start[b + 1]]
        assert float(points.norm(dim=-1).max()) <= MAX_RADIUS + 1e-5
        seen, _ = views.world()[b, :SLOTS].project(points.expand(SLOTS, -1, 3))
        assert 0.4 < float((seen.amax(1) - seen.amin(1)).max()) < 1.5


def test_zoom_on_the_device_is_the_other():
    generator = torch.Generator().manual_seed(3)
    views = sample_views(4, 1, generator)
    scene = SceneBatch.collate([make_packed_object(i, 16) for i in range(4)])
    state = generator.get_state()
    fill, photo = draw_fill(views.known, generator)
    views.placed = torch.tensor([False, True, False, True])
    made = zoom_of(scene, views.world()[:, :SLOTS], fill, photo, views.placed)
    assert torch.allclose(made, zoom(scene, views, generator.set_state(state)), rtol=1e-4)


def test_placed_objects_have_one_size_around_what_the_cameras_look_at():
    recipe = MiniRecipe(
        preset="debug", batch_size=8, novel_views=2, render_size=64, block=8, known=(1, 0, 0, 0), placed=0.5
    )
    views = sample_views(8, 2, torch.Generator().manual_seed(5), known=recipe.known, placed=0.5)
    assert 0 < int(views.placed.sum()) < 8
    assert torch.equal(views.target.abs().sum(1) == 0, views.placed)
    scene = SceneBatch.collate([make_packed_object(i, 16) for i in range(8)])
    scene.vertices *= zoom(scene, views, torch.Generator().manual_seed(6))
    radius = torch.stack([p.norm(dim=-1).max() for p in scene.vertices.split(scene.vertex_start.diff().tolist())])
    assert torch.allclose(radius[views.placed], torch.tensor(PLACED_RADIUS), rtol=1e-4)
    assert not torch.isclose(radius[~views.placed], torch.tensor(PLACED_RADIUS), rtol=1e-3).any()
    batches = recipe.batches(0, seed=0, rank=0, world=1, device=torch.device("cpu"))
    assert recipe.identity()["placed"] == 0.5 and torch.isfinite(next(batches)["rgba"]).all()
    batches.close()


def test_nothing_is_placed_unless_asked_for():
    with_none, without = (
        sample_views(8, 2, torch.Generator().manual_seed(5), **more) for more in ({"placed": 0.0}, {})
    )
    assert not with_none.placed.any() and torch.equal(with_none.target, without.target)
