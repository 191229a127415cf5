"""Files in the published layout -> networks; wrong and damaged files are named."""

import pytest
import torch

pytest.importorskip("transformers")

from micro_shap_e import RADIUS, write_micro_shap_e

from bozzetto.camera import Cameras
from bozzetto.errors import CheckpointError, InputError, MeshError
from bozzetto.systems.shap_e.checkpoint import load_diffusion, load_transmitter
from bozzetto.systems.shap_e.field import ShapEField, from_world, to_world
from bozzetto.systems.shap_e.model import ShapE, load_shap_e
from bozzetto.systems.shap_e.render import pan_cameras, pan_rays, render_nerf


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_micro_shap_e(tmp_path_factory.mktemp("shap_e"))


@pytest.fixture(scope="module")
def shap_e(files):
    return load_shap_e(files["shap-e-transmitter"], files["shap-e-text"], files["shap-e-image"], files["clip-vit-l14"])


def test_text_to_mesh(shap_e):
    latents = shap_e.sample_text(["a chair", "a chair", "abc"], steps=3, seed=5)
    assert latents.shape == (3, 2048)
    assert torch.equal(latents, shap_e.sample_text(["a chair", "a chair", "abc"], steps=3, seed=5))
    assert torch.allclose(latents[:1], shap_e.sample_text("a chair", steps=3, seed=5), atol=1e-3)
    assert not torch.allclose(latents[0], latents[1], atol=1e-2)  # another place in the stream of noise
    vertices, faces, rgb = shap_e.decode_mesh(latents[0], 24)
    assert len(faces) > 500 and rgb.shape == vertices.shape
    assert float((vertices.norm(dim=-1) - RADIUS).abs().mean()) < 0.15
    points, colours = shap_e.points(latents[0], 24)
    assert torch.equal(points, vertices) and torch.equal(colours, rgb)


def test_image_to_latents(shap_e):
    pictures = [torch.rand(40, 30, 3, generator=torch.Generator().manual_seed(0)), torch.ones(8, 8, 3)]
    latents = shap_e.sample_image(pictures, steps=2)
    assert latents.shape == (2, 2048) and bool(torch.isfinite(latents).all())


def test_missing_parts_are_named(files):
    with pytest.raises(InputError, match="without its text model"):
        ShapE().sample_text(["a"])
    with pytest.raises(InputError, match="without its image model"):
        ShapE().sample_image([torch.ones(4, 4, 3)])
    with pytest.raises(InputError, match="without its transmitter"):
        ShapE().decode_mesh(torch.zeros(4))
    with pytest.raises(InputError, match="clip="):
        load_shap_e(text=files["shap-e-text"])


def test_cap3d_layout(files):
    model = load_diffusion(files["shap-e-text-cap3d"], condition="text")
    saved = torch.load(files["shap-e-text-cap3d"], weights_only=True)["model_state_dict"]
    assert all(torch.equal(v, saved[k]) for k, v in model.state_dict().items())


def test_heads_come_from_the_configuration_beside(files, tmp_path):
    assert load_diffusion(files["shap-e-text"]).config.heads == 4
    alone = tmp_path / "text_cond.pt"
    alone.write_bytes(files["shap-e-text"].read_bytes())
    assert load_diffusion(alone).config.heads == 1  # one per 64 channels
    (tmp_path / "text_cond_config.yaml").write_text("inner: 5\n")
    with pytest.raises(CheckpointError, match="is not a configuration"):
        load_diffusion(alone)


def test_vector_decoder_layout(files, tmp_path):
    whole = torch.load(files["shap-e-transmitter"], weights_only=True)
    keep = {k: v for k, v in whole.items() if k.startswith(("encoder.params_proj.", "renderer."))}
    torch.save({k.removeprefix("encoder."): v for k, v in keep.items()}, tmp_path / "vector_decoder.pt")
    a, b = load_transmitter(files["shap-e-transmitter"]), load_transmitter(tmp_path / "vector_decoder.pt")
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_unknown_tensors_are_an_error(files, tmp_path):
    for name in ("encoder.params_proj.extra", "encoder.something.weight", "renderer.nerstf.mlp.7.weight"):
        state = torch.load(files["shap-e-transmitter"], weights_only=True)
        state[name] = torch.zeros(3)
        torch.save(state, tmp_path / "transmitter.pt")
        with pytest.raises(CheckpointError, match="1 unexpected"):
            load_transmitter(tmp_path / "transmitter.pt")
    state = torch.load(files["shap-e-transmitter"], weights_only=True)
    del state["renderer.nerstf.mlp.5.bias"]
    torch.save(state, tmp_path / "transmitter.pt")
    with pytest.raises(CheckpointError, match=r"1 missing: renderer\.nerstf\.mlp\.5\.bias"):
        load_transmitter(tmp_path / "transmitter.pt")


def test_wrong_files_are_named(files, tmp_path):
    with pytest.raises(CheckpointError, match="it is Shap-E's transmitter"):
        load_diffusion(files["shap-e-transmitter"])
    with pytest.raises(CheckpointError, match="it is Shap-E's text model"):
        load_transmitter(files["shap-e-text"])
    with pytest.raises(CheckpointError, match="is Shap-E's image model; the text model is needed"):
        load_diffusion(files["shap-e-image"], condition="text")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"its tensors are called conv\.weight"):
        load_transmitter(tmp_path / "other.pt")


@pytest.fixture(scope="module")
def fields(shap_e):
    return shap_e.transmitter.fields(0.1 * torch.randn(2048, generator=torch.Generator().manual_seed(0)))


def test_axes_are_a_rotation_that_takes_the_front_to_z():
    axes = to_world(torch.eye(3))
    assert torch.equal(axes, torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]]))  # x, y, z of Shap-E
    assert torch.det(axes) == 1
    points = torch.randn(5, 3)
    assert torch.equal(from_world(to_world(points)), points)
    assert float(to_world(pan_cameras(20).camera_to_world[0, :3, 3])[2]) > 3  # the first published view stands in front


def test_baked_pictures_agree_with_the_exact_renderer(fields):
    """The same camera through the baked grid in the house's axes, and through the published renderer in Shap-E's."""
    field = ShapEField(fields)
    centre, radius = field.framing()
    assert max(map(abs, centre)) < 0.3 and 0.6 < radius < 1.8
    published = pan_cameras(20)[3:4]
    world = published.camera_to_world.clone()
    world[0, :3] = to_world(world[0, :3].T).T
    baked = field.render(Cameras(world, published.intrinsics), 24, (0.0, 0.0, 0.0))[0]
    origins, directions = published.rays(24)
    exact, left = render_nerf(fields, origins[0], directions[0])
    assert float((baked - exact).abs().mean()) < 0.01
    assert 0.05 < float((left < 0.5).float().mean()) < 0.8
    on_white = field.render(Cameras(world, published.intrinsics), (24, 16))[0]
    assert on_white.shape == (24, 16, 3) and float(on_white.max()) <= 1 + 1e-5 and float(on_white[0, 0].min()) > 0.99


def test_pan_rays_touch_the_edges():
    _, directions = pan_rays(pan_cameras(4), 5)
    assert directions.shape == (4, 5, 5, 3)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(4, 5, 5))


def test_empty_shape_is_an_error(shap_e, files, tmp_path):
    state = torch.load(files["shap-e-transmitter"], weights_only=True)
    state["renderer.nerstf.mlp.6.bias"][0] = -100.0
    torch.save(state, tmp_path / "transmitter.pt")
    with pytest.raises(MeshError, match="the sampled shape is empty"):
        load_shap_e(tmp_path / "transmitter.pt").decode_mesh(torch.zeros(2048), 16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(files, shap_e):
    names = ("shap-e-transmitter", "shap-e-text", "shap-e-image", "clip-vit-l14")
    paths = [files[n] for n in names]
    exact = load_shap_e(*paths, device="cuda", dtype=torch.float32)
    want = shap_e.sample_text(["a chair"], guidance=2.0, steps=4, seed=1)
    got = exact.sample_text(["a chair"], guidance=2.0, steps=4, seed=1)
    assert got.device.type == "cuda" and torch.allclose(got.cpu(), want, atol=1e-2)
    half = load_shap_e(*paths, device="cuda").sample_text(["a chair"], guidance=2.0, steps=4, seed=1)
    assert half.dtype == torch.float32 and float((half.cpu() - want).norm() / want.norm()) < 0.1
    picture = [torch.rand(40, 30, 3, generator=torch.Generator().manual_seed(0))]
    image = exact.sample_image(picture, steps=4)  # with 2, rounding grows to 1e-2: one step from level 160 to 0.001
    assert torch.allclose(image.cpu(), shap_e.sample_image(picture, steps=4), atol=1e-2)
    vertices, faces, _ = exact.decode_mesh(want[0], 32)
    on_cpu = shap_e.decode_mesh(want[0], 32)
    assert faces.shape == on_cpu[1].shape and torch.allclose(vertices.cpu(), on_cpu[0], atol=1e-3)
    fields = exact.transmitter.fields(want[0])
    camera = Cameras.orbit([30.0], 10.0, 3.0)
    pictures = [ShapEField(f).render(camera, 48).cpu() for f in (fields, shap_e.transmitter.fields(want[0]))]
    assert float((pictures[0] - pictures[1]).abs().mean()) < 1e-3
    origins, directions = pan_rays(pan_cameras(20)[:1], 8)
    colours = [render_nerf(f, origins, directions)[0].cpu() for f in (fields, shap_e.transmitter.fields(want[0]))]
    assert float((colours[0] - colours[1]).abs().mean()) < 1e-2
