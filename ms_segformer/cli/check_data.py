"""`ms-segformer check-data CONFIG_OR_DIR`: find every unusable pair before training does."""

import argparse
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .arguments import input_folder, label_value, number_of_processes, written_file

if TYPE_CHECKING:
    from ..datasets.inspection import Inspection

HELP = 'open every image and label map of a data set; report unusable files and count the classes'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'path',
        metavar='CONFIG_OR_DIR',
        help='configuration.json, a model directory, or a folder with images and label maps '
        '(train2017 + annotations/train2017, images/train + labels/train, images + labels, …), or with annotations of '
        'COCO, LabelMe or Label Studio in place of the label maps',
    )
    parser.add_argument(
        '--split',
        action='append',
        choices=('train', 'val', 'test', 'all'),
        help='check only this split; may be repeated',
    )
    parser.add_argument(
        '--classes', metavar='FILE', help='text file with one class name per line, in place of what the data say'
    )
    parser.add_argument(
        '--data-root', type=input_folder, metavar='DIR', help='folder that replaces ${data_root} in the configuration'
    )
    parser.add_argument(
        '--reduce-zero-label',
        action='store_true',
        help='for a folder: label 0 is "not labeled" and the others move down by one',
    )
    parser.add_argument(
        '--ignore-index',
        type=label_value,
        default=255,
        metavar='N',
        help='for a folder: label value for "not labeled" besides 255',
    )
    parser.add_argument('--picture', type=picture, metavar='PNG', help='draw the class histogram into this file')
    parser.add_argument('--json', action='store_true', help='print the whole report as JSON')
    parser.add_argument('--all', action='store_true', help='name every file (otherwise 10 per kind of problem)')
    parser.add_argument('-j', '--jobs', type=number_of_processes, metavar='N', help='processes; default: one per core')


def picture(text: str) -> str:
    """A file to draw into; its folder is made when missing."""
    if os.path.isdir(text):
        raise argparse.ArgumentTypeError(f'{text} is a folder; name a file')
    return written_file(text)


def run(args: argparse.Namespace) -> int:
    from ..datasets.errors import DatasetError
    from ..datasets.inspection import draw_histogram, inspect
    from ..datasets.layout import find_data_sources
    from ..datasets.sources import build_source, share_ids

    sections = find_data_sources(args.path, args.classes, args.data_root, args.reduce_zero_label, args.ignore_index)
    if args.split:
        missing = sorted(set(args.split) - set(sections))
        if missing:
            raise DatasetError(f'{args.path} has no split {", ".join(missing)}; it has {", ".join(sections)}')
        sections = {split: sections[split] for split in args.split}
    sources = {split: build_source(section, check=False) for split, section in sections.items()}
    share_ids(sources.values())
    found = {split: inspect(source, args.jobs, split) for split, source in sources.items()}
    if args.picture:
        draw_histogram(found, {split: source.PALETTE for split, source in sources.items()}, args.picture)
    if args.json:
        print(
            json.dumps(
                {split: inspection.to_json() for split, inspection in found.items()}, ensure_ascii=False, indent=2
            )
        )
    else:
        for split, inspection in found.items():
            print('\n'.join(_report(split, sections[split], inspection, None if args.all else 10)))
        if args.picture:
            print(f'class histogram: {args.picture}')
    return 0 if all(inspection.usable for inspection in found.values()) else 1


def _report(split: str, section: dict, inspection: 'Inspection', limit: int | None) -> Iterator[str]:
    """Return the report on one split as lines."""
    from ..datasets.inspection import histogram_lines

    labeled = int(inspection.pixels.sum())
    share = 100 * inspection.ignored / max(labeled + inspection.ignored, 1)
    yield f'{split}: {inspection.pairs} pairs, {labeled:,} labeled pixels, {share:.1f} % not labeled'
    yield f'  images  {section.get("img_root", "")}'
    yield f'  labels  {section.get("label_root", "")}'
    if inspection.sizes:
        (width, height), count = max(inspection.sizes.items(), key=lambda item: item[1])
        yield f'  sizes   {len(inspection.sizes)}, the most frequent {width}×{height} ({count} images)'
    yield ''
    yield from (f'  {line}' for line in histogram_lines(inspection))
    yield ''
    if not inspection.pairs:
        yield '  nothing found: no image with a label map'
    for kind, count in inspection.counts().items():
        yield f'  {kind}: {count}'
        problems = [problem for problem in inspection.problems if problem.kind == kind]
        for problem in problems[:limit]:
            yield f'    {problem.file}: {problem.detail}'
        if limit and count > limit:
            yield f'    … {count - limit} more (--all names them)'
    if inspection.usable:
        yield '  no problems'
    yield ''
