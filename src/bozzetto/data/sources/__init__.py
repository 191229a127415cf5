"""Readers of the asset collections, one file a collection; formats that several share are in ``formats``.

Every reader is ``read(folder) -> Iterator[SourceObject]``. It yields lazily, and one object that cannot be read is logged
and left out. :mod:`bozzetto.data.sources.registry` lists them all.
"""
