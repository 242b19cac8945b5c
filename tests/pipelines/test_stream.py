"""`segmenter.stream(video)`: the results of the pipeline for the frames, one after the other."""

import dataclasses
import threading
import weakref

import numpy as np
import pytest
from videos import RATE, cut, make_clip, make_folder

from ms_segformer import load
from ms_segformer.errors import ArgumentError
from ms_segformer.preprocessors.image import TooManyPixelsError
from ms_segformer.preprocessors.video import DamagedVideoError, open_video
from ms_segformer.results import ResultWriter, VideoFiles

pytest.importorskip('av', reason='needs PyAV')


@pytest.fixture(scope='module')
def segmenter(tiny_model_dir):
    return load(tiny_model_dir, device='cpu', engine='torch')


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp('clip') / 'clip.mp4', 4)


def test_frames_have_the_results_that_the_pipeline_gives_them(segmenter, clip):
    decoded = [frame.image for frame in open_video(clip).frames]
    expected = segmenter(decoded)
    found = list(segmenter.stream(clip, with_image=True))
    assert [(result['index'], result['time']) for result in found] == [(n, pytest.approx(n / RATE)) for n in range(4)]
    for result, frame, other in zip(found, decoded, expected, strict=True):
        assert result['labels'] == other['labels'] and result['scores'] == other['scores']
        assert (result['seg_map'] == other['seg_map']).all() and len(result['masks']) == len(result['labels'])
        assert (result['image'] == frame).all()
    assert found[0].plot(legend=False).shape == (48, 64, 3)


def test_batches_and_windows_are_those_of_a_call(segmenter, clip):
    alone = list(segmenter.stream(clip, with_masks=False))
    together = list(segmenter.stream(clip, batch_size=3, with_masks=False))
    assert all((a['seg_map'] == b['seg_map']).all() for a, b in zip(alone, together, strict=True))
    (first, *_) = segmenter.stream(clip, mode='slide', resize=False, crop_size=32, stride=16, confidence=True)
    assert first['confidence'].shape == (48, 64) and 'image' not in first


def test_a_caller_that_stops_ends_the_thread(segmenter, clip):
    results = segmenter.stream(clip)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name == 'ms-segformer-read-ahead']


def test_of_a_long_video_a_few_frames_are_in_memory_at_a_time(segmenter, tmp_path):
    frames, results, most = [], [], [0, 0]
    clip = open_video(make_clip(tmp_path / 'long.mp4', 50))

    def watched():
        for frame in clip.frames:
            frames.append(weakref.ref(frame.image))
            yield frame

    video = dataclasses.replace(clip, frames=watched())
    paths = {'overlay': tmp_path / 'a.mp4', 'json': tmp_path / 'a.jsonl'}
    with VideoFiles(paths, video, ResultWriter(tmp_path, segmenter.classes, segmenter.palette)) as files:
        for result in segmenter.stream(video, with_image=True, with_masks=False, resize=False):
            results.append(weakref.ref(result['seg_map']))
            files.add(result)
            for index, kind in enumerate((frames, results)):
                most[index] = max(most[index], sum(each() is not None for each in kind))
        files.finish()
    assert len(frames) == len(results) == 50 and 0 < most[0] <= 20 and 0 < most[1] <= 10, most


def test_mistakes_are_said_at_once(segmenter, clip, tmp_path):
    with pytest.raises(FileNotFoundError):
        segmenter.stream(tmp_path / 'none.mp4')
    with pytest.raises(TypeError, match="stream takes no argument 'batchsize'; did you mean 'batch_size'"):
        segmenter.stream(clip, batchsize=2)
    with pytest.raises(ArgumentError, match='batch_size is 0'):
        segmenter.stream(clip, batch_size=0)
    with pytest.raises(ArgumentError, match='mode is'):
        segmenter.stream(clip, mode='fast')
    with pytest.raises(TooManyPixelsError):
        segmenter.stream(clip, max_pixels=1000)


def test_what_is_damaged_is_said_after_the_frames_before(segmenter, tmp_path):
    clip = cut(make_clip(tmp_path / 'a.mkv', 12, size=(96, 128), noise=True), 0.4)
    found = []
    with pytest.raises(DamagedVideoError, match='truncated or damaged'):
        found += [found.append(result['index']) for result in segmenter.stream(clip, batch_size=3, with_masks=False)]
    assert found == list(range(len(found))) and len(found) >= 2


def test_a_folder_with_a_rate_is_a_video(segmenter, tmp_path):
    folder = make_folder(tmp_path / 'shots', 3)
    found = list(segmenter.stream(folder, fps=2, with_masks=False))
    assert [result['time'] for result in found] == [0, 0.5, 1]
    assert np.array_equal(found[2]['seg_map'], segmenter(folder / 'shot2.png')['seg_map'])
