"""The stream of generated objects: a function of (seed, step, rank), whatever makes them."""

from __future__ import annotations

import pytest

from bozzetto.data.stream import ObjectStream
from bozzetto.errors import InputError
from bozzetto.systems.lgm.generated import make_packed_object
from bozzetto.systems.lgm.recipe import MiniRecipe


def identity(seed: int) -> int:
    return seed


def test_stream_is_a_function_of_seed_step_and_rank():
    streams = [ObjectStream(identity, 4, seed=1, rank=r, world=2, block=8, repeats=2) for r in (0, 1)]
    seen = [[s.batch(step) for step in range(8)] for s in streams]
    flat = [[i for batch in rank for i in batch] for rank in seen]
    assert not set(flat[0]) & set(flat[1])  # ranks share no object
    assert sorted(flat[0]) == sorted(list(range(8)) * 2 + list(range(16, 24)) * 2)
    late = ObjectStream(identity, 4, seed=1, rank=1, world=2, block=8, repeats=2)
    assert late.batch(6) == seen[1][6]
    assert ObjectStream(identity, 4, seed=2, block=8).batch(0) != seen[0][0]


def test_stream_with_workers_gives_the_same():
    inline = ObjectStream(identity, 2, seed=5, block=4, repeats=1)
    parallel = ObjectStream(identity, 2, seed=5, block=4, repeats=1, workers=1)
    try:
        assert [parallel.batch(s) for s in range(4)] == [inline.batch(s) for s in range(4)]
    finally:
        parallel.close()


def test_stream_of_whole_blocks_has_not_changed():
    """The order that earlier runs saw, so that they can be repeated."""
    stream = ObjectStream(identity, 4, seed=1, block=8, repeats=2)
    assert [stream.batch(s) for s in range(8)] == [
        [5, 0, 1, 4],
        [2, 6, 3, 7],
        [5, 3, 7, 1],
        [0, 4, 6, 2],
        [13, 10, 14, 15],
        [12, 8, 9, 11],
        [10, 8, 14, 12],
        [15, 9, 13, 11],
    ]


def test_block_smaller_than_the_batch_holds_no_further_objects():
    stream = ObjectStream(identity, 16, seed=3, block=8, repeats=10**9)
    for step in (0, 1, 7, 10**6):
        assert sorted(stream.batch(step)) == sorted(list(range(8)) * 2)


@pytest.mark.parametrize(("block", "batch", "repeats"), [(20, 16, 2), (3, 16, 2), (5, 2, 3)])
def test_block_that_does_not_fill_batches(block, batch, repeats):
    stream = ObjectStream(identity, batch, seed=3, block=block, repeats=repeats)
    steps = -(-block * repeats // batch)
    for number in range(3):
        seen = [i for s in range(number * steps, (number + 1) * steps) for i in stream.batch(s)]
        assert len(seen) == steps * batch and set(seen) == set(range(number * block, (number + 1) * block))
        assert all(seen[: block * repeats].count(i) == repeats for i in set(seen))
    late = ObjectStream(identity, batch, seed=3, block=block, repeats=repeats)
    assert late.batch(steps + 1) == ObjectStream(identity, batch, seed=3, block=block, repeats=repeats).batch(steps + 1)


def test_shared_blocks_give_all_ranks_the_same_objects():
    streams = [ObjectStream(identity, 4, seed=1, rank=r, world=2, block=4, repeats=1, shared=True) for r in (0, 1)]
    for step in range(3):
        batches = [s.batch(step) for s in streams]
        assert sorted(batches[0]) == sorted(batches[1]) == list(range(step * 4, step * 4 + 4))


def test_training_never_sees_objects_kept_for_evaluation():
    with pytest.raises(InputError, match="first-seed"):
        MiniRecipe(preset="debug", first_seed=10**9)
    with pytest.raises(InputError, match="for evaluation"):  # the stream may run into them
        make_packed_object(10**9)
