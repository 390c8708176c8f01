"""Pre-train the built-in checkpoints from nothing: `python -m rlhf_video.sprites.pretrain`."""
