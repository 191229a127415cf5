"""Cameras and rays. The conventions of the whole package, stated once:

* **World**: right-handed, y up, x right, the object centred at the origin inside [-1, 1]^3, its front looking towards +z
  (glTF's axes). Lengths are in world units.
* **Pose**: ``camera_to_world``, a rigid 4x4 matrix with OpenGL camera axes: x right, y up, the camera looks along -z.
* **Orbit**: azimuth 0 stands on +z and looks along -z; azimuth 90 stands on +x. Elevation is positive *above* the object.
  Angles are in degrees at every public function.
* **Pixels**: row 0 is the top; pixel (column i, row j) has its centre at (i + 0.5, j + 0.5).
* **Intrinsics**: (fx, fy, cx, cy), normalised: fx and cx by the image width, fy and cy by the image height, so that a
  camera survives a resize. A centred camera has cx = cy = 0.5; fy = 0.5 / tan(fov_y / 2).
* **Size**: an int (square) or (height, width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import CameraError
from .conventions import opengl_to_opencv

Size = int | tuple[int, int]


def as_size(size: Size) -> tuple[int, int]:
    """``size`` as (height, width), both positive ints."""
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if height < 1 or width < 1:
        raise ValueError(f"an image size must be positive, got {height}x{width} (height x width)")
    return height, width


def _floating(values: Tensor) -> Tensor:
    """``values`` as they are, or as float32 if they are integers (which would round everything derived from them to 0)."""
    return values if values.is_floating_point() else values.float()


def look_at(
    position: Tensor, target: Tensor | Sequence[float] = (0.0, 0.0, 0.0), up: Sequence[float] = (0, 1, 0)
) -> Tensor:
    """Camera-to-world matrices (OpenGL axes) at ``position`` [..., 3] looking at ``target`` [..., 3]: [..., 4, 4].

    A camera straight above or below its target has no defined roll; it then takes +z (the object's front) as the
    direction that the top of the picture points away from.
    """
    position = _floating(torch.as_tensor(position))
    target = torch.as_tensor(target, dtype=position.dtype, device=position.device).expand_as(position)
    up_vector = torch.as_tensor(up, dtype=position.dtype, device=position.device).expand_as(position)
    offset = position - target
    if bool((offset.norm(dim=-1) < 1e-12).any()):
        raise CameraError("a camera cannot stand on the point it looks at; move it away from the target")
    backward = F.normalize(offset, dim=-1)
    right = torch.linalg.cross(up_vector, backward, dim=-1)
    # Parallel to up: fall back to an up vector along -z (above) or +z (below).
    fallback = torch.zeros_like(backward)
    fallback[..., 2] = -torch.sign((backward * up_vector).sum(-1))
    parallel = right.norm(dim=-1, keepdim=True) < 1e-7
    right = torch.where(parallel, torch.linalg.cross(fallback, backward, dim=-1), right)
    right = F.normalize(right, dim=-1)
    true_up = torch.linalg.cross(backward, right, dim=-1)
    pose = torch.zeros(*position.shape[:-1], 4, 4, dtype=position.dtype, device=position.device)
    pose[..., :3, 0] = right
    pose[..., :3, 1] = true_up
    pose[..., :3, 2] = backward
    pose[..., :3, 3] = position
    pose[..., 3, 3] = 1.0
    return pose


def orbit_poses(
    azimuth: Tensor | Sequence[float] | float,
    elevation: Tensor | Sequence[float] | float = 0.0,
    radius: Tensor | Sequence[float] | float = 1.5,
    target: Sequence[float] = (0.0, 0.0, 0.0),
) -> Tensor:
    """Camera-to-world matrices [..., 4, 4] (float32) on a sphere around ``target``; the arguments broadcast.

    ``azimuth`` and ``elevation`` in degrees, ``radius`` in world units. Computed in float64.
    """
    a, e, r = (torch.as_tensor(x, dtype=torch.float64) for x in (azimuth, elevation, radius))
    a, e, r = torch.broadcast_tensors(torch.deg2rad(a), torch.deg2rad(e), r)
    centre = torch.tensor(target, dtype=torch.float64)
    position = torch.stack([r * e.cos() * a.sin(), r * e.sin(), r * e.cos() * a.cos()], dim=-1) + centre
    return look_at(position, centre).float()


def projection_matrix(fov_y: float, aspect: float = 1.0, near: float = 0.01, far: float = 1000.0) -> Tensor:
    """OpenGL perspective matrix [4, 4] (column vectors, clip z in [-1, 1], y up) for a vertical field of view in degrees."""
    t = math.tan(math.radians(fov_y) / 2)
    m = torch.zeros(4, 4)
    m[0, 0] = 1 / (t * aspect)
    m[1, 1] = 1 / t
    m[2, 2] = -(far + near) / (far - near)
    m[2, 3] = -2 * far * near / (far - near)
    m[3, 2] = -1.0
    return m


def matvec(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices [..., 3, 3] times vectors [..., 3], in full precision also under autocast (which would round ``@`` to bf16)."""
    return (matrix * vector[..., None, :]).sum(-1)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Small matrix product [..., m, k] x [..., k, n], in full precision also under autocast."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def plucker_rays(origins: Tensor, directions: Tensor) -> Tensor:
    """Plücker coordinates (moment = origin x direction, then the unit direction): two [..., 3] -> [..., 6]."""
    return torch.cat([torch.linalg.cross(origins, directions, dim=-1), directions], dim=-1)


@dataclass
class Cameras:
    """A batch of pinhole cameras.

    Attributes:
        camera_to_world: [*batch, 4, 4], rigid, OpenGL axes.
        intrinsics: [*batch, 4] = (fx, fy, cx, cy), normalised by image width and height (see the module's conventions).
        names: one name per camera (only for a one-dimensional batch), used to name rendered pictures.
    """

    camera_to_world: Tensor  # [*batch, 4, 4]
    intrinsics: Tensor  # [*batch, 4]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self.camera_to_world = _floating(torch.as_tensor(self.camera_to_world))
        self.intrinsics = torch.as_tensor(
            self.intrinsics, dtype=self.camera_to_world.dtype, device=self.camera_to_world.device
        )
        if self.camera_to_world.shape[-2:] != (4, 4):
            raise CameraError(f"camera_to_world must end in 4x4, got {tuple(self.camera_to_world.shape)}")
        batch = self.camera_to_world.shape[:-2]
        if self.intrinsics.shape[-1] != 4:
            raise CameraError(f"intrinsics must end in 4 (fx, fy, cx, cy), got {tuple(self.intrinsics.shape)}")
        self.intrinsics = self.intrinsics.expand(*batch, 4)
        if self.names is not None and (len(batch) != 1 or len(self.names) != batch[0]):
            raise CameraError("names need a one-dimensional batch of cameras and one name per camera")

    # ---- construction -------------------------------------------------------------------------------------------------

    @classmethod
    def from_fov(cls, camera_to_world: Tensor, fov_y: Tensor | float, aspect: float = 1.0) -> Cameras:
        """Centred cameras from poses [*batch, 4, 4] and a vertical field of view in degrees (scalar or [*batch])."""
        camera_to_world = _floating(torch.as_tensor(camera_to_world))
        fov = torch.as_tensor(fov_y, dtype=camera_to_world.dtype, device=camera_to_world.device)
        fy = (0.5 / torch.tan(torch.deg2rad(fov) / 2)).expand(camera_to_world.shape[:-2])
        half = torch.full_like(fy, 0.5)
        return cls(camera_to_world, torch.stack([fy / aspect, fy, half, half], dim=-1))

    @classmethod
    def orbit(
        cls,
        azimuth: Tensor | Sequence[float] | float,
        elevation: Tensor | Sequence[float] | float = 0.0,
        radius: Tensor | Sequence[float] | float = 1.5,
        fov_y: float = 49.1,
        target: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> Cameras:
        """Cameras around ``target``; angles in degrees. The defaults are LGM's (radius 1.5, fov 49.1 degrees)."""
        return cls.from_fov(orbit_poses(azimuth, elevation, radius, target), fov_y)

    @classmethod
    def turntable(cls, frames: int, elevation: float = 0.0, radius: float = 1.5, fov_y: float = 49.1) -> Cameras:
        """``frames`` cameras once around the object, starting at the front."""
        return cls.orbit(torch.arange(frames, dtype=torch.float64) * (360.0 / frames), elevation, radius, fov_y)

    @classmethod
    def from_arrays(cls, camera_to_world: object, intrinsics: object, size: Size, axes: str = "opengl") -> Cameras:
        """Cameras from plain arrays: poses [N, 4, 4] or [N, 3, 4] and pixel intrinsics [N, 3, 3], [3, 3] or [N, 4].

        ``axes`` names the camera axes of the poses, "opengl" or "opencv". Poses are checked to be rigid.
        """
        from .checks import check_poses

        height, width = as_size(size)
        poses = torch.as_tensor(camera_to_world, dtype=torch.float32)
        if poses.shape[-2:] == (3, 4):
            bottom = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(*poses.shape[:-2], 1, 4)
            poses = torch.cat([poses, bottom], dim=-2)
        poses = check_poses(poses)
        if axes == "opencv":
            poses = opengl_to_opencv(poses)
        elif axes != "opengl":
            raise CameraError(f"axes must be 'opengl' or 'opencv', got {axes!r}")
        k = torch.as_tensor(intrinsics, dtype=torch.float32)
        if k.shape[-2:] == (3, 3):
            k = torch.stack([k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2]], dim=-1)
        return cls(poses, k / torch.tensor([width, height, width, height]))

    # ---- shape and device ---------------------------------------------------------------------------------------------

    @property
    def batch_shape(self) -> torch.Size:
        """Leading shape, e.g. (views,) or (scenes, views)."""
        return self.camera_to_world.shape[:-2]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.camera_to_world.device

    def __len__(self) -> int:
        """Size of the first batch dimension."""
        return self.batch_shape[0]

    def __getitem__(self, index: object) -> Cameras:
        """Index the batch dimensions; names follow a slice or an integer list over one dimension."""
        names = None
        if self.names is not None:
            picked = torch.arange(len(self.names))[index]
            names = tuple(self.names[i] for i in picked.tolist()) if picked.ndim == 1 else None
        return Cameras(self.camera_to_world[index], self.intrinsics[index], names)

    def reshape(self, *batch: int) -> Cameras:
        """The same cameras in another batch shape; names are dropped."""
        return Cameras(self.camera_to_world.reshape(*batch, 4, 4), self.intrinsics.reshape(*batch, 4))

    def to(self, *args: object, **kwargs: object) -> Cameras:
        """As ``Tensor.to`` on every tensor."""
        return Cameras(self.camera_to_world.to(*args, **kwargs), self.intrinsics.to(*args, **kwargs), self.names)

    @staticmethod
    def cat(items: Sequence[Cameras], dim: int = 0) -> Cameras:
        """Concatenate along a batch dimension (names are kept when every part has them and the batch is flat)."""
        names = None
        if dim == 0 and all(c.names is not None for c in items):
            names = tuple(n for c in items for n in c.names)
        return Cameras(
            torch.cat([c.camera_to_world for c in items], dim), torch.cat([c.intrinsics for c in items], dim), names
        )

    # ---- geometry -----------------------------------------------------------------------------------------------------

    @property
    def positions(self) -> Tensor:
        """Camera centres in the world, [*batch, 3]."""
        return self.camera_to_world[..., :3, 3]

    @property
    def fov_y(self) -> Tensor:
        """Vertical field of view in degrees, [*batch]."""
        return torch.rad2deg(2 * torch.atan(0.5 / self.intrinsics[..., 1]))

    def view_matrices(self) -> Tensor:
        """World-to-camera matrices with **OpenCV** axes (x right, y down, z forward), [*batch, 4, 4]: what a rasterizer eats."""
        pose = opengl_to_opencv(self.camera_to_world)
        rotation = pose[..., :3, :3].transpose(-1, -2)
        view = torch.zeros_like(pose)
        view[..., :3, :3] = rotation
        view[..., :3, 3] = -matvec(rotation, pose[..., :3, 3])
        view[..., 3, 3] = 1.0
        return view

    def pixel_intrinsics(self, size: Size) -> Tensor:
        """(fx, fy, cx, cy) in pixels for an image of ``size``, [*batch, 4]."""
        height, width = as_size(size)
        fx, fy, cx, cy = self.intrinsics.unbind(-1)
        return torch.stack([fx * width, fy * height, cx * width, cy * height], dim=-1)

    def rays(self, size: Size) -> tuple[Tensor, Tensor]:
        """Origins and unit directions through every pixel centre, both [*batch, H, W, 3], in the world frame."""
        height, width = as_size(size)
        fx, fy, cx, cy = (x[..., None, None] for x in self.intrinsics.unbind(-1))  # [*batch, 1, 1]
        columns = (torch.arange(width, device=self.device, dtype=self.intrinsics.dtype) + 0.5) / width
        rows = (torch.arange(height, device=self.device, dtype=self.intrinsics.dtype) + 0.5) / height
        x = ((columns - cx) / fx).expand(*self.batch_shape, height, width)
        y = (-(rows[:, None] - cy) / fy).expand(*self.batch_shape, height, width)
        local = torch.stack([x, y, -torch.ones_like(x)], dim=-1)  # [*batch, H, W, 3], OpenGL camera axes
        directions = matvec(self.camera_to_world[..., None, None, :3, :3], local)
        directions = directions * torch.rsqrt((directions * directions).sum(-1, keepdim=True).clamp_min(1e-20))
        return self.positions[..., None, None, :].expand_as(directions), directions

    def plucker(self, size: Size) -> Tensor:
        """Plücker map, channels first: [*batch, 6, H, W] = (moment, unit direction)."""
        return plucker_rays(*self.rays(size)).movedim(-1, -3)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points [*batch, N, 3] -> normalised image positions [*batch, N, 2] (0..1 inside, y down) and depths [*batch, N].

        Depth is the distance along the viewing axis, positive in front. Points at depth 0 give non-finite positions.
        """
        view = self.view_matrices()
        local = matvec(view[..., None, :3, :3], points) + view[..., None, :3, 3]
        depth = local[..., 2]
        focal, centre = self.intrinsics[..., None, :2], self.intrinsics[..., None, 2:]
        return local[..., :2] / depth[..., None] * focal + centre, depth

    def transformed(self, matrix: Tensor) -> Cameras:
        """The same cameras in a world moved by a similarity ``matrix`` [4, 4] or [*batch, 4, 4] (rotation, translation, scale).

        The scale moves the camera centres and leaves the axes of unit length.
        """
        matrix = matrix.to(self.camera_to_world)
        pose = matmul(matrix, self.camera_to_world)
        scale = torch.linalg.det(matrix[..., :3, :3]).abs() ** (1 / 3)
        rotation = pose[..., :3, :3] / scale[..., None, None]
        pose = torch.cat([torch.cat([rotation, pose[..., :3, 3:]], dim=-1), pose[..., 3:, :]], dim=-2)
        return Cameras(pose, self.intrinsics, self.names)
