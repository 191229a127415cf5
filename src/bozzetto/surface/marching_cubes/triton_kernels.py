"""Marching cubes on the GPU: Triton kernels over words of 32 signs (see :mod:`.words`).

Five launches a slab. ``sign_kernel`` is the only one that reads all samples: a program owns BLOCK words, reads 32 floats for
each and sums their signs to a word. ``count_kernel`` and ``list_kernel`` see the slab as 32 times fewer words: a program owns
BLOCK consecutive words of a plane, finds crossings by exclusive-or, and only where there are some unfolds them to [BLOCK, 32]
points. The first counts (crossings before each word of the block, and the block's totals, whose prefix sums number
everything); the second writes compact lists of crossed edges and of cubes. ``place_kernel`` and ``face_kernel`` own one edge
and one cube a lane, so that no lane idles on empty space. No kernel synchronises beyond its own program; there is one atomic
addition, for NaN.

Plane 0 of the packed arrays is the last one of the slab before; plane p holds sample plane p - 1 of the slab, or a lid.
"""

from __future__ import annotations

import triton
import triton.language as tl

BITS = tl.constexpr(32)
STRIDE = tl.constexpr(16)  # entries of a case in the table of triangles
LARGEST = tl.constexpr(1e30)


@triton.jit
def _ones(word):
    """Number of set bits of uint32."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def _word(signs, at, mask):
    """The words at ``at``, and the signs one step further along z."""
    here = tl.load(signs + at, mask=mask, other=0).to(tl.uint32, bitcast=True)
    after = tl.load(signs + at + 1, mask=mask, other=0).to(tl.uint32, bitcast=True)
    return here, (here >> 1) | (after << 31)


@triton.jit
def _along_z(w, bits):
    """The points of words that have a neighbour along z."""
    left = tl.minimum(bits - 1 - w * BITS, BITS)
    every = tl.full(w.shape, 0xFFFFFFFF, tl.uint32) >> tl.minimum(BITS - left, BITS - 1).to(tl.uint32)
    return tl.where(left > 0, every, 0)


@triton.jit
def _earlier(bit):
    """The bits before ``bit``."""
    return (tl.full(bit.shape, 1, tl.uint32) << bit.to(tl.uint32)) - 1


@triton.jit
def _bit(word, bit):
    return ((word >> bit.to(tl.uint32)) & 1).to(tl.int32)


@triton.jit
def _case(a, az, b, bz, c, cz, d, dz, bit):
    """Which corners of a cube are inside; the rows are (x, y) = a (0, 0), b (1, 0), c (0, 1), d (1, 1)."""
    low = _bit(a, bit) | _bit(b, bit) << 1 | _bit(c, bit) << 2 | _bit(d, bit) << 3
    return low | _bit(az, bit) << 4 | _bit(bz, bit) << 5 | _bit(cz, bit) << 6 | _bit(dz, bit) << 7


@triton.jit
def _rows(signs, plane, i, live, back, rows, words, bits):
    """The four rows of words around words ``i`` of a plane, the crossings (to this plane, along y, along z), and the cubes."""
    y = i // words
    w = i - y * words
    at = (plane * rows + y) * (words + 1) + w
    below = (plane * rows + tl.minimum(y + 1, rows - 1)) * (words + 1) + w
    b, bz = _word(signs, at, live)
    d, dz = _word(signs, below, live)
    a, az = _word(signs, at - rows * (words + 1), live & back)
    c, cz = _word(signs, below - rows * (words + 1), live & back)
    along = _along_z(w, bits)
    mixed = (a | az | b | bz | c | cz | d | dz) ^ (a & az & b & bz & c & cz & d & dz)
    ahead = tl.where(back, a ^ b, 0)
    cubes = tl.where(back & (y + 1 < rows), mixed & along, 0)
    return a, az, b, bz, c, cz, d, dz, ahead, b ^ d, (b ^ bz) & along, cubes


@triton.jit(do_not_specialize=["level", "total", "rows", "words", "row0", "word0"])
def sign_kernel(samples, signs, nans, level, total, Y, Z, rows, words, row0, word0, BLOCK: tl.constexpr):
    """Signs of samples [n, Y, Z] into signs [n + 1.., rows, words + 1] from plane 1 on. One program: BLOCK words with samples."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    filled = tl.cdiv(Z, BITS)
    row = i // filled
    w = i - row * filled
    plane = row // Y
    y = row - plane * Y
    bit = tl.arange(0, BITS)
    z = w[:, None] * BITS + bit[None, :]
    mask = (i < total)[:, None] & (z < Z)
    value = tl.load(samples + row[:, None].to(tl.int64) * Z + z, mask=mask, other=0).to(tl.float32)
    inside = (value > level) & mask
    word = tl.sum(inside.to(tl.uint32) << bit[None, :].to(tl.uint32), axis=1)
    at = ((plane + 1) * rows + y + row0) * (words + 1) + w + word0
    tl.store(signs + at, word.to(tl.int32, bitcast=True), mask=i < total)
    missing = tl.sum(tl.sum(((value != value) & mask).to(tl.int32), axis=1), axis=0)
    if missing > 0:
        tl.atomic_add(nans, missing.to(tl.int64))


@triton.jit(do_not_specialize=["open", "planes", "rows", "words", "bits"])
def count_kernel(
    signs, table, before, totals, open, planes, rows, words, bits,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Count crossings, cubes and triangles. One program: BLOCK words of one plane, from plane 1 on.

    open: whether nothing lies before plane 1. before: [P, rows * words], crossings before a word in its block: to its plane << 16
    | within it. totals: [P, 2, blocks] of the same, then [P, blocks] cubes between the plane before and this one, then
    [P, blocks] triangles.
    """
    blocks = tl.cdiv(rows * words, BLOCK)
    plane = tl.program_id(0) // blocks + 1
    block = tl.program_id(0) % blocks
    i = block * BLOCK + tl.arange(0, BLOCK)
    live = i < rows * words
    back = (plane > 1) | (open == 0)
    a, az, b, bz, c, cz, d, dz, ahead, across, along, cubes = _rows(
        signs, plane, i, live, back, rows, words, bits
    )  # fmt: skip
    crossings = (_ones(ahead) << 16) | (_ones(across) + _ones(along))
    tl.store(before + plane * rows * words + i, tl.cumsum(crossings, axis=0) - crossings, mask=live)
    crossings = tl.sum(crossings, axis=0)
    tl.store(totals + plane * 2 * blocks + block, crossings >> 16)
    tl.store(totals + (plane * 2 + 1) * blocks + block, crossings & 0xFFFF)
    active = tl.sum(_ones(cubes), axis=0)
    if active > 0:
        bit = tl.arange(0, BITS)[None, :]
        case = _case(
            a[:, None], az[:, None], b[:, None], bz[:, None], c[:, None], cz[:, None], d[:, None], dz[:, None], bit
        )
        triangles = tl.load(table + case * STRIDE + (STRIDE - 1), mask=_bit(cubes[:, None], bit) == 1, other=0)
        tl.store(totals + (planes * 2 + plane) * blocks + block, active)
        triangles = tl.sum(tl.sum(triangles.to(tl.int32), axis=1), axis=0)
        tl.store(totals + (planes * 3 + plane) * blocks + block, triangles)


@triton.jit(do_not_specialize=["open", "planes", "new", "active", "rows", "words", "bits"])
def list_kernel(
    signs, table, before, totals, base, edges, cubes_out, starts, open, planes, new, active, rows, words, bits,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """List the crossed edges (4 * point + axis; along x: the edge that ends there), cubes (the point at their (1, 0, 0)) and
    the first face of each cube. One program: BLOCK words of one plane, as in ``count_kernel``.

    A point is a bit of the packed arrays. base: the sums of all totals before each, [P, 2, blocks] + [2, P, blocks]; ``new`` of
    them are crossings, ``active`` more are cubes.
    """
    blocks = tl.cdiv(rows * words, BLOCK)
    plane = tl.program_id(0) // blocks + 1
    block = tl.program_id(0) % blocks
    i = block * BLOCK + tl.arange(0, BLOCK)
    live = i < rows * words
    at = plane * 2 * blocks + block
    cell = (planes * 2 + plane) * blocks + block
    busy = tl.load(totals + at) + tl.load(totals + at + blocks) + tl.load(totals + cell)
    if busy > 0:
        back = (plane > 1) | (open == 0)
        a, az, b, bz, c, cz, d, dz, ahead, across, along, cubes = _rows(
            signs, plane, i, live, back, rows, words, bits
        )  # fmt: skip
        bit = tl.arange(0, BITS)[None, :]
        earlier = _earlier(bit)
        point = ((plane * rows).to(tl.int64) * words + i)[:, None] * BITS + bit
        crossings = tl.load(before + plane * rows * words + i, mask=live, other=0)
        first = (tl.load(base + at) + (crossings >> 16))[:, None]
        rank = _ones(ahead[:, None] & earlier)
        tl.store(edges + first + rank, point * 4, mask=_bit(ahead[:, None], bit) == 1)
        first = (tl.load(base + at + blocks) + (crossings & 0xFFFF))[:, None]
        rank = _ones(across[:, None] & earlier) + _ones(along[:, None] & earlier)
        met = _bit(across[:, None], bit)
        tl.store(edges + first + rank, point * 4 + 1, mask=met == 1)
        tl.store(edges + first + rank + met, point * 4 + 2, mask=_bit(along[:, None], bit) == 1)

        found = _bit(cubes[:, None], bit) == 1
        case = _case(
            a[:, None], az[:, None], b[:, None], bz[:, None], c[:, None], cz[:, None], d[:, None], dz[:, None], bit
        )
        count = tl.load(table + case * STRIDE + (STRIDE - 1), mask=found, other=0).to(tl.int32)
        of_word = tl.sum(count, axis=1)
        face = (tl.cumsum(of_word, axis=0) - of_word)[:, None] + tl.cumsum(count, axis=1) - count
        of_word = _ones(cubes)
        slot = (tl.cumsum(of_word, axis=0) - of_word)[:, None] + _ones(cubes[:, None] & earlier)
        slot += tl.load(base + cell) - new
        face += tl.load(base + cell + planes * blocks) - new - active
        tl.store(cubes_out + slot, point, mask=found)
        tl.store(starts + slot, face, mask=found)


@triton.jit
def _sample(samples, previous, plane, y, z, mask, n, has_previous, Y, Z):
    """Samples of planes of the packed arrays, clamped; NaN beyond the grid."""
    exists = mask & (y >= 0) & (y < Y) & (z >= 0) & (z < Z)
    old = exists & (plane == 0) & (has_previous != 0)
    new = exists & (plane > 0) & (plane <= n)
    at = y.to(tl.int64) * Z + z
    value = tl.load(samples + (plane - 1).to(tl.int64) * Y * Z + at, mask=new, other=float("nan")).to(tl.float32)
    before = tl.load(previous + at, mask=old, other=float("nan")).to(tl.float32)
    value = tl.where(old, before, value)
    return tl.where(value == value, tl.minimum(tl.maximum(value, -LARGEST), LARGEST), value)


@triton.jit(
    do_not_specialize=["level", "total", "n", "x", "has_previous", "X", "Y", "Z", "rows", "words", "row0", "bit0"],
    do_not_specialize_on_alignment=["samples", "previous"],
)
def place_kernel(
    edges, samples, previous, vertices, axes, level, total, n, x, has_previous, X, Y, Z, rows, words, row0, bit0,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Vertices [V, 3] and the axes of their edges [V] from the list of edges. One lane: one vertex.

    x: position of plane 0 of the packed arrays. n: planes of ``samples``.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < total
    edge = tl.load(edges + i, mask=mask, other=0)
    axis = (edge & 3).to(tl.int32)
    row = (edge >> 2) // (words * BITS)
    z = ((edge >> 2) - row * (words * BITS)).to(tl.int32) - bit0
    plane = (row // rows).to(tl.int32)
    y = (row - plane.to(tl.int64) * rows).to(tl.int32) - row0
    ahead, across, along = (axis == 0).to(tl.int32), (axis == 1).to(tl.int32), (axis == 2).to(tl.int32)
    plane -= ahead
    a = _sample(samples, previous, plane, y, z, mask, n, has_previous, Y, Z)
    b = _sample(samples, previous, plane + ahead, y + across, z + along, mask, n, has_previous, Y, Z)
    share = tl.math.div_rn(level - a, b - a)
    share = tl.where(share == share, tl.minimum(tl.maximum(share, 0.0), 1.0), 0.5)
    px = (x + plane).to(tl.float32) + tl.where(axis == 0, share, 0.0)
    py = y.to(tl.float32) + tl.where(axis == 1, share, 0.0)
    pz = z.to(tl.float32) + tl.where(axis == 2, share, 0.0)
    tl.store(vertices + i * 3, tl.minimum(tl.maximum(px, 0.0), (X - 1).to(tl.float32)), mask=mask)
    tl.store(vertices + i * 3 + 1, tl.minimum(tl.maximum(py, 0.0), (Y - 1).to(tl.float32)), mask=mask)
    tl.store(vertices + i * 3 + 2, tl.minimum(tl.maximum(pz, 0.0), (Z - 1).to(tl.float32)), mask=mask)
    tl.store(axes + i, axis.to(tl.uint8), mask=mask)


@triton.jit
def _number(signs, before, base, plane, y, point, axis, ahead, mask, rows, words, bits, blocks, BLOCK: tl.constexpr):
    """Numbers of the vertices on edges along ``axis`` from a point (bit ``point`` of row y) of the plane or the one before."""
    w = point // BITS
    bit = point - w * BITS
    earlier = _earlier(bit)
    plane = tl.where(axis == 0, plane, plane - 1 + ahead)
    i = y * words + w
    at = (plane * rows + y) * (words + 1) + w
    # Along x the other end of a word's edges is in the plane before, along y in the next row.
    other = tl.where(axis == 0, at - rows * (words + 1), at + tl.where(y + 1 < rows, words + 1, 0))
    b, bz = _word(signs, at, mask)
    crossed = b ^ tl.load(signs + other, mask=mask, other=0).to(tl.uint32, bitcast=True)
    along = tl.where(axis == 0, 0, (b ^ bz) & _along_z(w, bits))
    rank = _ones(crossed & earlier) + _ones(along & earlier) + tl.where(axis == 2, _bit(crossed, bit), 0)
    crossings = tl.load(before + plane * rows * words + i, mask=mask, other=0)
    crossings = tl.where(axis == 0, crossings >> 16, crossings & 0xFFFF)
    kind = tl.where(axis == 0, 0, 1)
    return tl.load(base + (plane * 2 + kind) * blocks + i // BLOCK, mask=mask, other=0) + crossings + rank


@triton.jit(do_not_specialize=["total", "origin", "rows", "words", "bits"])
def face_kernel(
    cubes, starts, signs, table, before, base, faces, total, origin, rows, words, bits,
    BLOCK: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Faces [F, 3] from the list of cubes. One lane: one cube. BLOCK is that of ``count_kernel``.

    origin: the number of the slab's first vertex.
    """
    i = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    mask = i < total
    point = tl.load(cubes + i, mask=mask, other=0)
    start = tl.load(starts + i, mask=mask, other=0)
    blocks = tl.cdiv(rows * words, BLOCK)
    row = point // (words * BITS)
    point = (point - row * (words * BITS)).to(tl.int32)
    plane = (row // rows).to(tl.int32)
    y = (row - plane.to(tl.int64) * rows).to(tl.int32)
    w = point // BITS
    at = (plane * rows + y) * (words + 1) + w
    b, bz = _word(signs, at, mask)
    d, dz = _word(signs, at + words + 1, mask)
    a, az = _word(signs, at - rows * (words + 1), mask)
    c, cz = _word(signs, at + words + 1 - rows * (words + 1), mask)
    case = _case(a, az, b, bz, c, cz, d, dz, point - w * BITS)
    count = tl.load(table + case * STRIDE + (STRIDE - 1), mask=mask, other=0).to(tl.int32)
    most = tl.max(count, axis=0) * 3
    corner = most * 0
    while corner < most:
        live = corner < count * 3
        edge = tl.load(table + case * STRIDE + corner, mask=live, other=0).to(tl.int32)
        number = _number(
            signs, before, base, plane, y + ((edge >> 3) & 1), point + ((edge >> 4) & 1), edge & 3, (edge >> 2) & 1, live,
            rows, words, bits, blocks, BLOCK,
        )  # fmt: skip
        tl.store(faces + start * 3 + corner, number + origin, mask=live)
        corner += 1
