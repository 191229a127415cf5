"""MVDream and ImageDream: text or a picture -> four views of one object around it."""
