"""Segment all photographs in a folder and its sub-folders, and write one COCO file:

    python examples/folder_to_coco.py photos photos.json --model b0

The label maps of all photographs are in memory at the end, a byte a pixel. For thousands of photographs, and to go on
after a stop, there is `ms-segformer predict photos --model b0 --format coco`.
"""

import argparse
import json
import os
from pathlib import Path

import ms_segformer
from ms_segformer.preprocessors.image import image_files
from ms_segformer.results import coco_of


def main() -> int:
    parser = argparse.ArgumentParser(description='Segment the photographs in a folder into one COCO file.')
    parser.add_argument('folder', type=Path)
    parser.add_argument('output', type=Path, help='COCO file to write')
    parser.add_argument('--model', required=True, help='b0 to b5, a model directory, a hub id, or demo')
    parser.add_argument('--regions', choices=('rle', 'polygons'), default='rle', help='default: %(default)s, exact')
    args = parser.parse_args()
    paths = image_files(args.folder)
    if not paths:
        parser.error(f'{args.folder}: no images; expected a folder with JPEG, PNG or other image files')
    if args.output.exists():
        parser.error(f'{args.output} is there already; name another file')

    results = ms_segformer.load(args.model)(paths, with_masks=False)
    document = coco_of(results, [os.path.relpath(path, args.folder) for path in paths], regions=args.regions)
    args.output.write_text(json.dumps(document), encoding='utf-8')
    print(f'{args.output}: {len(document["annotations"])} annotations of {len(document["images"])} images')
    return 0 if len(document['images']) == len(paths) else 1  # the pipeline has logged why


if __name__ == '__main__':
    raise SystemExit(main())
