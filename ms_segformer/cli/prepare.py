"""`ms-segformer prepare`: official COCO-Stuff label maps → training ids and split files; a small example."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .arguments import number_of_processes, output_folder

if TYPE_CHECKING:
    from ..datasets.preparation import Preparation

HELP = 'convert a data set into the layout that the published configurations train on, or make a small example of one'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='DATASET')
    coco = kinds.add_parser(
        'coco-stuff',
        help='COCO-Stuff 164k: ids 0-181 of stuffthingmaps → 0-170, and split files',
        description='Writes annotations/<split>2017/<id>_labelTrainIds.png and <split>.txt. '
        'Takes any subset. Repeat an interrupted run: what is finished is kept.',
    )
    coco.add_argument('--images', required=True, metavar='DIR', help='folder with train2017 and/or val2017')
    coco.add_argument(
        '--stuffthingmaps',
        required=True,
        metavar='DIR',
        help='folder with the official label maps, unpacked from stuffthingmaps_trainval2017.zip',
    )
    coco.add_argument('-o', '--output', type=output_folder, required=True, metavar='DIR', help='folder to write to')
    coco.add_argument('--no-links', action='store_true', help='do not link the image folders into the output folder')
    coco.add_argument('-j', '--jobs', type=number_of_processes, metavar='N', help='processes; default: one per core')
    example = kinds.add_parser(
        'example',
        help='16 small pictures of circles, squares and triangles, to try training',
        description='Writes images/{train,val}, annotations/{train,val} and classes.txt, always the same.',
    )
    example.add_argument(
        '-o', '--output', type=output_folder, required=True, metavar='DIR', help='a new or empty folder'
    )


def run(args: argparse.Namespace) -> int:
    if args.kind == 'example':
        from ..datasets.example import CLASSES, SPLITS, write_example

        folder = write_example(args.output)
        print(
            f'{folder}: {", ".join(f"{count} pairs for {split}" for split, count in SPLITS.items())}; '
            f'classes {", ".join(CLASSES)} (in {folder / "classes.txt"})'
        )
        return 0
    from ..datasets.preparation import prepare_coco_stuff

    results = prepare_coco_stuff(args.images, args.stuffthingmaps, args.output, args.jobs, not args.no_links)
    for result in results:
        print('\n'.join(_report(result, args.output)))
    return 1 if any(result.failed for result in results) else 0


def _report(result: 'Preparation', output: str, limit: int = 10) -> Iterator[str]:
    """Return what happened to one split as lines."""
    yield (
        f'{result.split}: {len(result.names)} pairs in {output}/{result.split}.txt, '
        f'{result.written} label maps written, {result.kept} kept'
    )
    if result.without_label:
        yield f'  {len(result.without_label)} images have no label map and are left out, e.g. {result.without_label[0]}'
    for path, reason in result.failed[:limit]:
        yield f'  failed: {path}: {reason}'
    if len(result.failed) > limit:
        yield f'  … {len(result.failed) - limit} more failed'
