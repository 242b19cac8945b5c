"""`ms-segformer predict IMAGE… --model DIR_OR_ID -o OUT`: segment photographs and keep the results as files."""
import logging
from contextlib import contextmanager

HELP = 'segment images: label map, overlay with legend, and JSON with scores, shares and masks (COCO RLE)'
OUTPUTS = ('labels', 'overlay', 'json')


def add_arguments(parser):
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files, folders, patterns ("shots/*.jpg") or '
                        'URLs')
    parser.add_argument('--model', required=True, metavar='DIR_OR_ID',
                        help='model directory, hub id, b0 to b5, or demo: a small street-scene model in the package')
    parser.add_argument('-o', '--output', default='outputs', metavar='DIR',
                        help='where to write (default: %(default)s)')
    parser.add_argument('--save', nargs='+', choices=OUTPUTS, default=list(OUTPUTS),
                        help='what to write (default: all)')
    parser.add_argument('--device', default='gpu',
                        help='cpu, gpu or cuda:0; without CUDA the CPU (default: %(default)s)')
    parser.add_argument('--engine', default='auto', help='auto, torch, openvino or onnxruntime (default: %(default)s)')
    parser.add_argument('--precision', default='float32', choices=('float32', 'bf16'), help='default: %(default)s')
    parser.add_argument('--mode', choices=('whole', 'slide'), help="one piece or overlapping windows (default: the "
                        "configuration's)")
    parser.add_argument('--full-size', action='store_true', help='do not scale the image to the network\'s usual size '
                        'first; with --mode slide for images of any size')
    parser.add_argument('--batch-size', type=int, default=None, metavar='N', help='images worked on together')


def run(args):
    import os
    import sys

    from modelscope.pipelines import pipeline
    from tqdm import tqdm

    from ms_segformer.config import read_configuration
    from ms_segformer.metainfo import DEMO, DEMO_NOTE, TASK, find_model
    from ms_segformer.results import ResultWriter
    images = _expand(args.images)
    if args.model == DEMO:
        print(f'note: {DEMO_NOTE}', file=sys.stderr)
    model = find_model(args.model)
    if os.path.isdir(model):
        read_configuration(model)  # its errors are clearer than what ModelScope makes of a directory it does not know
    segmenter = pipeline(TASK, model, device=args.device, engine=args.engine, precision=args.precision)
    writer = ResultWriter(args.output, segmenter.settings.classes, segmenter.settings.palette, args.save)
    failures = []
    results = segmenter(iter(images), batch_size=args.batch_size, mode=args.mode, resize=not args.full_size,
                        with_masks=False)
    with _without_warnings('ms_segformer.pipelines'), tqdm(
            zip(images, results, strict=True), total=len(images), unit='image',
            disable=len(images) == 1 or not sys.stderr.isatty()) as progress:
        for image, result in progress:
            if 'error' in result:
                failures.append((image, result['error']))
                continue
            paths, rows = writer.write(image, result)
            with tqdm.external_write_mode():
                _report(image, paths, rows)
    for image, reason in failures:
        print(f'error: {reason if image in reason else f"{image}: {reason}"}', file=sys.stderr)
    if failures and len(images) > 1:
        print(f'{len(images) - len(failures)} of {len(images)} images segmented', file=sys.stderr)
    return 1 if failures else 0


@contextmanager
def _without_warnings(name):
    """Silence a logger's warnings: failures are listed at the end, so the pipeline need not say them too."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _report(image, paths, rows):
    print(image)
    for row in rows:
        print(f'  {row["share"]:7.2%}  {row["label"]:<20} score {row["score"]:.2f}')
    print('  -> ' + ', '.join(map(str, paths)), flush=True)


def _expand(items):
    """Files, folders (with their sub-folders) and patterns to a list of paths, each once, in the order given."""
    import glob
    import os

    from ms_segformer.preprocessors.image import ImageError, image_files
    found = {}
    for item in items:
        if os.path.isdir(item):
            inside = image_files(item)
            if not inside:
                raise ImageError(f'{item}: no images in this folder')
        elif not os.path.exists(item) and glob.has_magic(item) and '://' not in item:
            inside = sorted(glob.glob(item, recursive=True))
            if not inside:
                raise FileNotFoundError(f'{item}: nothing matches this pattern')
        else:
            inside = [item]
        found.update(dict.fromkeys(inside))
    return list(found)
