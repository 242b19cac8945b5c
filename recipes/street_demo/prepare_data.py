"""Build the data set of the demonstration model: CamVid, and a few pairs of COCO-Stuff, with the model's ten classes.

    python recipes/street_demo/prepare_data.py --camvid DIR --cocostuff DIR -o DIR

`--camvid` holds images/{train,val}/*.jpg and annotations/{train,val}/*.png with the ids 0-11 of the usual 11-class
CamVid; `--cocostuff` holds train2017/, annotations/train2017/*_labelTrainIds.png and train.txt. The result has
images/{train,val} and annotations/{train,val}, ids 0-9 in the order of `classes.py` and 255; validation is CamVid's
alone.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np
from classes import CAMVID, lookup_table
from numpy.typing import NDArray
from PIL import Image

from ms_segformer.datasets import coco_stuff
from ms_segformer.files import atomic_write


def prepare(camvid: Path, cocostuff: Path, output: Path) -> dict[str, int]:
    """Write the data set under `output`; returns the number of pairs per split."""
    table = lookup_table(CAMVID)
    counts = {}
    for split in ('train', 'val'):
        images = sorted((camvid / 'images' / split).glob('*.jpg'))
        for image in images:
            label = np.asarray(Image.open(camvid / 'annotations' / split / f'{image.stem}.png'))
            _add(output, split, image, table[label])
        counts[split] = len(images)
    table = lookup_table(coco_stuff.CLASSES)
    for name in (cocostuff / 'train.txt').read_text().split():
        stem = Path(name).stem
        label = np.asarray(Image.open(cocostuff / 'annotations' / 'train2017' / f'{stem}_labelTrainIds.png'))
        _add(output, 'train', cocostuff / 'train2017' / f'{stem}.jpg', table[label])
        counts['train'] += 1
    return counts


def _add(output: Path, split: str, image: Path, label: NDArray[np.uint8]) -> None:
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
