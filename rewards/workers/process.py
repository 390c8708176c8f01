"""The parent's end of a worker: one child process, one request at a time, each with a deadline.

The protocol is described in child.py. Whatever goes wrong with the process (it dies, hangs, answers nonsense) ends it
and is a `WorkerFailure` that shows the end of its log; what goes wrong with one request is an `ItemError`.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rewards.errors import RewardError
from rewards.workers.child import PROTOCOL

CHILD = Path(__file__).with_name("child.py")
LOG_TAIL_LINES = 15
MAX_LINE_BYTES = 1 << 24
"""No answer is that long: a child that writes on without a line end is not waited for."""


class WorkerFailure(RewardError):
    """The process of a worker died, hung or answered nonsense; it is ended and must be started again."""


class ItemError(RewardError):
    """A worker could not do one thing that it was asked; it goes on with the next."""


class WorkerProcess:
    """A running child that has greeted. A context manager; `close` ends it."""

    def __init__(
        self, python: str | Path, *, scorer: Path, settings: Mapping[str, object], worker: str, deadline_s: float
    ) -> None:
        """Start the child and wait for its greeting.

        Args:
            python: Interpreter of the worker's environment.
            scorer: File with the class `Scorer`, see hpsv2_scorer.py.
            settings: Passed to it; plain JSON values.
            worker: Name that the child must greet with.
            deadline_s: Seconds for imports and loading weights.

        Raises:
            WorkerFailure: It does not start, refuses its settings, or greets as somebody else.
        """
        self.worker = worker
        self._folder = tempfile.TemporaryDirectory(prefix="rlhf-video-worker-")
        self.folder = Path(self._folder.name)
        """For files handed to the child; removed with it."""
        self._next_id = 0
        self._buffer = b""
        self._owner = os.getpid()
        self._process = self._spawn(python)
        self.hello = self._greet(scorer, settings, deadline_s)
        """The child's greeting: versions, device, dimensions, hashes of its weight files."""

    def _spawn(self, python: str | Path) -> subprocess.Popen[bytes]:
        child_reads, self._write = os.pipe()
        self._read, child_writes = os.pipe()
        # Unbuffered and with a fault handler: the log keeps the last words of a process that crashes.
        flags = ["-I", "-u", "-X", "faulthandler"]
        command = [str(python), *flags, str(CHILD), str(child_reads), str(child_writes)]
        try:
            with (self.folder / "log.txt").open("wb") as log:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(child_reads, child_writes),
                    env={**os.environ, "TMPDIR": str(self.folder)},  # what a killed child leaves goes with the folder
                    start_new_session=True,  # Ctrl-C reaches the parent, which then ends the child
                )
        except OSError as error:
            self._release()
            raise WorkerFailure(f"Worker {self.worker!r} cannot be started with {python}: {error}.") from error
        finally:
            os.close(child_reads)
            os.close(child_writes)

    def _greet(self, scorer: Path, settings: Mapping[str, object], deadline_s: float) -> dict[str, Any]:
        start = {"protocol": PROTOCOL, "scorer": str(scorer), "settings": dict(settings)}
        hello = self._exchange("start", start, deadline_s)
        if hello.get("type") == "fatal":
            raise self._failure(f"refused to start: {hello.get('kind')}: {hello.get('message')}")
        expected = {"type": "hello", "protocol": PROTOCOL, "worker": self.worker}
        wrong = {key: hello.get(key) for key, value in expected.items() if hello.get(key) != value}
        if wrong:
            raise self._failure(f"greeted with {wrong}, expected {expected}")
        if not all(isinstance(hello.get(key), dict) for key in ("packages", "weights")):
            raise self._failure("greeted without the versions of its packages and the hashes of its weights")
        return hello

    def request(self, op: str, fields: Mapping[str, object], *, deadline_s: float) -> dict[str, Any]:
        """Ask for one thing and return the answer.

        Args:
            op: Of the request, see child.py.
            fields: Of the request; plain JSON values.
            deadline_s: Seconds until the child counts as hung.

        Raises:
            ItemError: The child says that it cannot do this.
            WorkerFailure: The child died, hung or answered nonsense; it is ended.
        """
        answer = self._exchange(op, fields, deadline_s)
        if answer.get("type") == "error":
            raise ItemError(f"{answer.get('kind')}: {answer.get('message')}")
        if answer.get("type") != "result":
            raise self._failure(f"answered {op} with a message of type {answer.get('type')!r}")
        return answer

    def _exchange(self, op: str, fields: Mapping[str, object], deadline_s: float) -> dict[str, Any]:
        self._next_id += 1
        message = json.dumps({"op": op, "id": self._next_id, **fields}) + "\n"
        try:
            os.write(self._write, message.encode())
            line = self._read_line(time.monotonic() + deadline_s, f"{op} within {deadline_s:g} s")
        except BrokenPipeError:
            raise self._failure(self._death()) from None
        except WorkerFailure:
            raise
        except BaseException:  # Ctrl-C, a time-out of the caller's
            self._end()  # its answer would be taken for the next one's
            raise
        try:
            answer = json.loads(line)
        except ValueError:
            raise self._failure(f"answered nonsense: {line[:80]!r}") from None
        if not isinstance(answer, dict) or answer.get("id") != self._next_id:
            raise self._failure(f"answered nonsense: {line[:80]!r} is not the answer to request {self._next_id}")
        return answer

    def _read_line(self, until: float, wanted: str) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise self._failure(f"hangs: no answer to {wanted}")
                block = os.read(self._read, 1 << 16)
                if not block:
                    raise self._failure(self._death())
                self._buffer += block
                if len(self._buffer) > MAX_LINE_BYTES:
                    raise self._failure(f"answered nonsense: more than {MAX_LINE_BYTES} bytes without a line end")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _death(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its line without ending"
        return f"died of signal {-code}" if code < 0 else f"ended with exit code {code}"

    def _failure(self, what: str) -> WorkerFailure:
        """End the child and return the error that says what it did and the end of its log."""
        log = self.log_tail()
        self._end()
        return WorkerFailure(f"Worker {self.worker!r} {what}." + (f" The end of its log:\n{log}" if log else ""))

    def log_tail(self) -> str:
        """Return the last lines that the child or its libraries printed."""
        lines = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    @property
    def is_running(self) -> bool:
        """Whether requests can be sent."""
        return self._process.poll() is None and self._write >= 0

    def close(self) -> None:
        """Ask the child to end, or end it, and remove its files. A second call does nothing."""
        if self._write < 0 or self._owner != os.getpid():  # a forked program must not end its parent's worker
            return
        if self._process.poll() is None:
            self._next_id += 1
            try:
                os.write(self._write, (json.dumps({"op": "shutdown", "id": self._next_id}) + "\n").encode())
                self._process.wait(timeout=5)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self._process.kill()
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its session: what its libraries started goes, too
        self._process.kill()
        self._process.wait()
        self._release()

    def _release(self) -> None:
        for descriptor in (self._read, self._write):
            if descriptor >= 0:
                os.close(descriptor)
        self._read = self._write = -1
        self._folder.cleanup()

    def __enter__(self) -> Self:
        """Return the running worker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()
