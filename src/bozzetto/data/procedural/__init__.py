"""Textured objects made from random numbers: endless training data that needs no download.

An object is its seed (:func:`generate_object`). :data:`HELD_OUT_SEEDS` are kept for evaluation; training uses seeds below
10**9. The modules from the bottom up: ``solid`` (closed surfaces), ``outlines``, ``profiles``, ``primitives``, ``deform``,
``cut``, ``parts``; ``noise``, ``palette``, ``patterns``, ``natural``, ``prints``, ``materials``; ``assembly``; and the
compositions ``generic``, ``creatures``, ``vehicles``, ``household``, ``nature``, ``buildings``.
"""

from .generate import HELD_OUT_SEEDS, MODES, generate_object, generate_objects

__all__ = ["HELD_OUT_SEEDS", "MODES", "generate_object", "generate_objects"]
