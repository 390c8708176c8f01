"""Ways to compute windowed attention; all of them equal the mask oracle."""
