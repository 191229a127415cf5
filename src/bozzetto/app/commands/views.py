"""Turn pictures with known cameras into a 3D object in the cameras' own world frame.

FOLDER/transforms.json holds camera_angle_x (or fl_x, fl_y, cx, cy, w, h) and frames with file_path and transform_matrix
(camera-to-world, OpenGL axes: the camera looks along -z). Any camera distance, orientation and object scale. A COLMAP project
(sparse/0 and images) is read too, and a folder with rgb/*.png and pose/*.txt, as LGM's training data has them (field of view
49.1 degrees).
"""

from __future__ import annotations

import argparse

from ..options import add_matting, add_mesh, add_output, add_refine, add_weights, asset_options, check_output
from ..progress import Progress

EXAMPLES = ("bozzetto views scene/ -o out/", "bozzetto views scene/ -o out/ --model lgm-big --device cuda")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="with transforms.json (or the file itself), sparse/0 and images/, or rgb/ and pose/",
    )
    add_output(parser, "lgm-mini", "views")
    add_mesh(parser)
    add_matting(parser)
    add_refine(parser)
    add_weights(parser)


def run(options: argparse.Namespace, progress: Progress) -> None:
    from ...api import views_to_3d
    from ...camera.posed_folder import read_posed_folder

    check_output(options.output)
    posed = read_posed_folder(options.folder)
    asset = views_to_3d(
        posed.paths,
        posed.cameras,
        matting=options.matting,
        refine=options.refine,
        progress=progress,
        **asset_options(options),
    )
    progress.summary(asset.save(options.output, progress))
