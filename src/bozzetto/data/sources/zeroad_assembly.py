"""Puts an actor together: its mesh with props at their prop points, all on one list of joints, and the clips on it.

Everything here is in the game's left-handed frame; :mod:`.zeroad` mirrors the result.

A *node* is one mesh of the tree of props. It rides on a joint of its parent (or stands still), and has joints of its own
when its mesh is skinned. Joint 0 is the object's own frame and never moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .formats.pyrogenesis import NO_BONE, PmdMesh, PsaClip
from .zeroad_actors import Actor

SKIPPED_POINTS = ("projectile", "garrison", "icon", "loaded-")
SKIPPED_PROPS = ("particle", "blood", "decal")
MAX_DEPTH = 6


@dataclass
class Node:
    """One mesh of an actor.

    Attributes:
        actor, mesh: what it shows.
        frame: [4, 4] mesh -> object, in the bind pose.
        joint: which joint of the whole object it rides on (0 = stands still).
        first: index of its own first joint, or None without a skeleton.
        parent, bone, place: attached to this bone (255 = the frame) of that node, at this place within.
    """

    actor: Actor
    mesh: PmdMesh
    frame: NDArray[np.float64]
    joint: int = 0
    first: int | None = None
    parent: Node | None = None
    bone: int = NO_BONE
    place: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))


def find_point(mesh: PmdMesh, name: str) -> tuple[NDArray[np.float64], int] | None:
    """Where a prop point lies: (place, bone), or None when the mesh has none of that name."""
    for candidate in (name, f"prop-{name}", f"prop_{name}"):
        if candidate in mesh.prop_points:
            return mesh.prop_points[candidate]
    return (np.eye(4), NO_BONE) if name == "root" else None


def assemble(
    path: str, draw: Callable[[str, frozenset[str]], Actor | None], load: Callable[[str], PmdMesh | None]
) -> tuple[list[Node], int]:
    """All nodes of the actor ``path``, the root first, and the number of joints.

    Args:
        draw: actor path and names of its parents' variants -> what to show (None: nothing).
        load: mesh path -> mesh (None: missing).
    """
    nodes: list[Node] = []
    joints = 1

    def add(
        path: str, parent: Node | None, bone: int, place: NDArray, depth: int, names: frozenset[str] = frozenset()
    ) -> None:
        nonlocal joints
        actor = draw(path, names)
        mesh = load(actor.mesh) if actor is not None and actor.mesh else None
        if actor is None or mesh is None:
            return
        frame, joint = np.eye(4), 0
        if parent is not None:
            frame, joint = parent.frame @ place, parent.joint
            if bone < len(parent.mesh.bones) and parent.first is not None:
                frame, joint = parent.frame @ parent.mesh.bones[bone] @ place, parent.first + bone
            else:
                bone = NO_BONE
        node = Node(actor, mesh, frame, joint, None, parent, bone, place)
        if len(mesh.bones):
            node.first = joints
            joints += len(mesh.bones)
        nodes.append(node)
        if depth >= MAX_DEPTH:
            return
        for name, props in actor.props.items():
            point = None if name.startswith(SKIPPED_POINTS) else find_point(mesh, name)
            for prop in props if point is not None else ():
                if not any(word in prop for word in SKIPPED_PROPS):
                    add(prop, node, point[1], point[0], depth + 1, names | actor.names)

    add(path, None, NO_BONE, np.eye(4), 0)
    return nodes, joints


def skin(node: Node) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Vertices [V, 3] in object space, joints [V, 4] of the whole object and weights [V, 4] of one node."""
    mesh, count = node.mesh, len(node.mesh.vertices)
    vertices = (mesh.vertices @ node.frame[:3, :3].T + node.frame[:3, 3]).astype(np.float32)
    if node.first is None:
        joints, weights = np.full((count, 4), node.joint, np.int32), np.zeros((count, 4), np.float32)
        weights[:, 0] = 1
        return vertices, joints, weights
    weights = np.where(mesh.joints == NO_BONE, 0, np.nan_to_num(mesh.weights)).astype(np.float32)
    joints = np.where(mesh.joints < len(mesh.bones), mesh.joints + node.first, node.joint).astype(np.int32)
    total = weights.sum(1, keepdims=True)
    bare = total[:, 0] < 1e-5  # no bone moves these vertices: they ride along with the whole mesh
    weights = weights / np.maximum(total, 1e-5)
    joints[bare], weights[bare] = node.joint, [1, 0, 0, 0]
    joints[weights == 0] = node.joint
    return vertices, joints, weights.astype(np.float32)


def _resample(clip: PsaClip, bones: int, times: NDArray[np.float64], whole: float | None) -> NDArray[np.float64] | None:
    """Matrices [T, J, 4, 4] of ``clip`` at ``times`` (s); over ``whole`` seconds it plays once, or by its own clock."""
    count = len(clip.matrices)
    if clip.matrices.shape[1] < bones or count == 0:
        return None
    position = times * clip.fps if whole is None else times / whole * count
    return clip.matrices[np.floor(position + 1e-6).astype(int) % count, :bones]


def _shares_skeleton(node: Node) -> bool:
    """Whether a prop stands where its parent stands, in the bind pose, and has as many bones."""
    parent = node.parent
    if parent is None or parent.first is None or len(node.mesh.bones) != len(parent.mesh.bones):
        return False
    return np.allclose(node.frame, parent.frame, atol=0.02)


def pose(
    nodes: list[Node], joints: int, name: str, file: str, load: Callable[[str], PsaClip | None]
) -> tuple[float, NDArray[np.float32]] | None:
    """Frames per second and matrices [T, joints, 4, 4] (bind -> posed object space) of the root's animation ``file``.

    A skinned prop on its parent's skeleton (a mane, reins) moves with it. Another plays its animation of the same ``name``
    once in the same time; without one its "idle", without that it rests in its bind pose. None when the clip is missing or
    does not fit the skeleton.
    """
    clip = load(file)
    root = nodes[0]
    if clip is None or root.first is None or clip.matrices.shape[1] < len(root.mesh.bones) or not len(clip.matrices):
        return None
    frames = len(clip.matrices)
    times = np.arange(frames) / clip.fps
    out = np.tile(np.eye(4), (frames, joints, 1, 1))
    current: dict[int, NDArray[np.float64]] = {}  # node -> bone matrices [T, J, 4, 4]
    frame: dict[int, NDArray[np.float64]] = {}  # node -> mesh to posed object [T, 4, 4]
    for node in nodes:
        bones = len(node.mesh.bones)
        moved = np.tile(np.eye(4), (frames, 1, 1))
        if node.parent is not None:
            moved = frame[id(node.parent)] @ node.place
            if node.bone != NO_BONE:
                moved = frame[id(node.parent)] @ current[id(node.parent)][:, node.bone] @ node.place
        frame[id(node)] = moved
        if node.first is None:
            continue
        poses = None
        if node is root:
            poses = clip.matrices[:, :bones]
        elif _shares_skeleton(node):
            poses = current[id(node.parent)]
        else:
            own = dict(reversed(node.actor.animations))  # the first of a name
            wanted = own.get(name) or own.get("idle")
            found = load(wanted) if wanted else None
            if found is not None:
                poses = _resample(found, bones, times, frames / clip.fps if name in own else None)
        if poses is None:
            poses = np.broadcast_to(node.mesh.bones, (frames, bones, 4, 4))
        current[id(node)] = poses
        back = np.linalg.inv(node.frame @ node.mesh.bones)  # object -> bone, in the bind pose
        out[:, node.first : node.first + bones] = moved[:, None] @ poses @ back
    return clip.fps, out.astype(np.float32)
