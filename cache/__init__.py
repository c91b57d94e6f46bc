"""Remote weight file in, verified local file out. Knows no model names and no networks."""

FORMATS = ("pt", "h5", "pkl", "safetensors")  # of the own copies, in the order in which loading tries them
