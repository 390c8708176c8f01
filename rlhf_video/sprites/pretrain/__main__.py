import logging
import sys
from pathlib import Path

from rlhf_video.sprites.pretrain.vae import train_vae

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
train_vae(Path("runs/pretrain"), num_steps=int(sys.argv[1]))
