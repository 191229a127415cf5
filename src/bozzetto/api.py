"""The public functions: a photo, a prompt, posed views or a video in; :class:`Asset` or :class:`Asset4D` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .asset import Asset, versions
from .camera import Cameras
from .device import pick_device
from .errors import CheckpointError, InputError, MissingDependencyError, UnknownModelError
from .job import Job, Progress, silent
from .options import REFINE_STEPS, build_options, check_mesh_method, check_refine, check_text
from .photo import Box, Picture, check_picture, cut_photo, picture_name
from .pipelines import PIPELINES, Pipeline, find_pipeline

if TYPE_CHECKING:
    from .asset4d import Asset4D

MAX_PROMPT = 10_000  # characters
L4GM_FPS = 15.0  # frames a second at which L4GM reconstructs; it fills in two sets between them


def image_to_3d(
    photo: Picture,
    *,
    model: str = "lgm-mini",
    seed: int = 0,
    mesh: bool = True,
    mesh_method: str = "fast",
    matting: bool = True,
    crop: Box | None = None,
    device: str = "auto",
    weights: Mapping[str, str | PathLike[str]] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Asset:
    """One photo of an object -> a 3D object.

    Args:
        photo: file or picture; one with an alpha channel is used as it is, any other is cut out (``matting``).
        model: "lgm-mini", "lgm", "triposr", "shap-e" (see ``bozzetto models``), or a weights file.
        seed: of everything random; recorded in the report.
        mesh: also make a textured mesh.
        mesh_method: how Gaussians become a mesh: "fast" (seconds) or "nerf" (by optimisation, minutes on a CPU); for
            models whose mesh does not come from Gaussians only "fast" is right.
        matting: False uses the whole picture as the object.
        crop: (x0, y0, x1, y1) in pixels; only what lies inside is looked at.
        device: "auto", "cpu" or "cuda".
        weights: zoo entry name -> local file or folder, used instead of the published one.
        progress: called with (stage, share done).
        options: what the model can be told, e.g. ``steps=50`` for "lgm": the fields of its ``PhotoOptions``.

    Returns:
        :class:`Asset`, y up, the photo's side facing +z (with "shap-e" the object's own front).

    Raises:
        InputError and its kinds: anything wrong with the arguments, the photo or the weights.
        MissingDependencyError: the model needs an extra.
    """
    check_picture(photo)
    pipeline, job, chosen = _ready("photo", model, options, seed, device, weights, progress, mesh, mesh_method)
    rgba = cut_photo(photo, matting, crop, job)
    asset = pipeline.function("photo")(rgba, chosen, job)
    about = {"command": "image", "input": picture_name(photo), "model": model, "matting": matting}
    return _finish(asset, about | vars(chosen), job)


def text_to_3d(
    prompt: str,
    *,
    model: str = "lgm",
    seed: int = 0,
    mesh: bool = True,
    mesh_method: str = "fast",
    device: str = "auto",
    weights: Mapping[str, str | PathLike[str]] | None = None,
    progress: Progress | None = None,
    workspace: str | PathLike[str] | None = None,
    **options: Any,
) -> Asset:
    """A description of an object -> a 3D object, y up, front facing +z. Arguments as :func:`image_to_3d`.

    ``workspace`` is a folder for the previews of a long run (gaussian-dreamer's) and for the state from which it goes on.
    ``model`` is "lgm" (seconds), "shap-e" (seconds) or "gaussian-dreamer" (minutes).
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError("the prompt is empty; describe an object, e.g. 'a wooden chair'")
    check_text(prompt, "the prompt")
    if len(prompt) > MAX_PROMPT:
        raise InputError(
            f"the prompt has {len(prompt):,} characters; at most {MAX_PROMPT:,} are taken (the models read 77 tokens)"
        )
    pipeline, job, chosen = _ready(
        "text", model, options, seed, device, weights, progress, mesh, mesh_method, workspace
    )
    asset = pipeline.function("text")(prompt.strip(), chosen, job)
    about = {"command": "text", "prompt": prompt.strip(), "model": model}
    return _finish(asset, about | vars(chosen), job)


def video_to_4d(
    video: str | PathLike[str],
    *,
    model: str = "l4gm",
    seed: int = 0,
    matting: bool = True,
    fps: float | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    device: str = "auto",
    weights: Mapping[str, str | PathLike[str]] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Asset4D:
    """A video of one object from a still camera -> a sequence of Gaussians, y up, the video's side facing +z.

    Args:
        video: any file that FFmpeg reads, a GIF, or a folder of numbered pictures.
        fps: frames a second to reconstruct; None: the video's own rate, or the whole fraction of it nearest above 15.
        start, seconds: which part of the video, in seconds; None is all of it.

    The other arguments are :func:`image_to_3d`'s.
    """
    from .files.video import check_reading, read_video
    from .matting.video import matte_clip

    check_reading(video, fps, start, seconds)
    pipeline, job, chosen = _ready("video", model, options, seed, device, weights, progress)
    with job.stage("read"):
        job.tell("reading the video", 0.0)
        clip = read_video(video, fps=fps, least_fps=L4GM_FPS, start=start, max_seconds=seconds)
    if matting:
        with job.stage("matting"):
            clip = matte_clip(clip, device=job.device, progress=job.tell)
    asset = pipeline.function("video")(clip, chosen, job)
    about = {
        "command": "video",
        "input": Path(video).name,
        "model": model,
        "matting": matting,
        "notes": list(clip.notes),
    }
    asset.pictures |= job.pictures
    asset.report = _report(about | vars(chosen), job) | asset.report
    return asset


def views_to_3d(
    images: Sequence[Picture],
    cameras: Cameras,
    *,
    model: str = "lgm-mini",
    seed: int = 0,
    mesh: bool = True,
    mesh_method: str = "fast",
    matting: bool = True,
    refine: int = REFINE_STEPS,
    device: str = "auto",
    weights: Mapping[str, str | PathLike[str]] | None = None,
    progress: Progress | None = None,
) -> Asset:
    """Pictures of one object with known cameras -> a 3D object in the cameras' own world frame.

    Any camera distance, orientation and object scale. Pictures with an alpha channel are used as they are, others are cut
    out (``matting``); they may differ in size. lgm-mini uses at most four views (those that see the most different sides),
    LGM up to eight; the report says which. ``refine`` steps of optimisation on the pictures used follow the network's answer
    where there are several (:func:`bozzetto.fitting.refine_gaussians`); 0 keeps it. The report says how many were done.
    """
    from .systems.lgm.network import LGM
    from .systems.lgm.posed import from_views
    from .zoo import ENTRIES, check_name, load

    check_mesh_method(mesh_method, mesh)
    check_refine(refine)
    name = PIPELINES[model].weights["views"][0] if model in PIPELINES and "views" in PIPELINES[model].inputs else model
    fitting = [e.name for e in ENTRIES.values() if "views" in e.inputs]
    if (name in PIPELINES and name not in ENTRIES) or (name in ENTRIES and name not in fitting):
        raise InputError(f"{model} does not take posed views; models that do: {', '.join(fitting)}")
    replaced = _replaced(weights, [name], model)
    check_name(name)
    job = Job(pick_device(device), seed, progress or silent, mesh, replaced, mesh_method=mesh_method)
    with job.stage("load_model"):
        job.tell(f"loading {name}", 0.0)
        network = load(name, str(job.device), replaced.get(name))
    if not isinstance(network, LGM):
        raise UnknownModelError(
            f"{replaced.get(name, model)} is no network of the LGM family; models that take posed views: "
            f"{', '.join(fitting)}"
        )
    asset = from_views(images, cameras, network, matting, refine, job)
    about = {"command": "views", "inputs": len(images), "model": model, "matting": matting}
    return _finish(asset, about, job)


def prepare(
    kind: str,
    *,
    model: str,
    seed: int = 0,
    mesh: bool = True,
    mesh_method: str = "fast",
    device: str = "auto",
    weights: Mapping[str, str | PathLike[str]] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> None:
    """Check the arguments of a run and fetch its weights, without running it; then only its input can be wrong.

    Args:
        kind: "photo", "text" or "video"; the others are those of :func:`image_to_3d` and the like.
    """
    if kind not in ("photo", "text", "video"):
        raise InputError(f"kind must be photo, text or video, got {kind!r}")
    _ready(kind, model, options, seed, device, weights, progress, mesh, mesh_method)


def _ready(
    kind: str,
    model: str,
    options: Mapping[str, Any],
    seed: int,
    device: str,
    weights: Mapping[str, str | PathLike[str]] | None,
    progress: Progress | None,
    mesh: bool = True,
    mesh_method: str = "fast",
    workspace: str | PathLike[str] | None = None,
) -> tuple[Pipeline, Job, Any]:
    """The pipeline, the job and the checked options, with all weights on this machine: whatever fails, fails before any work."""
    check_mesh_method(mesh_method, mesh)
    pipeline, own = find_pipeline(model, kind)
    if mesh_method != "fast" and pipeline.own_mesh:
        raise InputError(
            f"{pipeline.name} makes its mesh from its own field; leave out the mesh method {mesh_method!r}"
        )
    chosen = build_options(pipeline.options_class(kind), options, model)
    pipeline.check_extra()
    replaced = _replaced(weights, pipeline.all_weights, pipeline.name)
    for name in own.keys() & replaced.keys():
        raise InputError(
            f"--model {model} and --weights {name}={replaced[name]} both stand for {name}; give one of them"
        )
    job = Job(
        pick_device(device),
        seed,
        progress or silent,
        mesh,
        own | replaced,
        None if workspace is None else Path(workspace),
        mesh_method,
    )
    _fetch(pipeline.entries(kind, chosen), job)
    return pipeline, job, chosen


def _replaced(weights: Mapping[str, str | PathLike[str]] | None, known: Sequence[str], model: str) -> dict[str, str]:
    """The local files that stand for zoo entries, checked: they exist, and the model has a use for the entries."""
    from .zoo import find_entry
    from .zoo.identify import refuse_other_weights

    replaced = {}
    for name, given in (weights or {}).items():
        find_entry(name)
        path = Path(given).expanduser()
        if not path.exists():
            raise InputError(f"--weights {name}={given}: there is no such file or folder")
        if name not in known:
            raise InputError(f"--weights {name}={given}: {model} does not use {name}; it uses {', '.join(known)}")
        refuse_other_weights(name, path)
        replaced[name] = str(path)
    return replaced


def _fetch(entries: Sequence[str], job: Job) -> None:
    """Have all the weights on this machine; where that fails, the message also says what else is to be fetched."""
    from .zoo import find_entry
    from .zoo.local import local_path
    from .zoo.offline import fetch_commands

    for i, entry in enumerate(entries):
        try:
            job.locate(entry)
        except CheckpointError:
            raise
        except (InputError, MissingDependencyError) as error:
            later = [find_entry(name) for name in entries[i + 1 :] if name not in job.weights]
            commands = [command for e in later if local_path(e) is None for command in fetch_commands(e)]
            if not commands:
                raise
            listed = "\n".join(f"  {command}" for command in commands)
            raise type(error)(f"{error}\nThe other weights of this run, which are missing too:\n{listed}") from error


def _report(about: dict[str, Any], job: Job) -> dict[str, Any]:
    about |= {"seed": job.seed, "device": str(job.device), "versions": versions(), "timings": job.timings}
    return about | job.report


def _finish(asset: Asset, about: dict[str, Any], job: Job) -> Asset:
    """Add the mesh of Gaussians and the report."""
    if job.mesh and asset.mesh is None and asset.gaussians is not None:
        from .surface import gaussians_to_mesh

        with job.stage("mesh"):
            asset.mesh = gaussians_to_mesh(
                asset.gaussians,
                method=job.mesh_method,
                seed=job.seed,
                progress=lambda stage, share: job.tell(f"making the mesh: {stage}", share),
            )
    asset.pictures |= job.pictures
    asset.report = _report(about, job) | asset.report
    return asset
