"""How good a result is: measures of pictures and meshes, and fixed protocols. Training never imports this room.

The protocol is written down, exactly enough to be made again elsewhere, in docs/evaluation.md.
"""
