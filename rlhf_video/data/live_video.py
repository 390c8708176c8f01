"""A clip that is written while it is made: its file grows frame by frame, and players open it before it is whole.

Fragmented mp4, every frame a fragment, and x264 without look-ahead: what was added can be seen. The price is size, and
other bytes than `write_video` makes of the same frames.
"""

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from torch import Tensor

from rlhf_video.data.video import BT709, to_uint8
from rlhf_video.errors import DataError


class LiveVideo:
    """Writes `NAME.part.mp4`, which grows, and renames it to `NAME.mp4` when the `with` block ends without an error."""

    def __init__(self, path: Path, fps: float, *, crf: int = 12) -> None:
        """Name the clip; its file appears with the first frames.

        Args:
            path: Target, ends in .mp4; missing parent folders are made.
            fps: Frames per second, > 0.
            crf: x264's constant rate factor.

        Raises:
            DataError: The name does not fit.
        """
        if path.suffix != ".mp4":
            raise DataError(f"Clip '{path}' must end in .mp4: clips are written as H.264 mp4.")
        self.path, self.part = path, path.with_suffix(".part.mp4")
        self._fps, self._crf = fps, crf
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None

    def add(self, frames: Tensor) -> None:
        """Write the clip's next frames.

        Args:
            frames: Pixels in [0, 1], shape (frames, 3, height, width), height and width even, as those before.

        Raises:
            DataError: The shape, the size, fps or a pixel does not fit.
        """
        pictures = to_uint8(frames, self._fps)
        if self._container is None or self._stream is None:
            self._container, self._stream = self._open(*pictures.shape[1:3])
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            planar = frame.reformat(format="yuv420p", dst_colorspace=BT709, interpolation="AREA")
            self._container.mux(self._stream.encode(planar))

    def _open(self, height: int, width: int) -> "tuple[av.container.OutputContainer, av.VideoStream]":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fragments = {"movflags": "frag_every_frame+empty_moov+default_base_moof", "flush_packets": "1"}
        container = av.open(str(self.part), mode="w", format="mp4", options=fragments)
        options = {"crf": str(self._crf), "preset": "medium", "tune": "zerolatency", "threads": "1"}
        stream = container.add_stream("libx264", rate=Fraction(self._fps).limit_denominator(1001), options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        return container, stream

    def __enter__(self) -> "LiveVideo":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the file; after an error it keeps its passing name."""
        if self._container is None or self._stream is None:
            return
        if kind is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if kind is None:
            with self.part.open("rb+") as file:
                os.fsync(file.fileno())
            self.part.replace(self.path)
