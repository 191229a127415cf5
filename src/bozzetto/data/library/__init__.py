"""Whole collections in the memory of the training device: decoded once, posed and drawn there at every step.

    library = AssetLibrary.load([Dataset("assets/")], "cuda", workers=8)
    scene = library.scene([Pose(3), Pose(17, clip=0, frame=12)])      # a SceneBatch, made without the host's data
    views = render_objects(scene, cameras, 256)

:mod:`.flat` makes one object flat (in worker processes), :mod:`.store` keeps many, :mod:`.pose` sets them into a scene,
:mod:`.mixture` decides which objects a step of training sees.
"""

from .mixture import Mixture, parse_mix
from .pose import Pose
from .store import AssetLibrary

__all__ = ["AssetLibrary", "Mixture", "Pose", "parse_mix"]
