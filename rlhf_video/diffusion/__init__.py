"""Flow matching, noise levels and samplers: tensor functions only."""
