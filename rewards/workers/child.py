"""The program inside a worker's environment: it answers one JSON line per request on descriptors of its own.

Stand-alone: the environment has its own, often older, Python and numpy and cannot import this package, so nothing here
imports more than the standard library and numpy. `rewards/workers/process.py` starts it as
`python -I child.py READ_FD WRITE_FD` with stdout and stderr in a log file: a library that prints corrupts nothing.

Requests, one JSON object per line (`op` names it, the answer repeats `id`):

* `start {protocol, scorer, settings}`: load the scorer file, for example hpsv2_scorer.py, with these settings. Answer:
  `hello {protocol, worker, python, packages, device, dimensions, weights: {file: sha256}}`.
* `score {frames, prompt, fps}`: `frames` is an .npy file, uint8, (frames, height, width, 3), RGB, mapped, not read.
  Answer: `result {values: {dimension: [one score per frame]}}`.
* `score_file {file, dimension, prompt, facts}`: for originals that open the clip themselves, one dimension at a time.
  Answer: `result {value: score, curve: [scores or none]}`, or `result {skipped: why it has nothing to say}`.
* `parity {frames, prompts, config, seed, random_weights, out, save_weights}`: see `parity` of the scorer file. Answer:
  `result {arrays: {name: path of an .npy file}, state: {key: shape}}`.
* `shutdown {}`: answer `bye {}` and exit.

A request that fails is answered by `error {kind, message}`; a start that fails by `fatal {kind, message}` and the end
of the process. Nothing is pickled on the way.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np

PROTOCOL = 1
FAILURES = (
    *(ValueError, TypeError, RuntimeError, OSError, LookupError, ArithmeticError),
    *(AttributeError, AssertionError, ImportError, MemoryError),
)
"""What a library raises over one item. Anything else ends the process, and the parent says so."""


def main(read_descriptor: int, write_descriptor: int) -> int:
    """Serve requests until `shutdown` or until the parent closes its end.

    Args:
        read_descriptor: Requests.
        write_descriptor: Answers.
    """
    for descriptor in (read_descriptor, write_descriptor):
        os.set_inheritable(descriptor, False)  # a process that a library starts must not hold the line open
    with (
        os.fdopen(read_descriptor, encoding="utf-8") as requests,
        os.fdopen(write_descriptor, "w", encoding="utf-8") as answers,
    ):
        scorer = _start(json.loads(requests.readline()), answers)
        if scorer is None:
            return 1
        for line in requests:
            request = json.loads(line)
            if request["op"] == "shutdown":
                _send(answers, {"type": "bye", "id": request["id"]})
                return 0
            _send(answers, _answer(scorer, request))
    return 0


def _start(request: dict[str, Any], answers: TextIO) -> Any:
    """Build the scorer and greet; on failure say why and return None."""
    try:
        if request["protocol"] != PROTOCOL:
            raise ValueError(f"The parent speaks protocol {request['protocol']}, this worker {PROTOCOL}.")
        module = load_module(request["scorer"])
        scorer = module.Scorer(request["settings"])
        hello = {
            "type": "hello",
            "id": request["id"],
            "protocol": PROTOCOL,
            "worker": module.NAME,
            "python": platform.python_version(),
            "packages": {name: importlib.metadata.version(name) for name in module.PACKAGES},
            "device": str(scorer.device),
            "dimensions": list(module.DIMENSIONS),
            "weights": {Path(path).name: sha256(path) for path in scorer.weight_files},
        }
    except FAILURES as error:
        traceback.print_exc()
        _send(answers, {"type": "fatal", "id": request["id"], "kind": type(error).__name__, "message": str(error)})
        return None
    _send(answers, hello)
    return scorer


def _answer(scorer: Any, request: dict[str, Any]) -> dict[str, Any]:
    try:
        if request["op"] == "score":
            answer = {"values": _score(scorer, request)}
        elif request["op"] == "score_file":
            answer = _score_file(scorer, request)
        elif request["op"] == "parity":
            answer = _parity(scorer, request)
        else:
            raise ValueError(f"Unknown request {request['op']!r}: score, score_file, parity and shutdown are known.")
    except FAILURES as error:
        traceback.print_exc()
        if "CUDA error" in str(error):  # it sticks to the process: only a new one can go on
            raise
        return {"type": "error", "id": request["id"], "kind": type(error).__name__, "message": str(error)}
    return {"type": "result", "id": request["id"], **answer}


def _score(scorer: Any, request: dict[str, Any]) -> dict[str, list[float]]:
    frames = np.load(request["frames"], mmap_mode="r", allow_pickle=False)
    values = scorer.score(frames, request["prompt"], request["fps"])
    values = {name: [float(value) for value in scores] for name, scores in values.items()}
    if not all(math.isfinite(value) for scores in values.values() for value in scores):
        raise ValueError(f"The model gave a score that is not a finite number: {values}.")
    return values


def _score_file(scorer: Any, request: dict[str, Any]) -> dict[str, Any]:
    answer = scorer.score_file(request["file"], request["dimension"], request["prompt"], request["facts"])
    if "skipped" in answer:
        return {"skipped": str(answer["skipped"])}
    value, curve = float(answer["value"]), [float(number) for number in answer.get("curve", ())]
    if not all(math.isfinite(number) for number in (value, *curve)):
        raise ValueError(f"The package gave a score that is not a finite number: {value}, {curve}.")
    return {"value": value, "curve": curve}


def _parity(scorer: Any, request: dict[str, Any]) -> dict[str, Any]:
    frames = np.load(request["frames"], allow_pickle=False)
    generator = load_module(request["random_weights"])

    def fill(model: Any) -> None:  # without torch: a state dict's tensors share the model's memory
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(value.new_tensor(generator.random_array(key, tuple(value.shape), request["seed"])))

    found = scorer.parity(frames, request["prompts"], request["config"], fill)
    folder = Path(request["out"])
    arrays = {}
    for name, array in found["arrays"].items():
        arrays[name] = str(folder / (name + ".npy"))
        np.save(arrays[name], array, allow_pickle=False)
    if request["save_weights"]:
        scorer.save(found["model"], request["save_weights"])
    state = {key: list(value.shape) for key, value in found["model"].state_dict().items()}
    return {"arrays": arrays, "state": state}


def load_module(path: str) -> Any:
    """Import one Python file by path, without a package around it.

    Raises:
        ImportError: There is no such file.
    """
    if not Path(path).is_file():
        raise ImportError(f"There is no module file {path!r}.")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def sha256(path: str) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 22), b""):
            digest.update(block)
    return digest.hexdigest()


def _send(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message, allow_nan=False) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
