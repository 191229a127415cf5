"""Words of shared memory at addresses that only the device knows, which Triton itself does not offer: counters.

All threads of a program share them; ``tl.debug_barrier()`` separates what one thread does from what others see. Numbers of
indices must be multiples of the number of threads where words are added to, or some would be counted twice. Interpreted
programs use a piece of ordinary memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_numbers import INTERPRETED

WORDS = tl.constexpr(4096)  # int32


@triton.jit
def shared_words(scratch):
    """Where this program's words are. ``scratch``: WORDS int32 for every program, used if interpreted."""
    if INTERPRETED:
        return scratch + tl.program_id(0) * WORDS
    else:
        return tl.inline_asm_elementwise(
            "{ .shared .align 16 .b8 words[16384]; mov.u32 $0, words; }",
            "=r,r", [tl.program_id(0)], dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip


@triton.jit
def fetch_add(words, index, mask):
    """Add 1 to the words at ``index`` and return what they were before."""
    if INTERPRETED:
        return tl.atomic_add(words + index, 1, mask=mask)
    else:
        return tl.inline_asm_elementwise(
            "{ .reg .pred p; setp.ne.s32 p, $2, 0; mov.u32 $0, 0; @p atom.shared.add.u32 $0, [$1], 1; }",
            "=&r,r,r", [words + index * 4, mask.to(tl.int32)], dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip


@triton.jit
def read(words, index, mask):
    """The words at ``index``; 0 where ``mask`` is False."""
    if INTERPRETED:
        return tl.load(words + index, mask=mask, other=0)
    else:
        return tl.inline_asm_elementwise(
            "{ .reg .pred p; setp.ne.s32 p, $2, 0; mov.u32 $0, 0; @p ld.shared.u32 $0, [$1]; }",
            "=&r,r,r", [words + index * 4, mask.to(tl.int32)], dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip


@triton.jit
def write(words, index, value, mask):
    """Set the words at ``index``."""
    if INTERPRETED:
        tl.store(words + index, value, mask=mask)
    else:
        tl.inline_asm_elementwise(
            "{ .reg .pred p; setp.ne.s32 p, $3, 0; @p st.shared.u32 [$1], $2; mov.u32 $0, 0; }",
            "=&r,r,r,r", [words + index * 4, value, mask.to(tl.int32)], dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip
