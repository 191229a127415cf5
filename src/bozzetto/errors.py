"""Errors a user can act on.

Every error raised on bad input derives from :class:`BozzettoError`; its message says what is wrong *and* what to do.
The command line prints the message without a traceback and exits with ``exit_code``. Everything else that escapes is a
defect of this package and keeps its traceback.
"""

from __future__ import annotations


class BozzettoError(Exception):
    """Base of all errors that a user can mend. ``exit_code`` is the command line's exit status."""

    exit_code = 2


class InputError(BozzettoError):
    """The input (photo, PLY, transforms.json, checkpoint, argument) cannot be used; the message says why."""


class ImageError(InputError):
    """A picture is missing, empty, truncated, too large, or not a picture."""


class CameraError(InputError):
    """Cameras are singular, not rigid, missing, or contradict the pictures."""


class SplatFileError(InputError):
    """A Gaussian splat file is malformed (header, fields, count, NaN)."""


class MeshError(InputError):
    """A mesh cannot be made or read (empty surface, malformed file)."""


class ForegroundError(InputError):
    """No foreground was found in a photo, or the photo is fully transparent."""


class CheckpointError(InputError):
    """A checkpoint has missing, unexpected or misshapen tensors, or would run code when loaded."""


class CapacityError(InputError):
    """Gaussians need more memory for lists than a recorded call has, or than can be counted."""


class UnknownModelError(InputError):
    """A model name is not in the zoo; the message lists the known ones."""


class MissingDependencyError(BozzettoError):
    """An optional package is needed; the message names the extra to install."""

    exit_code = 3


class OutputError(BozzettoError):
    """The output cannot be written (no permission, disk full, is a directory)."""

    exit_code = 4
