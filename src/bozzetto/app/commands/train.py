"""Train lgm-mini on procedural objects and dataset folders. Stops cleanly on Ctrl-C; run again with the same folder, it resumes.

On several GPUs: torchrun --nproc-per-node N -m bozzetto train lgm-mini -o RUN

Of the presets, mini-sweep is the small one, mini-deep is deeper and imagines the view from above, mini-detail has features as
fine as its Gaussians, for outlines, and mini-cascade, the bundled network's, looks at the pictures again around its own depths.
docs/training.md compares them all; debug... are for tests.
`--init` grows a smaller network's weights into a larger one.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..numbers import above_zero, object_number, positive, probability, shares, weight, whole
from ..options import add_device, add_licences, check_output
from ..progress import Progress

EXAMPLES = (
    "bozzetto train lgm-mini -o runs/mini --steps 20000 --batch 16 --workers 14",
    "bozzetto train lgm-mini -o runs/mini --data assets/ --optimizer muon --lr 2e-3 --minutes 20 --workers 14",
    "bozzetto train lgm-mini -o runs/cascade --preset mini-cascade --init deep.safetensors --data assets/ --workers 14",
    "bozzetto train lgm-mini -o runs/try --preset debug --steps 20 --batch 2 --device cpu",
)

MINI_PRESETS = (
    "mini",
    "mini-fine",
    "mini-dense",
    "mini-coarse",
    "mini-tokens",
    "mini-tokens16",
    "mini-sweep",
    "mini-sweep-tokens",
    "mini-sweep-tokens16",
    "mini-deep",
    "mini-detail",
    "mini-cascade",
    "debug",
    "debug-tokens",
    "debug-sweep",
    "debug-detail",
    "debug-cascade",
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=("lgm-mini",), help="what to train")
    parser.add_argument("-o", "--output", required=True, metavar="RUN", help="folder of the run; resumed if it has one")
    parser.add_argument(
        "--preset",
        choices=MINI_PRESETS,
        default="mini-sweep",
        metavar="NAME",
        help=f"network: {', '.join(MINI_PRESETS)} (mini-sweep)",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=(),
        metavar="FOLDER",
        help="dataset folders (bozzetto data convert), training split",
    )
    parser.add_argument(
        "--decoded", metavar="DIR", help="keep the decoded objects of --data here, for later starts and other processes"
    )
    parser.add_argument(
        "--mix", default="", metavar="NAME=SHARE,...", help="shares of sources; 'procedural' is one of them (0.3)"
    )
    add_licences(parser)
    parser.add_argument(
        "--recolour",
        type=probability,
        default=0.3,
        help="share of --data's objects whose plain materials are tinted (0.3)",
    )
    parser.add_argument(
        "--surroundings", type=probability, default=0.0, help="share of scenes lit by a sky, a room or a street (0)"
    )
    parser.add_argument(
        "--surroundings-from",
        metavar="FILE",
        help="of `bozzetto data light`, instead of this package's 26 (--surroundings)",
    )
    parser.add_argument("--steps", type=positive, default=20_000, help="optimiser steps of the whole run (20000)")
    parser.add_argument(
        "--minutes",
        type=above_zero,
        help="plan by time instead of steps: the learning rate falls over these minutes (all starts of the run together), "
        "then the run ends",
    )
    parser.add_argument("--batch", type=positive, default=16, help="objects per step and part (16)")
    parser.add_argument(
        "--parts",
        type=positive,
        metavar="N",
        help="of a step, of --batch objects each, which the GPUs share out: a run goes on with any number of GPUs that "
        "divides it (the GPUs of the first start)",
    )
    parser.add_argument("--novel-views", type=positive, default=4, help="supervised views besides the four slots (4)")
    parser.add_argument(
        "--known",
        type=shares,
        default=(0.25, 0.05, 0.05, 0.65),
        metavar="A,B,C,D",
        help="shares of objects of which one, two, three and four views are known (0.25,0.05,0.05,0.65)",
    )
    parser.add_argument(
        "--ring",
        type=probability,
        default=0.75,
        help="share of input views that stand in a ring, the rest anywhere (0.75)",
    )
    parser.add_argument(
        "--studio", type=probability, default=0.7, help="share of objects seen by LGM's camera, the rest by any (0.7)"
    )
    parser.add_argument(
        "--front", type=probability, default=0.3, help="share of single photos that are taken from the front (0.3)"
    )
    parser.add_argument(
        "--placed",
        type=probability,
        default=0.0,
        help="share of objects of one size, whatever their pictures show; the rest fill their pictures (0)",
    )
    parser.add_argument(
        "--render-size", type=positive, help="pixels of the supervision pictures (the network's input size)"
    )
    parser.add_argument("--lr", type=above_zero, default=4e-4, help="peak learning rate (4e-4)")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw", help="(adamw)")
    parser.add_argument("--warmup", type=positive, default=500, help="steps (500)")
    parser.add_argument(
        "--perceptual", type=weight, default=0.0, metavar="WEIGHT", help="of the perceptual distance (0)"
    )
    parser.add_argument("--perceptual-weights", metavar="FILE", help="its network's weights")
    parser.add_argument("--ssim", type=weight, default=0.1, metavar="WEIGHT", help="of 1 - SSIM (0.1)")
    parser.add_argument(
        "--opacity", type=weight, default=0.0, metavar="WEIGHT", help="against half-transparent fog (0)"
    )
    parser.add_argument(
        "--silhouette", type=weight, default=0.0, metavar="WEIGHT", help="of the absolute error of alpha (0)"
    )
    parser.add_argument(
        "--several",
        type=probability,
        default=1.0,
        metavar="SHARE",
        help="of --perceptual, --opacity and --silhouette, for objects with more than one known view (1)",
    )
    parser.add_argument("--depth", type=weight, default=0.5, metavar="WEIGHT", help="of the depth error (0.5)")
    parser.add_argument(
        "--distort",
        type=probability,
        default=0.0,
        metavar="PROBABILITY",
        help="of LGM's grid distortion of the inputs (0)",
    )
    parser.add_argument(
        "--jitter",
        type=probability,
        default=0.0,
        metavar="PROBABILITY",
        help="of LGM's jitter of the input cameras (0)",
    )
    parser.add_argument(
        "--workers", type=whole, default=0, help="processes that make objects (0: in the training process)"
    )
    parser.add_argument("--block", type=positive, default=1024, help="objects made ahead (1024)")
    parser.add_argument("--repeats", type=positive, default=2, help="visits per object (2)")
    parser.add_argument(
        "--overfit", type=positive, metavar="N", help="train on the same N objects for ever, on every GPU, as a check"
    )
    parser.add_argument("--first-seed", type=object_number, default=0, help="first object's number (0)")
    parser.add_argument("--seed", type=whole, default=0, help="of weights, order and cameras (0)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="(bf16)")
    parser.add_argument("--compile", action="store_true", help="torch.compile: minutes to start, then faster")
    parser.add_argument(
        "--no-graph", dest="graph", action="store_false", help="do not record a step's launches as CUDA graphs"
    )
    parser.add_argument("--max-minutes", type=above_zero, help="stop with a checkpoint after this time")
    parser.add_argument(
        "--init", metavar="FILE", help="weights to start from, of this preset or of one that grows into it"
    )
    parser.add_argument("--sample-every", type=whole, default=1000, help="steps between sample pictures (1000)")
    parser.add_argument("--eval-every", type=whole, default=0, help="steps between evaluations (0: only at the end)")
    parser.add_argument("--checkpoint-every", type=positive, default=500, help="steps (500)")
    parser.add_argument("--log-every", type=positive, default=50, help="steps (50)")
    parser.add_argument("--eval-objects", type=positive, default=32, help="held-out objects (32)")
    parser.add_argument("--export", metavar="FILE", help="at the end, write the averaged weights as .safetensors")
    parser.add_argument(
        "--export-dtype",
        choices=("fp16", "fp32", "int8"),
        help="of the weights in --export; int8 has half the size of fp16 (fp16)",
    )
    add_device(parser)


def run(options: argparse.Namespace, progress: Progress) -> None:
    from ...data.assets.licence_choice import parse_licences
    from ...errors import InputError
    from ...systems.lgm.presets import preset
    from ...systems.lgm.recipe import MiniRecipe
    from ...training.loop import TrainConfig, train

    if options.mix and not options.data:
        raise InputError("--mix shares out the objects of --data; give it folders")
    if options.surroundings_from and not options.surroundings:
        raise InputError("--surroundings-from is used by --surroundings; give its share of the scenes")
    if options.licences is not None and not options.data:
        raise InputError("--licences chooses among the objects of --data; give it folders")
    if options.export_dtype and not options.export:
        raise InputError("--export-dtype is about the file of --export; give one")
    if options.export and Path(options.export).suffix.lower() != ".safetensors":
        raise InputError(f"--export {options.export}: the file's name must end in .safetensors")
    if options.export:
        check_output(Path(options.export).parent)

    recipe = MiniRecipe(
        preset=options.preset,
        batch_size=options.batch,
        novel_views=options.novel_views,
        render_size=options.render_size or preset(options.preset).input_size,
        ssim_weight=options.ssim,
        perceptual_weight=options.perceptual,
        perceptual_weights_file=options.perceptual_weights,
        depth_weight=options.depth,
        opacity_weight=options.opacity,
        silhouette_weight=options.silhouette,
        several=options.several,
        known=options.known,
        ring=options.ring,
        studio=options.studio,
        front=options.front,
        placed=options.placed,
        distortion_probability=options.distort,
        jitter_probability=options.jitter,
        data=tuple(options.data),
        mix=options.mix,
        licences=parse_licences(options.licences) if options.licences is not None else None,
        decoded=options.decoded,
        recolour=options.recolour,
        environment=options.surroundings,
        photographed=options.surroundings_from,
        overfit=(options.overfit or 0) if options.data else 0,
        block=options.overfit or options.block,
        repeats=10**9 if options.overfit else options.repeats,
        workers=options.workers,
        evaluation_objects=options.eval_objects,
        first_seed=options.first_seed,
        shared=options.overfit is not None,
    )
    config = TrainConfig(
        out=options.output,
        steps=options.steps,
        minutes=options.minutes,
        lr=options.lr,
        optimizer=options.optimizer,
        warmup=options.warmup,
        precision=options.precision,
        compile=options.compile,
        graph=options.graph,
        seed=options.seed,
        parts=options.parts,
        log_every=options.log_every,
        sample_every=options.sample_every,
        eval_every=options.eval_every,
        checkpoint_every=options.checkpoint_every,
        max_minutes=options.max_minutes,
        init_from=options.init,
        quiet=options.quiet,
    )
    train(recipe, config, options.device)
    if options.export:
        export(options.output, options.preset, options.export, options.export_dtype or "fp16")
    if int(os.environ.get("RANK", "0")) == 0:
        progress.summary([Path(p) for p in (options.output, options.export) if p])


def export(run_folder: str, preset_name: str, target: str, precision: str = "fp16") -> None:
    """Write the averaged weights of a run's newest checkpoint as ``.safetensors``: "fp16", "fp32" or "int8"."""
    import torch

    from ...systems.lgm.checkpoint import save_lgm
    from ...systems.lgm.network import LGM
    from ...systems.lgm.presets import preset
    from ...training.checkpoint import latest_checkpoint, load_training_state
    from ...zoo.saving import PRECISIONS

    if int(os.environ.get("RANK", "0")) != 0:
        return
    checkpoint = latest_checkpoint(Path(run_folder))
    with torch.device("meta"):
        empty = LGM(preset(preset_name))
    model, ema = empty.to_empty(device="cpu"), LGM(preset(preset_name))
    load_training_state(checkpoint, model, ema, None)
    save_lgm(ema, target, {"preset": preset_name, "checkpoint": checkpoint.name}, PRECISIONS[precision])
