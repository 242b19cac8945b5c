"""Build the data set of the demonstration model: CamVid with COCO-Stuff class ids, and a few COCO-Stuff pairs.

    python recipes/street_demo/prepare_data.py --camvid DIR --cocostuff DIR -o DIR

`--camvid` holds images/{train,val}/*.jpg and annotations/{train,val}/*.png with the ids 0-11 of the usual 11-class
CamVid; `--cocostuff` holds train2017/, annotations/train2017/*_labelTrainIds.png and train.txt. The result has
images/{train,val} and annotations/{train,val}; validation is CamVid's alone.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from ms_segformer.datasets.coco_stuff import CLASSES
from ms_segformer.files import atomic_write

# CamVid's classes in the order of their ids, and the COCO-Stuff class that each becomes (None: ignored).
CAMVID = (
    'sky-other',
    'building-other',
    'structural-other',
    'road',
    'pavement',
    'tree',
    None,
    'fence',
    'car',
    'person',
    'bicycle',
    None,
)


def camvid_table():
    """256 entries: CamVid id to COCO-Stuff training id, 255 where there is none."""
    table = np.full(256, 255, np.uint8)
    for camvid_id, name in enumerate(CAMVID):
        if name is not None:
            table[camvid_id] = CLASSES.index(name)
    return table


def prepare(camvid, cocostuff, output):
    """Write the data set under `output`; returns the number of pairs per split."""
    table = camvid_table()
    counts = {}
    for split in ('train', 'val'):
        images = sorted((camvid / 'images' / split).glob('*.jpg'))
        for image in images:
            label = np.asarray(Image.open(camvid / 'annotations' / split / f'{image.stem}.png'))
            _add(output, split, image, table[label])
        counts[split] = len(images)
    for name in (cocostuff / 'train.txt').read_text().split():
        stem = Path(name).stem
        label = np.asarray(Image.open(cocostuff / 'annotations' / 'train2017' / f'{stem}_labelTrainIds.png'))
        _add(output, 'train', cocostuff / 'train2017' / f'{stem}.jpg', label)
        counts['train'] += 1
    return counts


def _add(output, split, image, label):
    target = output / 'images' / split / image.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        try:
            os.link(image, target)
        except OSError:  # another file system
            shutil.copyfile(image, target)
    with atomic_write(output / 'annotations' / split / f'{image.stem}.png') as temporary:
        Image.fromarray(label).save(temporary)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--camvid', type=Path, required=True)
    parser.add_argument('--cocostuff', type=Path, required=True)
    parser.add_argument('-o', '--output', type=Path, required=True)
    arguments = parser.parse_args()
    print(prepare(arguments.camvid, arguments.cocostuff, arguments.output))
