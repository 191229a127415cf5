"""Frames → a film that browsers play: H.264 in MP4, or an animated WebP or GIF, or a folder of PNGs.

Colours: frames are sRGB; the MP4 holds BT.709 limited-range YUV 4:2:0 and is tagged so. The index stands at the front
of the file ("fast start"), so that a browser plays it while it loads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from fractions import Fraction
from itertools import chain, pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, MissingDependencyError, OutputError
from .atomic import atomic_path, output_folder
from .images import to_uint8, write_image

if TYPE_CHECKING:
    import av

# Tried in this order; a hardware encoder is used only if it opens. libx264 is in every wheel of PyAV so far.
ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf", "h264_nvenc", "h264_qsv", "h264_amf")
SUFFIXES = (".mp4", ".webp", ".gif")
WEBP_QUALITY = 85
DEFAULT_CRF = 18  # visually lossless for most material; about 1 MB for 180 frames of 512 x 512 of an object on white


def write_film(
    path: str | PathLike[str], frames: Iterable[Tensor], fps: float | Fraction = 30, *, crf: int | None = None
) -> None:
    """Write ``frames`` as a film, atomically; the format follows the suffix of ``path``.

    Args:
        path: ``.mp4`` (H.264), ``.webp`` or ``.gif`` (animated, looping), or a name without suffix: a folder of
            ``frame_00000.png``, ...
        frames: [H, W, 3] float tensors, sRGB 0..1 (clipped; NaN is black), all of one size. MP4 and PNG take them one
            by one and never hold more than one; WebP and GIF hold them all as 8-bit pictures. An odd width or height of
            an MP4 is padded by repeating the last column or row, because 4:2:0 needs even ones.
        fps: frames per second. GIF counts in hundredths of a second, so a frame's duration varies by one of them.
        crf: H.264's constant rate factor, 0 (best) to 51; lower is better and larger. MP4 only; 18 by default. An
            encoder without such a mode gets a bit rate of about the same quality.

    Raises:
        InputError: no frames, or frames of a wrong or varying shape.
        OutputError: an unknown suffix, or the file cannot be written.
        MissingDependencyError: this build of PyAV has no H.264 encoder that works here.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise ValueError(f"fps must be positive, got {fps}")
    if crf is not None and (suffix != ".mp4" or not 0 <= crf <= 51):
        raise ValueError(f"crf is for .mp4 films and lies in 0..51, got {crf} for {path.name}")
    if suffix == ".mp4":
        _write_mp4(path, _checked(frames), rate, DEFAULT_CRF if crf is None else crf)
    elif suffix in (".webp", ".gif"):
        _write_animation(path, _checked(frames), rate)
    elif not suffix:
        with output_folder(path) as folder:
            for i, frame in enumerate(_checked(frames)):
                write_image(folder / f"frame_{i:05d}.png", frame)
    else:
        raise OutputError(f"cannot write {path}: a film's name must end in {', '.join(SUFFIXES)} (or have no suffix)")


def _checked(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same frames; raises at a wrong shape, and at the end if there were none."""
    shape = None
    for i, frame in enumerate(frames):
        if frame.ndim != 3 or frame.shape[-1] != 3 or 0 in frame.shape:
            raise InputError(f"a film needs frames [H, W, 3], frame {i} is {tuple(frame.shape)}")
        if shape is not None and frame.shape != shape:
            raise InputError(f"frame {i} is {tuple(frame.shape)}, the ones before are {tuple(shape)}; use one size")
        shape = frame.shape
        yield frame
    if shape is None:
        raise InputError("a film needs at least one frame, got none")


def _ahead(frames: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same frames, the next one being made in another thread while one is used: drawing and encoding go on together.

    Close it when it is not read to its end: the other thread then ends with the frame that it is at.
    """
    # What holds for one thread alone: autograd's modes, and CUDA's stream (and device) on which frames are drawn and read.
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None

    def make() -> Tensor | None:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients), torch.cuda.stream(stream):
            return next(frames, None)

    with ThreadPoolExecutor(1) as other:
        coming = other.submit(make)
        while (frame := coming.result()) is not None:
            coming = other.submit(make)
            yield frame


# ---- MP4 ----------------------------------------------------------------------------------------------------------


def _write_mp4(path: Path, frames: Iterator[Tensor], rate: Fraction, crf: int) -> None:
    import av

    first = next(frames)  # before the file is opened: no frames, no file
    height, width = (n + n % 2 for n in first.shape[:2])
    encoder = _find_encoder(width, height, rate, crf)
    with atomic_path(path) as temporary:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream(encoder, rate=rate)
            _configure(stream.codec_context, width, height, rate, crf)
            with closing(_ahead(frames)) as others:
                for i, frame in enumerate(chain([first], others)):
                    picture = av.VideoFrame.from_ndarray(rgb_to_yuv420(frame), format="yuv420p")
                    picture.pts, picture.time_base = i, 1 / rate
                    picture.colorspace, picture.color_range = 1, 1  # BT.709, limited
                    container.mux(stream.encode(picture))
            container.mux(stream.encode())


def _configure(context: av.VideoCodecContext, width: int, height: int, rate: Fraction, crf: int) -> None:
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.framerate, context.time_base = rate, 1 / rate
    # Numbers of ITU-T H.273: 1 is BT.709; range 1 is limited (16..235).
    context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1
    if context.name == "libx264":
        context.options = {"crf": str(crf), "preset": "medium", "profile": "high"}
    else:  # every 6 steps of the rate factor halve the bit rate; 0.25 bits a pixel is about rate factor 18
        context.bit_rate = max(100_000, round(width * height * float(rate) * 0.25 * 2 ** ((18 - crf) / 6)))


def _find_encoder(width: int, height: int, rate: Fraction, crf: int) -> str:
    """The first H.264 encoder that opens for this picture size."""
    import av

    reasons = []
    for name in ENCODERS:
        try:
            context = av.CodecContext.create(name, "w")
            _configure(context, width, height, rate, crf)
            context.open()
        except (av.FFmpegError, ValueError, OSError) as error:  # an unknown name is a ValueError
            reasons.append(f"{name}: {error}")
        else:
            return name
    raise MissingDependencyError(
        f"no H.264 encoder works for {width}x{height} in this build of PyAV {av.__version__}. Install PyAV's own wheel "
        f"(pip install --force-reinstall av), or write a .webp film instead. Tried {'; '.join(reasons)}"
    )


def rgb_to_yuv420(frame: Tensor) -> np.ndarray:
    """[H, W, 3] sRGB 0..1 -> planar 8-bit BT.709 limited-range YUV 4:2:0, [H' * 3 / 2, W'] with H', W' made even.

    Luma and chroma weights of ITU-R BT.709; chroma is the mean of each 2 x 2 block.
    """
    rgb = torch.nan_to_num(frame.detach().float(), nan=0.0).clamp(0, 1).permute(2, 0, 1).cpu()  # [3, H, W]
    height, width = rgb.shape[1:]
    rgb = F.pad(rgb[None], (0, width % 2, 0, height % 2), mode="replicate")[0]
    height, width = rgb.shape[1:]
    kr, kb = 0.2126, 0.0722
    luma = kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]
    u = (rgb[2] - luma) / (2 * (1 - kb))  # -0.5..0.5
    v = (rgb[0] - luma) / (2 * (1 - kr))
    chroma = F.avg_pool2d(torch.stack([u, v])[None], 2)[0]  # [2, H/2, W/2]
    planes = torch.cat([(16 + 219 * luma).flatten(), (128 + 224 * chroma).flatten()])
    return planes.round().to(torch.uint8).reshape(height * 3 // 2, width).numpy()  # Y rows, then U, then V


# ---- animated pictures --------------------------------------------------------------------------------------------


def _write_animation(path: Path, frames: Iterator[Tensor], rate: Fraction) -> None:
    from PIL import Image

    gif = path.suffix.lower() == ".gif"
    pictures = []
    for frame in frames:
        picture = Image.fromarray(to_uint8(frame))
        # Per-frame palettes; dithering hides the bands that 256 colours would leave in smooth shading.
        pictures.append(picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG) if gif else picture)
    tick = 10 if gif else 1  # milliseconds
    ends = [round(Fraction(1000 * i, tick) / rate) * tick for i in range(len(pictures) + 1)]
    durations = [max(tick, b - a) for a, b in pairwise(ends)]
    options = {} if gif else {"quality": WEBP_QUALITY, "method": 4}
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary,
            format="GIF" if gif else "WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=durations,
            loop=0,
            **options,
        )
