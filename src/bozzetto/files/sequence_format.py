"""Parts of a ``.4dgs`` file: records, integer streams, and the grids that Gaussians are rounded to.

The 4dgs container (version 1 of its specification, https://4dgs.dev/docs/spec/, Apache-2.0) is a run of length-prefixed
records between two magic numbers. Section numbers in the comments are those of the specification. Nothing here knows
what a sequence is; that is :mod:`bozzetto.files.sequence`.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import SplatFileError
from ..gaussians import SH_C0, Gaussians

MAGIC = b"\x894DGS1\r\n"
HEADER, FOOTER, QUANTIZATION, WINDOWS, CHUNK, SH_BAND, INDEX = 0x01, 0x02, 0x03, 0x04, 0x05, 0x07, 0x08
COORDINATES, STATISTICS, OBJECT_TRACK = 0x20, 0x0C, 0x25
POSITION, SCALE, OMITTED, ROTATION, COLOUR, OPACITY, MOTION, MU, SIGMA, FLAGS, WINDOW = range(11)
CHANNELS = {POSITION: 3, SCALE: 3, ROTATION: 3, COLOUR: 3, MOTION: 3}  # all others have one
RAW, DELTA, CONSTANT = 0, 1, 2
DEFLATE = 0
NEVER_FADES = 1
MOST_BYTES = 1 << 29  # of one decoded stream: a damaged length must not fill the memory
SH_LOW, SH_SPAN = -4.0, 8.0  # what the bytes of a harmonic stand for (6.5)


# ---- bytes --------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    return struct.pack("<I", len(data)) + data


def mapping(entries: dict[str, str]) -> bytes:
    body = b"".join(text(key) + text(value) for key, value in sorted(entries.items()))
    return struct.pack("<I", len(body)) + body


def record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


class Bytes:
    """Reads fields from a record's content; running over its end is a :class:`SplatFileError`."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.at, self.name = memoryview(data), 0, name

    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> memoryview:
        if count > self.left():
            raise SplatFileError(f"{self.name} is damaged: a record ends too early; write or download it again")
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, layout: str) -> tuple:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def text(self) -> str:
        return bytes(self.take(*self.unpack("I"))).decode("utf-8", "replace")

    def mapping(self) -> dict[str, str]:
        block = Bytes(self.take(*self.unpack("I")), self.name)
        entries = {}
        while block.left():
            key = block.text()
            entries[key] = block.text()
        return entries


# ---- streams of integers (5.6) ------------------------------------------------------------------------------------


def encode_stream(attribute: int, bins: np.ndarray) -> bytes:
    """Signed integers [n, channels] as one compressed stream: constant, or the shorter of plain and differences."""
    bins = bins.astype(np.int64)
    count, channels = bins.shape
    if count > 1 and bool((bins == bins[:1]).all()):
        width, body = _pack(bins[0])
        return struct.pack("<BBBBBIQ", attribute, width, CONSTANT, DEFLATE, channels, count, len(body)) + body
    choices = [(RAW, *_pack(bins))]
    if count > 1:
        choices.append((DELTA, *_pack(np.diff(bins, axis=0, prepend=0))))
    mode, width, body = min(choices, key=lambda choice: len(choice[2]))
    return struct.pack("<BBBBBIQ", attribute, width, mode, DEFLATE, channels, count, len(body)) + body


def _pack(bins: np.ndarray) -> tuple[int, bytes]:
    """Zigzag codes, split into planes of bytes, deflated; and the bytes a code."""
    codes = ((bins << 1) ^ (bins >> 63)).reshape(-1)
    top = int(codes.max(initial=0))
    width = 1 if top < 1 << 8 else 2 if top < 1 << 16 else 4
    planes = codes.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T  # [width, symbols]
    return width, zlib.compress(np.ascontiguousarray(planes).tobytes(), 6)


def decode_stream(source: Bytes, count: int) -> tuple[int, np.ndarray | None]:
    """Attribute and its integers [count, channels] (int64); None for an attribute that this reader does not know."""
    attribute, width, mode, codec, channels, elements, length = source.unpack("BBBBBIQ")
    body = source.take(length)
    if attribute > WINDOW:
        return attribute, None
    if codec != DEFLATE:
        raise SplatFileError(f"{source.name} is compressed with another codec than deflate; save it with deflate")
    if width not in (1, 2, 4) or mode > CONSTANT or not channels or elements != count:
        raise SplatFileError(f"{source.name} is damaged: attribute {attribute} has a wrong layout")
    symbols = channels if mode == CONSTANT else elements * channels
    if 8 * elements * channels > MOST_BYTES:
        raise SplatFileError(f"{source.name} is damaged, or larger than this reader takes: {elements} splats a chunk")
    if not elements:
        return attribute, np.zeros((0, channels), np.int64)
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(bytes(body), symbols * width + 1)
    except zlib.error as problem:
        raise SplatFileError(f"{source.name} is damaged ({problem}); write or download it again") from problem
    if len(raw) != symbols * width:
        raise SplatFileError(f"{source.name} is damaged: a stream has {len(raw)} bytes for {symbols * width}")
    planes = np.frombuffer(raw, np.uint8).reshape(width, symbols)
    codes = np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(-1).astype(np.int64)
    bins = ((codes >> 1) ^ -(codes & 1)).reshape(-1, channels)
    if mode == CONSTANT:
        return attribute, np.repeat(bins, elements, axis=0)
    return attribute, np.cumsum(bins, axis=0) if mode == DELTA else bins


# ---- Gaussians on grids (6) ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """What integers stand for: every step is twice the largest error."""

    origin: tuple[float, float, float]
    position: float  # world units
    scale: float = 0.01  # of the logarithm
    rotation: float = 1 / 1024
    colour: float = 1 / 510
    opacity: float = 1 / 510
    motion: float = 1.0
    time: float = 1e-3
    sigma: float = 0.01
    harmonics: int = 1

    def encode(self) -> bytes:
        """Content of the Quantization record (5.3)."""
        bounds = {
            "pos": self.position / 2, "scale_rel": math.expm1(self.scale / 2), "rot": 1.5 * self.rotation,
            "rgb": self.colour / 2, "alpha": self.opacity / 2, "motion": self.motion / 2, "time": self.time / 2,
            "sigma_rel": math.expm1(self.sigma / 2), "sh": 0.0,
        }  # fmt: skip
        steps = (
            self.position,
            self.scale,
            self.rotation,
            self.colour,
            self.opacity,
            self.motion,
            self.time,
            self.sigma,
        )
        declared = mapping({key: repr(value) for key, value in bounds.items()})
        return text("uniform-v1") + struct.pack("<11dB", *self.origin, *steps, self.harmonics) + declared

    @classmethod
    def decode(cls, source: Bytes) -> Grid:
        scheme = source.text()
        if scheme != "uniform-v1":
            raise SplatFileError(f"{source.name} uses the unknown quantisation {scheme!r}")
        values = source.unpack("11dB")
        if not all(math.isfinite(v) for v in values):
            raise SplatFileError(f"{source.name} is damaged: its quantisation is not finite")
        return cls(values[:3], *values[3:])


def encode_chunk(gaussians: Gaussians, grid: Grid, window: int, span: tuple[float, float]) -> list[bytes]:
    """Unbatched, finite Gaussians that exist, still, during ``span`` (seconds): a chunk record and one a band of SH."""
    n = len(gaussians)
    means, scales, opacities = (t.double().numpy() for t in (gaussians.means, gaussians.scales, gaussians.opacities))
    omitted, rest = _smallest_three(gaussians.quats.double().numpy())
    green_first = _round(gaussians.rgb.double().clamp(0, 1).numpy(), grid.colour)[:, [1, 0, 2]]
    green_first[:, 1:] -= green_first[:, :1]  # g, r - g, b - g
    nothing = np.zeros((n, 1), np.int64)
    bins = {
        POSITION: np.clip(_round(means - np.array(grid.origin), grid.position), -(1 << 29), 1 << 29),
        SCALE: _round(np.log(np.clip(scales, 1e-9, 1e9)), grid.scale),
        OMITTED: omitted[:, None],
        ROTATION: _round(rest, grid.rotation),
        COLOUR: green_first,
        OPACITY: _round(opacities.clip(0, 1), grid.opacity)[:, None],
        MOTION: np.zeros((n, 3), np.int64),
        MU: nothing,
        SIGMA: nothing,
        FLAGS: nothing + NEVER_FADES,
        WINDOW: nothing + window,
    }
    streams = b"".join(encode_stream(attribute, values) for attribute, values in bins.items())
    head = struct.pack("<ddII", *span, 0, n) + text("") + struct.pack("<QQ", len(streams), len(streams))
    records = [record(CHUNK, head + streams)]
    rest = gaussians.sh[:, 1:].numpy()  # [N, K - 1, 3]
    for band in range(1, gaussians.sh_degree + 1):
        values = rest[:, band * band - 1 : (band + 1) ** 2 - 1].transpose(0, 2, 1).reshape(n, 3 * (2 * band + 1))
        codes = np.rint((values.clip(SH_LOW, SH_LOW + SH_SPAN) - SH_LOW) * (255 / SH_SPAN))
        records.append(record(SH_BAND, struct.pack("<B", band) + encode_stream(SH_BAND, codes)))
    return records


def _round(values: np.ndarray, step: float) -> np.ndarray:
    return np.rint(values / step).astype(np.int64)


def _smallest_three(wxyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index [N] of the largest component of quaternions x, y, z, w and the other three [N, 3], its sign made positive."""
    length = np.linalg.norm(wxyz, axis=1, keepdims=True)
    unit = np.where(length > 1e-12, wxyz / np.maximum(length, 1e-12), [1.0, 0.0, 0.0, 0.0])[:, [1, 2, 3, 0]]
    largest = np.abs(unit).argmax(axis=1)
    unit = unit * np.where(np.take_along_axis(unit, largest[:, None], 1) < 0, -1.0, 1.0)
    return largest, unit[np.arange(4) != largest[:, None]].reshape(-1, 3)


def decode_chunk(source: Bytes) -> dict[int, np.ndarray]:
    """The integers of a chunk record's content, by attribute."""
    *_, count = source.unpack("ddII")
    compression = source.text()
    _, length = source.unpack("QQ")
    data = source.take(length)
    if compression == "deflate":
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(bytes(data), MOST_BYTES)
        except zlib.error as problem:
            raise SplatFileError(f"{source.name} is damaged ({problem}); write or download it again") from problem
    elif compression:
        raise SplatFileError(f"{source.name} is compressed with {compression!r}; save it with deflate")
    streams, bins = Bytes(data, source.name), {}
    while streams.left():
        attribute, values = decode_stream(streams, count)
        if values is not None:
            bins[attribute] = values
    for attribute in range(WINDOW + 1):
        values = bins.get(attribute)
        if values is None or values.shape[1] != CHANNELS.get(attribute, 1):
            raise SplatFileError(f"{source.name} is damaged: a chunk has no usable attribute {attribute}")
    if count and not 0 <= bins[OMITTED].min() <= bins[OMITTED].max() <= 3:
        raise SplatFileError(f"{source.name} is damaged: a rotation names a component that does not exist")
    return bins


def gaussians_at(
    bins: dict[int, np.ndarray], bands: list[np.ndarray], grid: Grid, windows: np.ndarray, cutoff: float, t: float
) -> Gaussians:
    """The Gaussians of one chunk that are visible at time ``t`` (section 3), with what moves them moved."""
    lows, highs = windows[bins[WINDOW][:, 0]].T  # seconds, [N] each
    steady = (bins[FLAGS][:, 0] & NEVER_FADES).astype(bool)
    sigma = np.where(steady, np.inf, np.exp(np.clip(bins[SIGMA][:, 0] * grid.sigma, -700, 700)))
    reach = math.sqrt(-2 * math.log(cutoff))
    # Pitches that depend on how long a splat is seen (6.3).
    half = np.clip(np.where(steady, highs - lows, reach * sigma), 0.02, 2.0)
    motion_step = grid.motion * 2.0 ** -np.clip(np.ceil(np.log2(half / 0.5)), -4, 2)
    fine = np.maximum(np.where(steady, grid.time, np.minimum(grid.time, 0.05 * sigma)), 1e-300)
    mu = bins[MU][:, 0] * grid.time * 2.0 ** np.clip(np.floor(np.log2(fine / grid.time)), -10, 0)
    fade = np.where(steady, 1.0, np.exp(-0.5 * ((t - mu) / sigma) ** 2))
    alive = (lows <= t) & (t < highs) & (fade >= cutoff)

    pick = {attribute: values[alive] for attribute, values in bins.items()}
    velocity = pick[MOTION] * motion_step[alive, None]
    means = pick[POSITION] * grid.position + np.array(grid.origin) + velocity * (t - mu[alive])[:, None]
    stored = np.clip(pick[ROTATION] * grid.rotation, -1, 1)
    omitted = pick[OMITTED]  # [N, 1]
    xyzw = np.empty((len(stored), 4))
    xyzw[np.arange(4) != omitted] = stored.reshape(-1)
    np.put_along_axis(xyzw, omitted, np.sqrt(np.maximum(0, 1 - (stored**2).sum(1, keepdims=True))), 1)
    colour = pick[COLOUR].copy()
    colour[:, 1:] += colour[:, :1]
    sh = ((colour[:, [1, 0, 2]] * grid.colour - 0.5) / SH_C0)[:, None]  # [N, 1, 3]
    for codes in bands:  # [N, 3 (2 band + 1)] each
        values = SH_LOW + codes[alive] * (SH_SPAN / 255)
        sh = np.concatenate([sh, values.reshape(len(sh), 3, -1).transpose(0, 2, 1)], axis=1)
    opacities = pick[OPACITY][:, 0] * grid.opacity * fade[alive]
    scales = np.exp(np.clip(pick[SCALE] * grid.scale, -80, 80))
    parts = (means, scales, xyzw[:, [3, 0, 1, 2]], opacities.clip(0, 1), sh)
    return Gaussians(*(torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in parts))
