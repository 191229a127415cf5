"""Reading and writing: pictures, films, splats, meshes, viewer pages. Whole or not at all."""
