"""Writers of tiny files in the formats of the asset collections, so that readers are tested without the packages."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

# A sign of two triangles: right and up as the viewer sees it, counter-clockwise; (u right, v down).
RIGHT = np.array([0.0, 1.0, 1.0, 0.0])
UP = np.array([0.0, 0.0, 2.0, 2.0])
FACES = np.array([[0, 1, 2], [0, 2, 3]])
UVS_TOP = np.stack([RIGHT, 1 - UP / 2], 1)  # v = 0 at the top row
UVS_BOTTOM = np.stack([RIGHT, UP / 2], 1)


def sign(right: int, up: int, mirror: bool = False) -> np.ndarray:
    """Vertices [4, 3] of the sign with ``right`` and ``up`` as axis numbers; ``mirror``: right is the negative axis."""
    points = np.zeros((4, 3), np.float32)
    points[:, right] = -RIGHT if mirror else RIGHT
    points[:, up] = UP
    return points


def assert_sign_reads(vertices, faces, uvs) -> None:
    """Seen from +z with y up: triangles counter-clockwise, u to the right, v down; size 1 x 2."""
    corners = np.asarray(vertices, np.float64)[faces]  # [F, 3, 3]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] > 0).all() and np.allclose(normals[:, :2], 0, atol=1e-5)
    # The solid sign: uv -> position is one map for all vertices.
    assert np.allclose(np.ptp(vertices[:, 0]), 1, atol=0.02) and np.allclose(np.ptp(vertices[:, 1]), 2, atol=0.02)
    assert np.allclose(vertices[:, 0] - vertices[:, 0].min(), uvs[:, 0], atol=0.02)
    assert np.allclose(vertices[:, 1] - vertices[:, 1].min(), 2 * (1 - uvs[:, 1]), atol=0.02)


def picture(colour=(200, 100, 50, 255), size=4, format="PNG") -> bytes:
    """A picture of one colour."""
    out = io.BytesIO()
    mode = "RGBA" if format != "JPEG" else "RGB"
    Image.new(mode, (size, size), tuple(colour)[: len(mode)]).save(out, format=format)
    return out.getvalue()


def archive(path: Path, files: dict[str, bytes | str]) -> Path:
    """A zip file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path


def folder(path: Path, files: dict[str, bytes | str]) -> Path:
    """A folder of files."""
    for name, data in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def state(translation=(0, 0, 0), quaternion=(0, 0, 0, 1)) -> bytes:
    return struct.pack("<7f", *translation, *quaternion)


def pmd(vertices, faces, uvs, joints=None, weights=None, bones=(), points=()) -> bytes:
    """``bones``: states; ``points``: (name, state, bone)."""
    count = len(vertices)
    joints = np.full((count, 4), 255) if joints is None else joints
    weights = np.zeros((count, 4)) if weights is None else weights
    body = struct.pack("<II", count, 1)
    for v, uv, j, w in zip(vertices, uvs, joints, weights):
        body += struct.pack("<3f3f2f", *v, 0, 0, 1, *uv) + bytes(int(x) for x in j) + struct.pack("<4f", *w)
    body += struct.pack("<I", len(faces)) + np.asarray(faces, "<u2").tobytes()
    body += struct.pack("<I", len(bones)) + b"".join(bones)
    body += struct.pack("<I", len(points))
    for name, place, bone in points:
        body += struct.pack("<I", len(name)) + name.encode() + place + bytes([bone])
    return b"PSMD" + struct.pack("<II", 4, len(body)) + body


def psa(frames, milliseconds=100.0) -> bytes:
    """``frames``: lists of states, one a bone."""
    body = struct.pack("<I", 4) + b"clip" + struct.pack("<fII", milliseconds, len(frames[0]), len(frames))
    body += b"".join(s for frame in frames for s in frame)
    return b"PSSA" + struct.pack("<II", 1, len(body)) + body


def spm(vertices, faces, uvs, texture="", colours=None, kind=0) -> bytes:
    """One mesh; ``colours``: a byte triple or None (white) for each vertex."""
    flags = 1 | (2 if colours is not None else 0)
    out = b"SP" + bytes([kind, flags]) + bytes(24) + struct.pack("<H", 1)
    out += bytes([len(texture)]) + texture.encode() + bytes([0])
    out += struct.pack("<HH", 1, 1) + struct.pack("<IIH", len(vertices), np.size(faces), 0)
    for i, (v, uv) in enumerate(zip(vertices, uvs)):
        out += struct.pack("<3f", *v) + bytes(4)
        if colours is not None:
            out += bytes([128]) if colours[i] is None else bytes([0, *colours[i]])
        if texture:
            out += np.asarray(uv, "<f2").tobytes()
        if kind == 1:
            out += bytes(16)
    out += np.asarray(faces, "u1").tobytes()
    return out + (bytes(24) if kind == 0 else b"")


def g3d(frames, faces, uvs, texture="", team=False, opacity=1.0) -> bytes:
    """Version 4, one mesh; ``frames`` [T, V, 3]."""
    frames = np.asarray(frames, "<f4")
    out = b"G3D" + bytes([4]) + struct.pack("<HB", 1, 0) + b"mesh".ljust(64, b"\0")
    out += struct.pack("<III", len(frames), frames.shape[1], np.size(faces))
    out += struct.pack("<8f", 0.2, 0.4, 0.6, 0, 0, 0, 1, opacity)
    out += struct.pack("<II", int(team), int(bool(texture)))
    if texture:
        out += texture.encode().ljust(64, b"\0")
    out += frames.tobytes() + np.zeros_like(frames).tobytes()
    if texture:
        out += np.asarray(uvs, "<f4").tobytes()
    return out + np.asarray(faces, "<u4").tobytes()


def g3d3(frames, faces, uvs, texture="skin.png") -> bytes:
    """Version 3, one mesh."""
    frames = np.asarray(frames, "<f4")
    out = b"G3D" + bytes([3]) + struct.pack("<I", 1)
    out += struct.pack("<7I", len(frames), len(frames), 1, 1, frames.shape[1], np.size(faces), 0)
    out += texture.encode().ljust(64, b"\0") + frames.tobytes() + np.zeros_like(frames).tobytes()
    return out + np.asarray(uvs, "<f4").tobytes() + bytes(16) + np.asarray(faces, "<u4").tobytes()


def md2(frames, faces, uvs, skin="skin") -> bytes:
    """``frames`` [T, V, 3] within 0..10; faces clockwise as the format has them, uvs by vertex."""
    frames = np.asarray(frames, np.float64)
    scale = 10 / 255
    body = skin.encode().ljust(64, b"\0")
    at_uvs = 68 + len(body)
    body += np.round(np.asarray(uvs) * 256).astype("<i2").tobytes()
    at_faces = 68 + len(body)
    body += np.concatenate([faces, faces], 1).astype("<u2").tobytes()
    at_frames = 68 + len(body)
    for i, points in enumerate(frames):
        body += struct.pack("<6f", *[scale] * 3, 0, 0, 0) + f"frame{i}".encode().ljust(16, b"\0")
        body += np.concatenate([np.round(points / scale), np.zeros((len(points), 1))], 1).astype("u1").tobytes()
    count = frames.shape[1]
    numbers = (8, 256, 256, 40 + 4 * count, 1, count, len(uvs), len(faces), 0, len(frames))
    return b"IDP2" + struct.pack("<16i", *numbers, 68, at_uvs, at_faces, at_frames, 0, 68 + len(body)) + body


def md3(frames, faces, uvs, name="body", tags=()) -> bytes:
    """One surface; ``tags``: (name, list of (origin, axes [3, 3] by rows)), one a frame."""
    frames = np.asarray(frames, np.float64)
    length, count = frames.shape[:2]
    tag_data = b""
    for t in range(length):
        for label, places in tags:
            origin, axes = places[t]
            tag_data += label.encode().ljust(64, b"\0") + struct.pack("<12f", *origin, *np.asarray(axes).reshape(-1))
    shader = b"shader".ljust(64, b"\0") + struct.pack("<i", 0)
    face_data = np.asarray(faces, "<i4").tobytes()
    uv_data = np.asarray(uvs, "<f4").tobytes()
    points = np.concatenate([np.round(frames * 64), np.zeros((length, count, 1))], -1).astype("<i2").tobytes()
    at = [108, 108 + len(face_data)]
    at += [at[1] + len(shader)]
    at += [at[2] + len(uv_data)]
    size = at[3] + len(points)
    surface = b"IDP3" + name.encode().ljust(64, b"\0") + struct.pack("<5i", 0, length, 1, count, len(faces))
    surface += struct.pack("<5i", *at, size) + face_data + shader + uv_data + points
    head = b"IDP3" + struct.pack("<i", 15) + bytes(64 + 4) + struct.pack("<4i", length, len(tags), 1, 0)
    head += struct.pack("<4i", 108, 108, 108 + len(tag_data), 108 + len(tag_data) + size)
    return head + tag_data + surface


def ac3d(vertices, faces, uvs, texture="skin.png", name="wing") -> str:
    """One polygon object below the world."""
    lines = ["AC3Db", 'MATERIAL "m" rgb 0.5 0.25 1  amb 1 1 1  emis 0 0 0  spec 0 0 0  shi 10  trans 0', "OBJECT world"]
    lines += [
        "kids 2",
        "OBJECT poly",
        f'name "{name}"',
        f'texture "{texture}"',
        "loc 0 0 3",
        f"numvert {len(vertices)}",
    ]
    lines += [" ".join(f"{x:g}" for x in v) for v in vertices] + [f"numsurf {len(faces)}"]
    for face in faces:
        lines += ["SURF 0x20", "mat 0", f"refs {len(face)}"]
        lines += [f"{i} {uvs[i][0]:g} {uvs[i][1]:g}" for i in face]
    return "\n".join([*lines, "kids 0", ""])  # the world promises two children and has one
