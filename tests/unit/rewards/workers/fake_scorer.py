"""A worker's scorer file without a model: brightness of each frame plus the prompt's length, and failures on demand."""

import os
import sys
import time
from typing import Any

import numpy as np

NAME = "fake"
PACKAGES = ("numpy",)
DIMENSIONS = ("fake",)


class Scorer:
    """Does what the prompt's first word says."""

    def __init__(self, settings: dict[str, Any]) -> None:
        if settings.get("start") == "refuse":
            raise ValueError("these weights do not fit")
        if settings.get("start") == "die":
            sys.stderr.write("libfake.so: cannot open shared object file")
            os._exit(3)
        if settings.get("start") == "hang":
            time.sleep(60)
        self.device = "cpu"
        self.weight_files = [settings["weights"]] if settings.get("weights") else []
        self.chatty = settings.get("chatty", False)

    def score(self, frames: np.ndarray, prompt: str, fps: float) -> dict[str, list[float]]:
        if self.chatty:
            sys.stdout.write('{"type": "result", "id": 1}\n')  # a library's chatter, which looks like an answer
            os.write(1, b"noise without a line end")
        line = int(sys.argv[2])
        word = prompt.split()[0]
        if word == "die":
            os.kill(os.getpid(), 11)
        if word == "exit":
            sys.stdout.write("the last words")
            os._exit(7)
        if word == "hang":
            time.sleep(60)
        if word == "garbage":
            os.write(line, b"\x00\xffnot json\n")
        if word == "stale":
            os.write(line, b'{"type": "result", "id": 0, "values": {"fake": [0.0]}}\n')
        if word == "raise":
            raise ValueError("this clip has no subject")
        scores = [float(frame.mean()) / 255 + len(prompt) / 100 for frame in frames]
        if word == "short":
            return {"fake": scores[:-1]}
        if word == "nan":
            return {"fake": [float("nan")] * len(scores)}
        if word == "other":
            return {"another": scores}
        return {"fake": scores}
