"""Remote weight file in, verified local file out. Knows no model names and no networks."""
