"""All procedural textures: importing this module fills :data:`TEXTURES`."""

from . import natural, patterns, prints
from .texture_kinds import TEXTURES, Texture

__all__ = ["TEXTURES", "Texture", "natural", "patterns", "prints"]
