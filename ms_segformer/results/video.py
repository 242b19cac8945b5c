"""Writes the files of a video frame by frame: an overlay as H.264 in MP4, and a line of JSON a frame.

PyAV, the extra `[video]`, encodes; it is imported when an overlay is begun.
"""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

import numpy as np

from ..errors import one_line
from ..preprocessors.video import Video, VideoError
from .output import Row, segments
from .result import SegmentationResult
from .writer import ResultWriter

if TYPE_CHECKING:
    import av

TICK = Fraction(1, 90_000)  # seconds; the usual rates, 30000/1001 among them, are whole numbers of it a frame
ENCODING = {'preset': 'veryfast', 'crf': '20'}  # x264's
MOST_RATE = 1000  # frames a second that the encoder is told
BT709 = 1  # FFmpeg's number of these primaries, transfer and matrix
LIMITED = 1  # and of the range 16–235
WAITING = 2  # results that wait for the thread that writes


class OverlayVideo:
    """An MP4 file of H.264 that plays everywhere, browsers among them, with each frame at its own time.

    H.264 of this form has even sides: an odd side is longer by a pixel, a copy of the last row or column.

    Args:
        path: where to write; a file that is there is replaced.
        video: what it is the overlay of.
    """

    def __init__(self, path: Path, video: Video) -> None:
        import av  # imported late: optional
        from av.video.reformatter import ColorRange, Colorspace  # imported late: optional

        self._foreign = av.FFmpegError
        self._frame_of, self._color = av.VideoFrame.from_ndarray, (Colorspace.ITU709, ColorRange.MPEG)
        self._size, self._padding = (video.height, video.width), (video.height % 2, video.width % 2)
        self._last = -1
        # A file object: what the system says while it is written to, such as that the disk is full, arrives as it is.
        self._file = open(path, 'w+b')
        self._container = av.open(self._file, 'w', format='mp4', options={'movflags': '+faststart'})
        rate = min(video.rate, Fraction(MOST_RATE)).limit_denominator(1001)
        self._stream = self._container.add_stream('libx264', rate=rate, options=ENCODING)
        codec = self._stream.codec_context
        codec.height, codec.width = video.height + video.height % 2, video.width + video.width % 2
        codec.pix_fmt, codec.time_base = 'yuv420p', TICK
        codec.sample_aspect_ratio = video.aspect
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = LIMITED

    def add(self, picture: np.ndarray, time: float) -> None:
        """Append a frame, H×W×3 uint8 RGB, that is shown from `time` on, in seconds; times that do not rise are moved
        by the least that there is.

        Raises:
            VideoError: H.264 cannot hold frames of this size.
            OSError: it cannot be written.
        """
        below, beside = self._padding
        if below or beside:
            picture = np.pad(picture, ((0, below), (0, beside), (0, 0)), mode='edge')
        space, extent = self._color
        frame = self._frame_of(picture, format='rgb24')
        frame = frame.reformat(format='yuv420p', dst_colorspace=space, dst_color_range=extent)
        self._last = frame.pts = max(self._last + 1, round(Fraction(time) / TICK))
        frame.time_base = TICK
        self._mux(frame)

    def finish(self) -> None:
        """Write what the encoder holds back, and the index.

        Raises:
            OSError: it cannot be written.
        """
        self._mux(None)
        self._container.close()
        self._file.close()

    def abandon(self) -> None:
        """Close the file, whatever is in it."""
        self._file.close()

    def _mux(self, frame: 'av.VideoFrame | None') -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except self._foreign as error:
            if isinstance(error, OSError):
                raise
            height, width = self._size
            raise VideoError(
                f'frames of {width}×{height} pixels cannot be written as H.264 ({one_line(error)}); without the '
                'overlay: --save json'
            ) from None


class VideoFiles:
    """Draws, encodes and writes the results of a video's frames in a thread, in order.

    >>> with VideoFiles(paths, video, writer) as files:                            # doctest: +SKIP
    ...     for result in segmenter.stream(video, with_image=True, with_masks=False):
    ...         files.add(result)
    ...     files.finish()

    Args:
        paths: where to write, by kind; see `writer.VIDEO_KINDS`. Files that are there are replaced.
        video: what the results are of.
        writer: draws the frames.

    Attributes:
        rows: a segment a class, of all frames that were written together, largest first.
    """

    def __init__(self, paths: Mapping[str, Path], video: Video, writer: ResultWriter) -> None:
        self._writer = writer
        self._lines: TextIO | None = open(paths['json'], 'w', encoding='utf-8') if 'json' in paths else None
        self._overlay = OverlayVideo(paths['overlay'], video) if 'overlay' in paths else None
        self._thread = ThreadPoolExecutor(1, 'ms-segformer-write')
        self._waiting: deque[Future[None]] = deque()
        self._sums: dict[int, tuple[str, int, float]] = {}  # of a class: name, pixels, and pixels times score
        self._pixels = 0
        self._broken = False

    def __enter__(self) -> 'VideoFiles':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
        if self._lines is not None:
            self._lines.close()
        if self._overlay is not None:
            self._overlay.abandon()

    def add(self, result: SegmentationResult) -> None:
        """Write a frame; waits only where the thread is behind.

        Args:
            result: of `stream`, with `image` (`with_image=True`) for the overlay.

        Raises:
            OSError: one of the frames before it could not be written.
        """
        self._waiting.append(self._thread.submit(self._write, result))
        while len(self._waiting) > WAITING:
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: something could not be.
        """
        while self._waiting:
            self._waiting.popleft().result()
        if self._overlay is not None:
            self._overlay.finish()
        if self._lines is not None:
            self._lines.close()

    @property
    def rows(self) -> list[Row]:
        found = [
            Row(
                id=index,
                label=label,
                score=round(score / pixels, 6),
                pixels=pixels,
                share=round(pixels / self._pixels, 6),
            )
            for index, (label, pixels, score) in self._sums.items()
        ]
        return sorted(found, key=lambda row: -row['pixels'])

    def _write(self, result: SegmentationResult) -> None:
        if self._broken:  # FFmpeg may crash where packets follow one that could not be written
            return
        try:
            self._write_frame(result)
        except BaseException:
            self._broken = True
            raise

    def _write_frame(self, result: SegmentationResult) -> None:
        rows = segments(result, self._writer.classes)
        for row in rows:
            _, pixels, score = self._sums.get(row['id'], ('', 0, 0.0))
            self._sums[row['id']] = row['label'], pixels + row['pixels'], score + row['pixels'] * row['score']
        self._pixels += result['seg_map'].size
        if self._overlay is not None:
            self._overlay.add(self._writer.frame(result, rows), result['time'])
        if self._lines is not None:
            self._lines.write(result.to_json_line())
