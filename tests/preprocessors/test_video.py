"""Videos become upright RGB frames with their times, and what is wrong with one is said."""

import gc
import sys

import numpy as np
import pytest
from videos import RATE, cut, make_clip, make_folder, picture, turned

from ms_segformer.preprocessors.image import DamagedImageError, ImageError, TooManyPixelsError
from ms_segformer.preprocessors.video import DamagedVideoError, VideoError, is_video, open_video, sequence_files

av = pytest.importorskip('av', reason='needs PyAV')


def frames_of(path, **options):
    return list(open_video(path, **options).frames)


def close(one, other):
    return one.shape == other.shape and np.abs(one.astype(int) - other).mean() < 6


@pytest.mark.parametrize(
    ('name', 'codec'), [('a.mp4', 'libx264'), ('a.MOV', 'libx264'), ('a.mkv', 'libx264'), ('a.webm', 'libvpx-vp9')]
)
def test_frames_come_in_order_with_their_times(tmp_path, name, codec):
    video = open_video(make_clip(tmp_path / name, codec=codec, format={'a.MOV': 'mov'}.get(name)))
    assert (video.height, video.width, video.rate, video.count, video.sound) == (48, 64, RATE, 6, False)
    frames = list(video.frames)
    assert [frame.index for frame in frames] == list(range(6))
    assert [frame.time for frame in frames] == pytest.approx([number / RATE for number in range(6)])
    assert all(close(frame.image, picture(frame.index)) for frame in frames)
    assert frames[0].image.dtype == np.uint8 and frames[0].image.flags.c_contiguous


def test_each_frame_of_a_variable_rate_keeps_its_time(tmp_path):
    times = [2.0, 2.1, 2.15, 4.0, 4.5]
    found = [frame.time for frame in frames_of(make_clip(tmp_path / 'a.mkv', 5, times=times))]
    assert found == pytest.approx([time - 2 for time in times])


@pytest.mark.parametrize(
    ('matrix', 'expected'),
    [
        ((0, 1, -1, 0), lambda image: np.rot90(image, 3)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    ],
    ids=['90', '180', '270', 'mirrored', 'transposed'],
)
def test_rotation_and_mirroring_are_applied(tmp_path, matrix, expected):
    video = open_video(turned(make_clip(tmp_path / 'a.mp4', 2), *matrix))
    image = next(video.frames).image
    assert close(image, expected(picture(0))) and image.shape[:2] == (video.height, video.width)


def test_odd_sizes_are_read_as_they_are(tmp_path):
    (frame,) = frames_of(make_clip(tmp_path / 'a.mkv', 1, size=(31, 45)))
    assert close(frame.image, picture(0, (31, 45)))


def test_sound_is_noticed_and_left_out(tmp_path):
    video = open_video(make_clip(tmp_path / 'a.mp4', sound=True))
    assert video.sound and len(list(video.frames)) == 6


def test_a_truncated_video_gives_its_frames_and_then_an_error(tmp_path):
    for name in ('a.mp4', 'a.mkv'):
        video = open_video(cut(make_clip(tmp_path / name, 30, noise=True), 0.5))
        found = []
        with pytest.raises(DamagedVideoError, match=rf'{name}: truncated or damaged: 1\.\d s of 3\.0 s, 1\d frames'):
            found.extend(frame.index for frame in iterate(video.frames, found))
        assert 10 <= len(found) < 20


def iterate(frames, found):
    for frame in frames:
        found.append(frame.index)
    return []


def test_what_is_damaged_in_the_middle_is_passed_over(tmp_path):
    path = make_clip(tmp_path / 'a.mp4', 60, noise=True)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 8] = bytes(len(content) // 8)
    path.write_bytes(content)
    found = []
    with pytest.raises(DamagedVideoError, match='damaged: .* frames could be decoded'):
        iterate(open_video(path).frames, found)
    assert 40 < len(found) <= 60


@pytest.mark.parametrize('content', [b'', b'no video', b'#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n'])
def test_what_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / 'a.mp4'
    path.write_bytes(content)
    with pytest.raises(DamagedVideoError, match='a.mp4: not a video') as caught:
        open_video(path)
    assert isinstance(caught.value, (ImageError, DamagedImageError)) and 'http' not in str(caught.value)


def test_a_file_without_its_index_is_refused(tmp_path):
    with pytest.raises(DamagedVideoError, match='beginning or end is missing'):
        open_video(cut(make_clip(tmp_path / 'a.mov', 10, noise=True), 0.6))


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / 'a.mp4'
    with av.open(str(path), 'w') as container:
        track = container.add_stream('aac', rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format='fltp', layout='stereo')
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    with pytest.raises(DamagedVideoError, match='holds no pictures'):
        open_video(path)


def test_large_frames_are_refused_before_they_are_decoded(tmp_path):
    path = make_clip(tmp_path / 'a.mp4', 1)
    with pytest.raises(TooManyPixelsError, match=r'64×48 pixels, more than the 3,000 allowed.*--max-pixels'):
        open_video(path, max_pixels=3000)
    assert len(frames_of(path, max_pixels=64 * 48)) == 1


def test_paths_that_lead_to_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'):
        open_video(tmp_path / 'none.mp4')
    with pytest.raises(VideoError, match='a folder; say how many frames a second'):
        open_video(tmp_path)
    with pytest.raises(VideoError, match='fps is for a folder'):
        open_video(make_clip(tmp_path / 'a.mp4', 1), fps=10)


def test_without_pyav_it_is_said_what_to_install(tmp_path, monkeypatch):
    path = make_clip(tmp_path / 'a.mp4', 1)
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(VideoError, match=r"pip install 'ms-segformer\[video\]'"):
        open_video(path)


def test_a_video_that_is_not_read_to_its_end_is_closed(tmp_path, recwarn):
    video = open_video(make_clip(tmp_path / 'a.mp4'))
    next(video.frames)
    video.frames.close()
    del video
    gc.collect()
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


def test_a_folder_is_a_video_in_counting_order(tmp_path):
    folder = make_folder(tmp_path / 'shots')
    (folder / 'notes.txt').write_text('no image')
    make_folder(folder / 'more', 1)
    assert [path.rpartition('shot')[2] for path in sequence_files(str(folder))] == [f'{n}.png' for n in range(12)]
    video = open_video(folder, fps=4)
    assert (video.count, video.rate) == (12, 4)
    frames = list(video.frames)
    assert [frame.time for frame in frames] == [number / 4 for number in range(12)]
    assert (frames[3].image == picture(3)).all()


def test_images_of_a_folder_that_do_not_go_together(tmp_path):
    folder = make_folder(tmp_path / 'shots', 2)
    make_folder(tmp_path / 'other', 1, size=(20, 30)).joinpath('shot0.png').rename(folder / 'shot2.png')
    found = []
    with pytest.raises(VideoError, match=r'shot2.png: 30×20 pixels, and the first image of the folder 64×48'):
        iterate(open_video(folder, fps=4).frames, found)
    (folder / 'shot1.png').write_bytes(b'no image')
    with pytest.raises(DamagedVideoError, match='ends after 1 of 3 images'):
        iterate(open_video(folder, fps=4).frames, found)
    for fps in (0, -1, 1e9, float('nan')):
        with pytest.raises(VideoError, match='fps is'):
            open_video(folder, fps=fps)


def test_videos_are_known_by_their_suffix():
    assert is_video('a.mp4') and is_video('b/C.MOV') and not is_video('a.gif') and not is_video('mp4')
