"""The files of a video: an overlay that plays everywhere, and a line of JSON a frame."""

import errno
import json
import os
from fractions import Fraction

import numpy as np
import pytest
from pycocotools import mask as coco
from videos import picture

from ms_segformer.preprocessors.video import Video, VideoError
from ms_segformer.results import ResultWriter, SegmentationResult, VideoFiles, video
from ms_segformer.results.video import OverlayVideo

av = pytest.importorskip('av', reason='needs PyAV')
CLASSES = ('road', 'sky')


def a_video(height=48, width=64, rate=10, aspect=1):
    return Video('clip.mp4', height, width, Fraction(rate), None, Fraction(aspect), False, (_ for _ in ()))


def a_result(index, time, size=(48, 64)):
    seg_map = np.zeros(size, np.uint8)
    seg_map[: size[0] // 4] = 1
    content = {'labels': ['sky', 'road'], 'scores': [0.5, 0.75], 'masks': [], 'seg_map': seg_map}
    return SegmentationResult(
        {**content, 'image': picture(index, size), 'index': index, 'time': time}, CLASSES, [(200, 30, 30), (0, 0, 250)]
    )


def written(folder, results, about, kinds=('overlay', 'json')):
    paths = {kind: folder / {'overlay': 'a.mp4', 'json': 'a.jsonl'}[kind] for kind in kinds}
    with VideoFiles(paths, about, ResultWriter(folder, CLASSES, [(200, 30, 30), (0, 0, 250)])) as files:
        for result in results:
            files.add(result)
        files.finish()
    return files


def test_every_frame_has_a_line_and_a_picture_at_its_time(tmp_path):
    times = [0, 0.1, 0.15, 1.0, 2.5]
    files = written(tmp_path, [a_result(index, time) for index, time in enumerate(times)], a_video())
    lines = [json.loads(line) for line in (tmp_path / 'a.jsonl').read_text(encoding='utf-8').splitlines()]
    assert [(line['index'], line['time'], line['height'], line['width']) for line in lines] == [
        (index, time, 48, 64) for index, time in enumerate(times)
    ]
    sky = next(row for row in lines[3]['segments'] if row['label'] == 'sky')
    assert coco.decode(sky['mask']).sum() == 12 * 64 == sky['pixels'] and sky['box'] == [0, 0, 64, 12]
    with av.open(str(tmp_path / 'a.mp4')) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ('h264', 'yuv420p')
        frames = list(container.decode(stream))
    assert [frame.time for frame in frames] == pytest.approx(times)
    drawn = frames[3].to_ndarray(format='rgb24').astype(int)
    assert drawn.shape == (48, 64, 3), 'no legend'
    assert np.abs(drawn[40, 50] - (110, 16, 16)).max() < 20, 'black below the color of the road'
    assert [(row['label'], row['score'], row['share']) for row in files.rows] == [
        ('road', 0.75, 0.75),
        ('sky', 0.5, 0.25),
    ]


def test_the_index_stands_before_the_pictures(tmp_path):
    """A browser begins to play before it has the whole file."""
    written(tmp_path, [a_result(0, 0.0)], a_video())
    content = (tmp_path / 'a.mp4').read_bytes()
    assert 0 < content.index(b'moov') < content.index(b'mdat')


def test_odd_sides_get_a_row_and_a_column(tmp_path):
    written(tmp_path, [a_result(3, 0.0, (31, 45))], a_video(31, 45))
    (frame,) = av.open(str(tmp_path / 'a.mp4')).decode(video=0)
    pixels = frame.to_ndarray(format='rgb24').astype(int)
    assert pixels.shape == (32, 46, 3) and np.abs(pixels[31] - pixels[30]).max() < 12
    assert json.loads((tmp_path / 'a.jsonl').read_text())['height'] == 31


def test_colors_and_the_form_of_pixels_are_kept(tmp_path):
    overlay = OverlayVideo(tmp_path / 'a.mp4', a_video(aspect=Fraction(4, 3)))
    for number in range(3):
        overlay.add(np.full((48, 64, 3), (200, 40, 90), np.uint8), number / 10)
    overlay.finish()
    with av.open(str(tmp_path / 'a.mp4')) as container:
        frame = next(container.decode(video=0))
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
    assert np.abs(frame.to_ndarray(format='rgb24').astype(int) - (200, 40, 90)).max() < 5


def test_times_that_do_not_rise_are_moved(tmp_path):
    written(tmp_path, [a_result(index, time) for index, time in enumerate([0.0, 0.2, 0.1, 0.3])], a_video())
    times = [frame.time for frame in av.open(str(tmp_path / 'a.mp4')).decode(video=0)]
    assert times == sorted(set(times)) and len(times) == 4


def test_lines_alone_need_no_pictures(tmp_path):
    result = a_result(0, 0.0)
    del result['image']
    written(tmp_path, [result], a_video(), ('json',))
    assert sorted(os.listdir(tmp_path)) == ['a.jsonl']


def test_a_full_disk_is_the_error_that_the_system_gives(tmp_path, monkeypatch):
    class Full:
        def __init__(self, path, mode):
            self.file = open(path, mode)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, content):
            raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(video, 'open', Full, raising=False)
    with pytest.raises(OSError) as caught:
        written(tmp_path, (a_result(index, index / 10) for index in range(100)), a_video(), ('overlay',))
    assert caught.value.errno == errno.ENOSPC


def test_sizes_that_h264_lacks_are_said(tmp_path):
    overlay = OverlayVideo(tmp_path / 'a.mp4', a_video(2, 20_000))
    with pytest.raises(VideoError, match='20000×2 pixels cannot be written as H.264.*--save json'):
        overlay.add(np.zeros((2, 20_000, 3), np.uint8), 0.0)
    overlay.abandon()
