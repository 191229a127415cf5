"""Training data made on the fly: procedural objects, their renderer and the stream of samples."""
