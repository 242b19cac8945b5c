"""Makes small videos for tests, each frame of a color that tells its number."""

import struct
from fractions import Fraction

import numpy as np
from PIL import Image

RATE = 10  # frames a second
TICK = Fraction(1, 1000)


def picture(number, size=(48, 64)):
    """H×W×3: the left half as bright as the number's last digit says, the right half dark; a bright band at the top."""
    image = np.zeros((*size, 3), np.uint8)
    image[:, : size[1] // 2] = 40 + 20 * (number % 10)
    image[: size[0] // 4] = 250
    return image


def make_clip(path, count=6, size=(48, 64), times=None, codec='libx264', noise=False, sound=False, format=None):
    """Write a video; `times` are those of the frames in seconds, and `noise` makes each frame take many bytes."""
    import av

    options = {'movflags': '+faststart'} if str(path).endswith('.mp4') else {}
    random = np.random.default_rng(0)
    with av.open(str(path), 'w', format=format, options=options) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width, stream.pix_fmt = *size, 'yuv420p' if size[0] % 2 == size[1] % 2 == 0 else 'yuv444p'
        stream.codec_context.time_base, stream.codec_context.gop_size = TICK, 3
        track = container.add_stream('aac', rate=8000) if sound else None
        for number in range(count):
            image = random.integers(0, 256, (*size, 3), np.uint8) if noise else picture(number, size)
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            frame.pts, frame.time_base = round((times[number] if times else number / RATE) / TICK), TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track:
            for number in range(count):
                frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format='fltp', layout='stereo')
                frame.sample_rate, frame.pts = 8000, number * 1024
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def turned(path, *matrix):
    """Have an MP4 file ask for its frames to be shown through a matrix (a, b, c, d), as telephones do."""
    content = bytearray(path.read_bytes())
    place = content.find(b'tkhd') + 4 + 4 + 5 * 4 + 8 + 4 * 2
    a, b, c, d = (value << 16 for value in matrix)
    content[place : place + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def cut(path, share):
    """Leave the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def make_folder(folder, count=12, size=(48, 64)):
    """Images whose names count without leading zeros."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(picture(number % 10, size)).save(folder / f'shot{number}.png')
    return folder
