"""(l) A video: frames a second of `stream` and of `predict`, beside those of the pipeline on frames decoded before.

python -m benchmarks.video --model DIR
"""

import tempfile
from contextlib import closing
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .measure import interleave, parser, quiet, rate_table, report
from .subjects import photograph

SIZE = 640, 360
RATE = 30  # frames a second


def main():
    p = parser(__doc__.splitlines()[0], rounds=3)
    p.add_argument('--frames', type=int, default=900, help='of the video, 30 a second (default: %(default)s)')
    p.add_argument('--precision', default='float32')
    args = p.parse_args()
    args.warmup = min(args.warmup, 1)
    quiet()
    from ms_segformer import load
    from ms_segformer.preprocessors.video import open_video

    model = args.model or 'demo'
    segmenter = load(model, device='cpu', precision=args.precision)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / 'clip.mp4'
        make(clip, args.image or photograph(width=800), args.frames)
        with closing(open_video(clip).frames) as frames:
            decoded = [frame.image for frame in frames]
        assert len(decoded) == args.frames
        candidates = {
            'pipeline, decoded frames': lambda: count(segmenter(iter(decoded), with_masks=False)),
            'stream': lambda: count(segmenter.stream(clip, with_masks=False)),
            'stream and JSON lines': lambda: write(segmenter, clip, Path(folder), ('json',)),
            'stream, JSON lines, overlay': lambda: write(segmenter, clip, Path(folder), ('json', 'overlay')),
        }
        seconds = interleave({name: partial(complete, run, args.frames) for name, run in candidates.items()}, args)
        kilobytes = {path.suffix: path.stat().st_size / args.frames / 1000 for path in Path(folder).glob('out.*')}
    rows = rate_table(seconds, args.frames, 'pipeline, decoded frames', 'frames')
    notes = (
        f'{args.frames} frames of {SIZE[0]}×{SIZE[1]}, {args.precision}. The overlay has {kilobytes[".mp4"]:.1f} kB a '
        f'frame, the JSON lines {kilobytes[".jsonl"]:.1f}.'
    )
    report(f'A video, {Path(model).name}', rows, args, 'video', notes)


def complete(candidate, frames):
    """Run a candidate, which has to see every frame."""
    assert candidate() == frames


def make(path, photo, count):
    """A video that moves about a photograph."""
    import av

    with Image.open(photo) as image:
        picture = np.asarray(image.convert('RGB').resize((SIZE[0] + 200, SIZE[1] + 160)))
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=RATE)
        stream.width, stream.height = SIZE
        stream.pix_fmt = 'yuv420p'
        for number in range(count):
            left, top = int(100 + 99 * np.sin(number / 40)), int(80 + 79 * np.cos(number / 67))
            part = np.ascontiguousarray(picture[top : top + SIZE[1], left : left + SIZE[0]])
            frame = av.VideoFrame.from_ndarray(part, format='rgb24')
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def count(results):
    return sum(1 for result in results if result['labels'])


def write(segmenter, clip, folder, kinds):
    """What `predict` does of a video, without its manifest."""
    from ms_segformer.preprocessors.video import open_video
    from ms_segformer.results import ResultWriter, VideoFiles

    video = open_video(clip)
    writer = ResultWriter(folder, segmenter.classes, segmenter.settings.palette)
    paths = {kind: folder / {'json': 'out.jsonl', 'overlay': 'out.mp4'}[kind] for kind in kinds}
    found = 0
    with VideoFiles(paths, video, writer) as files:
        for result in segmenter.stream(video, with_masks=False, with_image='overlay' in kinds):
            files.add(result)
            found += 1
        files.finish()
    return found


if __name__ == '__main__':
    main()
