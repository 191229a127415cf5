"""Which model turns which input into an asset: the table behind ``--model``. Torch-free, so that ``--help`` is fast.

The module of a pipeline has one function per input it takes: ``from_photo(rgba, options, job)``,
``from_text(prompt, options, job)`` and ``from_video(clip, options, job)``. Posed views are LGM's alone
(:func:`bozzetto.systems.lgm.posed.from_views`).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import InputError, MissingDependencyError, UnknownModelError

KINDS = ("photo", "text", "video", "views")
_ONE = {"photo": "a photo", "text": "a text prompt", "video": "a video", "views": "posed views"}


@dataclass(frozen=True)
class Pipeline:
    """One model as users know it.

    Attributes:
        name: what ``--model`` takes.
        summary: one line for ``bozzetto models``.
        module: where its functions are.
        options: input kind -> "module:Class" of its options.
        weights: input kind -> the zoo entries it loads by default, in order of use.
        alternatives: zoo entry that it loads instead -> the option that asks for it.
        extra: the optional packages it needs, as in ``pip install 'bozzetto[extra]'``.
        own_mesh: its mesh comes from its own field, not from Gaussians.
    """

    name: str
    summary: str
    module: str
    options: dict[str, str] = field(default_factory=dict)
    weights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    alternatives: dict[str, str] = field(default_factory=dict)
    extra: str | None = None
    own_mesh: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """Kinds of input: "photo", "text", "video", "views"."""
        return tuple(self.weights)

    @property
    def system(self) -> str:
        """The folder of ``systems/`` that it lives in."""
        return self.module.split(".")[2]

    @property
    def all_weights(self) -> tuple[str, ...]:
        """The zoo entries that any of its runs can load, alternatives last."""
        return tuple(dict.fromkeys([n for names in self.weights.values() for n in names] + list(self.alternatives)))

    def entries(self, kind: str, options: object) -> tuple[str, ...]:
        """The zoo entries that a run with these options loads."""
        chosen = getattr(options, "entries", None)
        return chosen() if chosen else self.weights[kind]

    def options_class(self, kind: str) -> type:
        """The dataclass of this pipeline's options for one kind of input."""
        module, name = self.options[kind].split(":")
        return getattr(importlib.import_module(module), name)

    def function(self, kind: str) -> Callable:
        """``from_photo``, ``from_text`` or ``from_video``."""
        return getattr(importlib.import_module(self.module), f"from_{kind}")

    def check_extra(self) -> None:
        """Raise :class:`MissingDependencyError` if the optional packages are not installed."""
        if self.extra == "diffusion" and importlib.util.find_spec("transformers") is None:
            raise MissingDependencyError(
                f"{self.name} needs the package transformers: pip install 'bozzetto[diffusion]'"
            )


def _systems(system: str, *kinds: str) -> dict[str, str]:
    return {k: f"bozzetto.systems.{system}.options:{k.capitalize()}Options" for k in kinds}


_LIST = (
    Pipeline(
        name="lgm-mini",
        summary="bundled: photo or posed views -> Gaussians, in a second on a CPU",
        module="bozzetto.systems.lgm.mini",
        options={"photo": "bozzetto.systems.lgm.mini_options:PhotoOptions"},
        weights={"photo": ("lgm-mini",), "views": ("lgm-mini",)},
        alternatives={"lgm-mini-clean": "--model lgm-mini-clean"},
    ),
    Pipeline(
        name="lgm",
        summary="photo or text -> four views (ImageDream, MVDream) -> Gaussians; posed views too",
        module="bozzetto.systems.lgm.pipeline",
        options=_systems("lgm", "photo", "text"),
        weights={"photo": ("imagedream", "lgm-big"), "text": ("mvdream", "lgm-big"), "views": ("lgm-big",)},
        extra="diffusion",
    ),
    Pipeline(
        name="triposr",
        summary="photo -> triplane field -> textured mesh",
        module="bozzetto.systems.triposr.pipeline",
        options=_systems("triposr", "photo"),
        weights={"photo": ("triposr",)},
        own_mesh=True,
    ),
    Pipeline(
        name="shap-e",
        summary="photo or text -> implicit function -> mesh",
        module="bozzetto.systems.shap_e.pipeline",
        options=_systems("shap_e", "photo", "text"),
        weights={
            "photo": ("clip-vit-l14", "shap-e-image", "shap-e-transmitter"),
            "text": ("clip-vit-l14", "shap-e-text", "shap-e-transmitter"),
        },
        alternatives={"shap-e-text-cap3d": "--weights-variant cap3d"},
        extra="diffusion",
        own_mesh=True,
    ),
    Pipeline(
        name="gaussian-dreamer",
        summary="text -> Shap-E points -> Gaussians refined by score distillation",
        module="bozzetto.systems.gaussian_dreamer.pipeline",
        options=_systems("gaussian_dreamer", "text"),
        weights={"text": ("clip-vit-l14", "shap-e-text-cap3d", "shap-e-transmitter", "sd21-base")},
        alternatives={"mvdream": "--prior mvdream"},
        extra="diffusion",
    ),
    Pipeline(
        name="l4gm",
        summary="video -> a sequence of Gaussians (4D)",
        module="bozzetto.systems.l4gm.pipeline",
        options=_systems("l4gm", "video"),
        weights={"video": ("imagedream", "l4gm-recon", "l4gm-interp")},
        extra="diffusion",
    ),
)

PIPELINES: dict[str, Pipeline] = {p.name: p for p in _LIST}


def for_kind(kind: str) -> list[Pipeline]:
    """The pipelines that take this kind of input."""
    return [p for p in PIPELINES.values() if kind in p.inputs]


def find_pipeline(model: str, kind: str) -> tuple[Pipeline, dict[str, str]]:
    """The pipeline that ``--model`` names, and the weights that it replaces.

    ``model`` is a pipeline's name, a weights file, or "owner/repo/file" on the Hub; what a file is, its tensors say.

    Raises:
        UnknownModelError: neither. InputError: it does not take this kind of input (the message lists those that do).
    """
    from .zoo import ENTRIES, check_name, identify_file, locate

    fitting = ", ".join(p.name for p in for_kind(kind))
    if model in PIPELINES:
        pipeline = PIPELINES[model]
        if kind not in pipeline.inputs:
            raise InputError(f"{model} does not take {_ONE[kind]}; models that do: {fitting}")
        return pipeline, {}
    try:
        check_name(model)
    except UnknownModelError as error:
        raise UnknownModelError(f"{error}. Models that take {_ONE[kind]}: {fitting}") from error
    # Such as "triposr", or "lgm-big" for any LGM file. A zoo entry is fetched later, with progress, if it is not here.
    what, path = (None, None) if model in ENTRIES else identify_file(model)
    entry = model if what is None else what.entry
    if what is None and ENTRIES[model].stands_for:
        entry, path = ENTRIES[model].stands_for, locate(model)
    for pipeline in for_kind(kind):
        if entry in pipeline.weights[kind] and ENTRIES[entry].system == pipeline.system:
            return pipeline, {} if path is None else {entry: str(path)}
    told = model if what is None else f"{model} is {what.title}, which"
    advice = "" if what is None else f". {what.advice[0].upper()}{what.advice[1:]}"
    raise InputError(f"{told} alone cannot turn {_ONE[kind]} into 3D; models that can: {fitting}{advice}")
