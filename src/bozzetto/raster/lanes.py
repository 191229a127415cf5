"""Sixteen pixels at a time: vector arithmetic for numba kernels that does not depend on an auto-vectoriser.

:class:`Emitter` writes LLVM instructions on 16 float32 lanes (one AVX-512 register, two of AVX2, four of NEON or SSE).
The lanes are a block of 4 x 4 pixels, lane = 4 row + column. Kernels use it inside ``numba.extending.intrinsic``.

A splat is a record of 16 float32 (one cache line), see the constants below.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

from .reference import MAX_ALPHA, MIN_ALPHA

LANES = 16
SIDE = 4  # a block is SIDE x SIDE pixels
TILE = 16  # a tile is TILE x TILE pixels
TILE_BLOCKS = TILE // SIDE  # along each side

# Fields of a splat record. Centre = whole part + fraction, so that offsets stay exact in large pictures. The falloff is
# 2^-((SKEW_X dx + SKEW_Y dy)^2 + (TALL dy)^2), a triangular root of the inverse covariance: needles lose half as many
# digits as in the expanded square. The ellipse alpha >= 1/255 reaches HALF_X and HALF_Y from the centre and has the
# correlation SLANT = cos a, SLANT_SINE = sin a; these are a little larger against rounding.
X_WHOLE, X_PART, Y_WHOLE, Y_PART, SKEW_X, SKEW_Y, TALL, OPACITY = range(8)
RED, GREEN, BLUE, DEPTH, HALF_X, HALF_Y, SLANT, SLANT_SINE = range(8, 16)
RECORD = 16

FLOAT = ir.FloatType()
INT = ir.IntType(32)
LONG = ir.IntType(64)
FLOATS = ir.VectorType(FLOAT, LANES)
INTS = ir.VectorType(INT, LANES)
BITS = ir.VectorType(ir.IntType(1), LANES)
MASK = ir.IntType(LANES)

# 2^f on [-0.5, 0.5], minimax in relative error (8e-8 before rounding), lowest power first.
_EXP2 = (1.0000001, 0.69314694, 0.24022120, 0.055507135, 0.009675541, 0.0013276470)


class Emitter:
    """Arithmetic on 16 lanes, written into ``builder``. ``fused`` operations round once where the processor can."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    # ---- values ------------------------------------------------------------------------------------------------------

    def constant(self, value: float | list[float]) -> ir.Constant:
        values = value if isinstance(value, list) else [value] * LANES
        return ir.Constant(FLOATS, [ir.Constant(FLOAT, v) for v in values])

    def number(self, value: int) -> ir.Constant:
        """An int64 scalar."""
        return ir.Constant(LONG, value)

    def integer(self, value: int) -> ir.Constant:
        return ir.Constant(INTS, [ir.Constant(INT, value)] * LANES)

    def spread(self, scalar: ir.Value) -> ir.Value:
        """A scalar (float32 or int32) in every lane."""
        kind = FLOATS if scalar.type == FLOAT else INTS
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(INT, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(INTS, [ir.Constant(INT, 0)] * LANES))

    def load(self, pointer: ir.Value, index: int, kind: ir.Type = FLOATS) -> ir.Value:
        """Lanes at ``pointer`` (float*) + ``index``."""
        return self.builder.load(self._at(pointer, index, kind), align=4)

    def store(self, value: ir.Value, pointer: ir.Value, index: int) -> None:
        self.builder.store(value, self._at(pointer, index, value.type), align=4)

    def _at(self, pointer: ir.Value, index: int, kind: ir.Type) -> ir.Value:
        place = self.builder.gep(pointer, [self.number(index)])
        return self.builder.bitcast(place, kind.as_pointer())

    def field(self, record: ir.Value, index: int) -> ir.Value:
        """One float32 of a splat record."""
        return self.builder.load(self.builder.gep(record, [self.number(index)]))

    # ---- arithmetic --------------------------------------------------------------------------------------------------

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fadd(a, b)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fsub(a, b)

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fmul(a, b)

    def div(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fdiv(a, b)

    def fused(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c."""
        kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
        return self.builder.call(function, [a, b, c])

    def less(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a < b, false where either is NaN."""
        return self.builder.fcmp_ordered("<", a, b)

    def at_least(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fcmp_ordered(">=", a, b)

    def both(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.and_(a, b)

    def choose(self, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.select(condition, a, b)

    def smaller(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.choose(self.less(a, b), a, b)

    def larger(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.choose(self.less(b, a), a, b)

    def any(self, condition: ir.Value) -> ir.Value:
        return self.builder.icmp_unsigned("!=", self.builder.bitcast(condition, MASK), ir.Constant(MASK, 0))

    def totals(self, values: list[ir.Value]) -> ir.Value:
        """Sums over the lanes of up to 16 vectors, one per lane of the result, in their order.

        Vectors are merged in pairs: every merge halves the lanes that each sum is still spread over.
        """
        zero = self.constant(0.0)
        group = LANES
        while group > 1:
            group //= 2
            low = [start + i for start in range(0, 2 * LANES, 2 * group) for i in range(group)]
            masks = [ir.Constant(INTS, [ir.Constant(INT, i + shift) for i in low]) for shift in (0, group)]
            merged = []
            for i in range(0, len(values), 2):
                pair = values[i : i + 2] if i + 1 < len(values) else [values[i], zero]
                merged.append(self.add(*(self.builder.shuffle_vector(*pair, mask) for mask in masks)))
            values = merged
        return values[0]

    def exp2(self, x: ir.Value) -> ir.Value:
        """2^x for x <= 0, relative error about 3e-7; below -100, and for NaN, 2^-100."""
        x = self.larger(x, self.constant(-100.0))
        rounder = self.constant(12582912.0)  # 1.5 2^23: adding it leaves round(x) in the lowest bits
        shifted = self.add(x, rounder)
        fraction = self.sub(x, self.sub(shifted, rounder))
        result = self.constant(_EXP2[-1])
        for coefficient in reversed(_EXP2[:-1]):
            result = self.fused(result, fraction, self.constant(coefficient))
        exponent = self.builder.shl(self.builder.bitcast(shifted, INTS), self.integer(23))
        return self.builder.bitcast(self.builder.add(self.builder.bitcast(result, INTS), exponent), FLOATS)

    # ---- splats ------------------------------------------------------------------------------------------------------

    def offsets(self, record: ir.Value, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Pixel centres of the block whose first pixel centre is (x, y), minus the splat's centre: dx, dy."""
        result = []
        for origin, whole, part, lanes in (
            (x, X_WHOLE, X_PART, [float(lane % SIDE) for lane in range(LANES)]),
            (y, Y_WHOLE, Y_PART, [float(lane // SIDE) for lane in range(LANES)]),
        ):
            start = self.builder.fsub(self.builder.fsub(origin, self.field(record, whole)), self.field(record, part))
            result.append(self.add(self.spread(start), self.constant(lanes)))
        return result[0], result[1]

    def falloff(self, record: ir.Value, dx: ir.Value, dy: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """opacity exp(-sigma) unclamped, alpha clamped, and whether the splat counts (alpha >= 1/255)."""
        skew_x, skew_y, tall, opacity = (self.spread(self.field(record, i)) for i in (SKEW_X, SKEW_Y, TALL, OPACITY))
        across = self.fused(skew_x, dx, self.mul(skew_y, dy))
        along = self.mul(tall, dy)
        power = self.sub(self.constant(-0.0), self.fused(across, across, self.mul(along, along)))
        raw = self.mul(opacity, self.exp2(power))
        alpha = self.smaller(raw, self.constant(MAX_ALPHA))
        counts = self.at_least(alpha, self.constant(MIN_ALPHA))
        return raw, alpha, counts

    def block_start(self, tile: ir.Value, block: ir.Value) -> ir.Value:
        """First pixel centre (float32) of the ``block``-th block (int64) of a tile that starts at ``tile``."""
        b = self.builder
        return b.fadd(tile, b.sitofp(b.mul(block, self.number(SIDE)), FLOAT))
