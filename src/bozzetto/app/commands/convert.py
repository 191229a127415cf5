"""Convert between file formats.

Splats to splats (.ply, .splat), splats to a viewer page (.html), mesh (.glb, .gltf, .obj, .ply) to mesh (.glb, .obj, .ply,
.usdz), a sequence of splats (.4dgs) to a player page (.html), to a folder of one .ply per frame (B without suffix), or one of
its frames (`--frame`) to .ply or .splat. Weights of a network (.safetensors, .pt, .pth, .ckpt, .bin) to .safetensors in another
precision (`--dtype`); of a training checkpoint (RUN/checkpoint-*.pt) the averaged ones, as `bozzetto train --export` writes them;
`--average` takes the mean of several files of the same network.

`--layout lgm` writes the 14-property PLY of LGM instead of the standard 3DGS one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..progress import Progress

EXAMPLES = (
    "bozzetto convert splats.ply splats.splat",
    "bozzetto convert splats.splat viewer.html",
    "bozzetto convert mesh.glb mesh.obj",
    "bozzetto convert mesh.glb mesh.usdz",
    "bozzetto convert splats.4dgs frames/",
    "bozzetto convert weights.safetensors small.safetensors --dtype int8",
    "bozzetto convert runs/mini/checkpoint-00020000.pt mini.safetensors",
    "bozzetto convert later.safetensors mean.safetensors --average earlier.safetensors",
)
SPLATS, MESHES, SEQUENCE = (".ply", ".splat"), (".glb", ".gltf", ".obj"), ".4dgs"
MESHES_WRITTEN = (".glb", ".obj", ".usdz")
WEIGHTS, WEIGHTS_WRITTEN = (".safetensors", ".pt", ".pth", ".ckpt", ".bin"), ".safetensors"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", metavar="A", help="file to read")
    parser.add_argument("target", metavar="B", help="file to write")
    parser.add_argument("--layout", choices=("3dgs", "lgm"), help="of the splat .ply that is written (3dgs)")
    parser.add_argument(
        "--frame", type=int, metavar="N", help="of a sequence, counted from 0 (from the end if negative)"
    )
    parser.add_argument(
        "--dtype",
        choices=("fp16", "fp32", "int8"),
        help="of weights; int8 has half the size of fp16, with a scale for each output channel (fp16)",
    )
    parser.add_argument(
        "--average", nargs="+", metavar="FILE", help="more weights of the same network: B gets the mean of A and these"
    )


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Read A and write B in the format of its suffix."""
    from ...errors import InputError
    from ...gaussians import Gaussians
    from ...mesh import Mesh

    source, target = Path(options.source).suffix.lower(), Path(options.target).suffix.lower()
    frames = source == SEQUENCE and (target == "" or options.frame is not None)
    if options.frame is not None and source != SEQUENCE:
        raise InputError("--frame is about a sequence of splats (.4dgs); leave it out")
    if options.layout and not ((source in SPLATS and target == ".ply") or (frames and target in ("", ".ply"))):
        raise InputError("--layout is about a splat .ply that is written; leave it out, or give B the suffix .ply")
    weights = source in WEIGHTS and target == WEIGHTS_WRITTEN
    if options.dtype and not weights:
        raise InputError("--dtype is about the weights of a network; leave it out, or give A and B such suffixes")
    if options.average and not weights:
        raise InputError("--average is about the weights of a network; leave it out, or give A and B such suffixes")
    if weights:
        _convert_weights(options)
    elif source == SEQUENCE:
        _convert_sequence(options, target, progress)
    elif source in MESHES and target in (*MESHES_WRITTEN, ".ply"):
        Mesh.load(options.source).save(options.target)
    elif source in SPLATS and target == ".ply":
        from ...files.ply import write_ply

        write_ply(Gaussians.load(options.source), options.target, layout=options.layout or "3dgs")
    elif source in SPLATS and target == ".splat":
        Gaussians.load(options.source).save(options.target)
    elif source in SPLATS and target == ".html":
        from ...files.viewer import write_viewer

        write_viewer(options.target, Gaussians.load(options.source), title=Path(options.source).stem)
    elif source == ".ply" and target in MESHES_WRITTEN and _is_mesh(options.source):
        Mesh.load(options.source).save(options.target)
    elif source in SPLATS and target in MESHES_WRITTEN:
        raise InputError(f"splats become a mesh with: bozzetto mesh {options.source} -o {options.target}")
    else:
        raise InputError(
            f"cannot convert {source or 'a file without suffix'} to {target or 'a file without suffix'}; "
            f"splats: {', '.join(SPLATS)} -> {', '.join(SPLATS)}, .html; meshes: {', '.join(MESHES)} -> .glb, .obj, .ply, .usdz; "
            "sequences: .4dgs -> .html, a folder, or with --frame N .ply, .splat; "
            f"weights: {', '.join(WEIGHTS)} -> {WEIGHTS_WRITTEN}"
        )
    progress.summary([Path(options.target)])


def _convert_weights(options: argparse.Namespace) -> None:
    """The tensors of a checkpoint (its averages, if any) in another precision; the metadata of a .safetensors file stay."""
    from ...zoo.averaging import mean_weights
    from ...zoo.loading import read_metadata, read_tensors
    from ...zoo.saving import PRECISIONS, save_weights

    more = options.average or ()
    tensors = mean_weights([options.source, *more]) if more else read_tensors(options.source)
    save_weights(tensors, options.target, read_metadata(options.source), PRECISIONS[options.dtype or "fp16"])


def _convert_sequence(options: argparse.Namespace, target: str, progress: Progress) -> None:
    """A .4dgs file to a player page, a folder of frames, or one of its frames."""
    from ...errors import InputError
    from ...files.atomic import output_folder
    from ...files.player import write_player
    from ...files.ply import write_ply
    from ...files.sequence import read_sequence

    sequence = read_sequence(options.source)
    layout = options.layout or "3dgs"
    for note in sequence.notes:
        progress.say(f"note: {note}")
    if options.frame is not None:
        if target not in SPLATS:
            raise InputError("--frame picks one frame, which can become .ply or .splat; give B one of these suffixes")
        if not -len(sequence) <= options.frame < len(sequence):
            raise InputError(f"--frame {options.frame}: {options.source} has the frames 0 to {len(sequence) - 1}")
        frame = sequence[options.frame]
        if target == ".ply":
            write_ply(frame, options.target, layout=layout)
        else:
            frame.save(options.target)
    elif target == "":
        with output_folder(options.target) as folder:
            for k in range(len(sequence)):
                write_ply(sequence[k], folder / f"{k:04d}.ply", layout=layout)
    elif target == ".html":
        frames = [sequence[k] for k in range(len(sequence))]
        for note in write_player(options.target, frames, sequence.fps, Path(options.source).stem, sequence.up):
            progress.say(f"note: the page shows {note}")
    else:
        raise InputError(
            f"a sequence cannot become {target}; give B the suffix .html, none (a folder of .ply), or pick one frame with "
            "--frame N"
        )


def _is_mesh(path: str) -> bool:
    """Whether a .ply file declares faces (both splats and meshes come as .ply)."""
    from ...errors import InputError
    from ...files.inputs import check_input

    with check_input(path, "a PLY file", InputError).open("rb") as file:
        head = file.read(65536)
    return b"element face" in head.split(b"end_header")[0]
