"""Cut-outs: what is found, what is kept, which colours the edge gets, and which pictures are refused."""

import numpy as np
import pytest
import torch

from bozzetto.errors import ForegroundError
from bozzetto.matting.cutout import cutout, has_alpha, largest_component, ramp
from bozzetto.matting.refine import box_mean, clean_edges, guided_filter


def disc(size: int, x: float, y: float, radius: float) -> torch.Tensor:
    """Antialiased alpha [size, size]."""
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    return (radius + 0.5 - ((columns - x) ** 2 + (rows - y) ** 2).sqrt()).clamp(0, 1)


def scene(alpha: torch.Tensor) -> torch.Tensor:
    """A red, shaded thing on a blue-green ground."""
    size = alpha.shape[0]
    shade = torch.linspace(1.0, 0.5, size).view(1, -1, 1)
    thing = torch.tensor([0.9, 0.2, 0.1]) * shade
    ground = torch.tensor([0.1, 0.5, 0.6]) * torch.linspace(0.7, 1.0, size).view(-1, 1, 1)
    return torch.lerp(ground.expand(size, size, 3), thing.expand(size, size, 3), alpha[..., None])


def redness(x: torch.Tensor) -> tuple[torch.Tensor]:
    """Stands in for the network: red is salient."""
    return (torch.sigmoid(6 * (x[:, :1] - x[:, 1:2])),)


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module")
def ball():
    alpha = disc(300, 160, 140, 80)
    image = scene(alpha)
    return alpha, image, cutout(image)


def test_network_finds_the_ball(ball):
    alpha, _, result = ball
    assert result.shape == (300, 300, 4) and result.dtype == torch.float32
    assert iou(result[..., 3] > 0.5, alpha > 0.5) > 0.97


def test_few_pixels_are_half_transparent(ball):
    soft = (ball[2][..., 3] > 0.05) & (ball[2][..., 3] < 0.95)
    # The ball's outline is 2 * pi * 80 pixels long; two to three pixels wide at most.
    assert int(soft.sum()) < 3 * 2 * np.pi * 80


def test_edge_colours_hold_no_background(ball):
    alpha, image, result = ball
    edge = (result[..., 3] > 0.02) & (alpha > 0.02) & (alpha < 0.98)
    blue_before, blue_after = image[edge][:, 2].mean(), result[edge][:, 2].mean()
    pure = scene(torch.ones_like(alpha))[edge][:, 2].mean()
    assert blue_after - pure < 0.2 * (blue_before - pure)
    assert float(result[..., :3][result[..., 3] == 0].abs().max()) == 0


def test_keep():
    one, two = disc(200, 60, 100, 45), disc(200, 160, 100, 25)
    image = scene((one + two).clamp(0, 1))
    largest, everything = cutout(image, model=redness), cutout(image, model=redness, keep="all")
    assert iou(largest[..., 3] > 0.5, one > 0.5) > 0.95
    assert iou(everything[..., 3] > 0.5, one + two > 0.5) > 0.95


def test_box_chooses_the_object():
    one, two = disc(200, 60, 100, 45), disc(200, 160, 100, 25)
    result = cutout(scene((one + two).clamp(0, 1)), box=(125, 60, 200, 140), model=redness)
    assert iou(result[..., 3] > 0.5, two > 0.5) > 0.95
    assert float(result[:, :125, 3].max()) == 0


def test_second_look_ignores_a_network_that_changes_its_mind():
    alpha = disc(200, 60, 60, 30)
    calls = []

    def fickle(x):
        calls.append(0)
        return (redness(x)[0] if len(calls) == 1 else 1 - redness(x)[0],)

    result = cutout(scene(alpha), model=fickle)
    assert len(calls) == 2
    assert iou(result[..., 3] > 0.5, alpha > 0.5) > 0.9


def test_alpha_of_the_picture_is_used_as_it_is():
    alpha = torch.maximum(disc(100, 30, 50, 20), 0.4 * disc(100, 80, 50, 10))
    image = torch.cat([scene(alpha), alpha[..., None]], -1)
    assert has_alpha(image)
    assert torch.equal(cutout(image), image)
    assert float(cutout(image, keep="largest")[:, 60:, 3].max()) == 0
    boxed = cutout(image, box=(60, 0, 100, 100))
    assert float(boxed[:, :60, 3].max()) == 0 and torch.equal(boxed[:, 60:], image[:, 60:])


def test_uint8_is_scaled():
    alpha = disc(64, 30, 32, 20)
    image = (torch.cat([scene(alpha), alpha[..., None]], -1) * 255).round().to(torch.uint8)
    assert torch.equal(cutout(image), image.float() / 255)


def test_opaque_alpha_is_not_a_cutout():
    alpha = disc(120, 60, 60, 40)
    image = torch.cat([scene(alpha), torch.ones(120, 120, 1)], -1)
    image[0, :5, 3] = 0  # a few transparent pixels in a corner
    assert not has_alpha(image)
    assert iou(cutout(image, model=redness)[..., 3] > 0.5, alpha > 0.5) > 0.95


def test_fully_transparent():
    with pytest.raises(ForegroundError, match="fully transparent"):
        cutout(torch.zeros(20, 30, 4))
    image = torch.zeros(20, 30, 4)
    image[:, :5] = 1
    with pytest.raises(ForegroundError, match="inside the crop box is fully transparent"):
        cutout(image, box=(10, 0, 30, 20))


def test_nothing_found():
    with pytest.raises(ForegroundError, match=r"crop box.*--no-matting"):
        cutout(torch.full((60, 80, 3), 0.5))
    with pytest.raises(ForegroundError, match="no foreground"):
        cutout(scene(torch.zeros(100, 100)), model=redness)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 400, 3), (400, 1, 4), (2, 3, 3)])
def test_tiny_pictures_do_not_crash(shape):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=generator)
    image[..., 3:] = 1
    bright = lambda x: (x.mean(1, keepdim=True).sigmoid(),)  # noqa: E731
    try:
        result = cutout(image, model=bright)
    except ForegroundError:
        return
    assert result.shape == (*shape[:2], 4) and bool(result.isfinite().all())


@pytest.mark.parametrize("box", [(50, 50, 40, 90), (200, 0, 300, 50), (10, 10, 10, 20), (-9, -9, 0, 5)])
def test_box_outside(box):
    with pytest.raises(ForegroundError, match="crop box"):
        cutout(torch.rand(100, 100, 3), box=box)


def test_wrong_shapes():
    for shape in ((10, 10), (10, 10, 2), (3, 10, 10), (0, 10, 3)):
        with pytest.raises(ValueError, match="expected a picture"):
            cutout(torch.rand(shape))


def test_largest_component_joins_diagonals():
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[range(2, 10), range(2, 10)] = True
    mask[15, 12:17] = True
    result = largest_component(mask)
    assert bool(result[range(2, 10), range(2, 10)].all()) and float(result[15, 14]) == 0


def test_box_mean_is_cut_at_the_border():
    x = torch.rand(2, 7, 9, dtype=torch.float32)
    result = box_mean(x, 2)
    assert torch.allclose(result[1, 3, 4], x[1, 1:6, 2:7].mean())
    assert torch.allclose(result[0, 0, 0], x[0, :3, :3].mean())


@pytest.mark.parametrize("working_side", [640, 100])
def test_guided_filter_follows_the_picture(working_side):
    alpha, wrong = disc(200, 100, 100, 60), disc(200, 102, 99, 60)
    mended = ramp(guided_filter(scene(alpha), wrong, working_side=working_side))
    assert float((mended - alpha).abs().mean()) < 0.5 * float((wrong - alpha).abs().mean())


def test_thin_parts_keep_their_colour():
    alpha = torch.zeros(60, 60)
    alpha[:, 10:40] = 1
    alpha[30, 40:] = 1  # one pixel thin, up to 20 pixels away from the body
    rgb = torch.zeros(60, 60, 3)
    rgb[:, :40, 0], rgb[30, 40:, 1] = 1, 1
    result = clean_edges(rgb, alpha)
    assert torch.equal(result[30, 50:], rgb[30, 50:])


@pytest.mark.parametrize(
    ("photo", "share", "inside", "outside"),
    [
        # What the eye says: covered share of the picture, points (x, y) on the object and beside it.
        ("coffee_cup.png", 0.48, [(300, 150), (420, 330), (200, 200)], [(20, 20), (30, 380), (580, 200)]),
        ("dahlia_flower.jpg", 0.22, [(270, 180), (360, 270)], [(20, 20), (600, 60), (400, 415)]),
    ],
)
def test_photos(shared, photo, share, inside, outside):
    from PIL import Image

    image = torch.from_numpy(np.array(Image.open(shared / "photos" / photo).convert("RGB"))).float() / 255
    alpha = cutout(image)[..., 3]
    assert float((alpha > 0.5).float().mean()) == pytest.approx(share, abs=0.02)
    assert all(float(alpha[y, x]) == 1 for x, y in inside)
    assert all(float(alpha[y, x]) == 0 for x, y in outside)
