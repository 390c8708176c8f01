"""Make a text-to-video diffusion transformer produce the videos people prefer."""
