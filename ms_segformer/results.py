"""Keeps the results of the pipeline as files: label map, overlay, JSON."""
import json
import os
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from .files import atomic_write
from .preprocessors.image import load_image
from .visualization import draw_result, label_map_image, palette_for


class ResultWriter:
    """Writes the files of one image after another.

    Args:
        folder: where to write; made when missing.
        classes: class names by id.
        palette: (red, green, blue) per class, or None for a palette of our own.
        save: which of `labels` (NAME_labels.png, 8-bit palette PNG of class ids), `overlay` (NAME_overlay.jpg) and
            `json` (NAME.json) to write.
    """

    def __init__(self, folder, classes, palette=None, save=('labels', 'overlay', 'json')):
        self.folder = Path(folder)
        self.classes = classes
        self.palette = palette_for(len(classes), palette)
        self.save = save
        self._used = set()

    def write(self, image, result):
        """Write the files for `image` (path, URL, or anything `load_image` takes) and its pipeline `result`.

        Returns:
            (paths written, rows): the rows are the JSON's segments without their masks, largest first.
        """
        name = self._name(image)
        rows = segments(result, self.classes)
        writers = {'labels': ('_labels.png', self._write_labels), 'overlay': ('_overlay.jpg', self._write_overlay),
                   'json': ('.json', self._write_json)}
        paths = []
        for kind in self.save:
            suffix, write = writers[kind]
            path = self.folder / (name + suffix)
            with atomic_write(path) as temporary:
                write(temporary, image, result, rows)
            paths.append(path)
        return paths, rows

    def _name(self, image):
        """File stem of the image; a number is added when another image of this run has the same."""
        if isinstance(image, (str, os.PathLike)):
            text = os.fspath(image)
            stem = PurePosixPath(unquote(urlsplit(text).path)).stem if '://' in text else Path(text).stem
        else:
            stem = 'image'
        name, number = stem or 'image', 1
        while name in self._used:
            number += 1
            name = f'{stem}_{number}'
        self._used.add(name)
        return name

    def _write_labels(self, path, image, result, rows):
        label_map_image(result['seg_map'], self.palette).save(path)

    def _write_overlay(self, path, image, result, rows):
        picture = draw_result(load_image(image), result['seg_map'], rows, self.palette)
        Image.fromarray(picture).save(path, quality=92)

    def _write_json(self, path, image, result, rows):
        height, width = result['seg_map'].shape
        found = [dict(row, mask=coco_rle(result['seg_map'] == row['id'])) for row in rows]
        content = {'image': str(image) if isinstance(image, (str, os.PathLike)) else None,
                   'height': height, 'width': width, 'segments': found}
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + '\n', encoding='utf-8')


def segments(result, classes):
    """One dict per segment of a pipeline result, largest first: id, label, score, pixels, share (0–1) of the image."""
    counts = np.bincount(result['seg_map'].ravel(), minlength=len(classes))
    ids = sorted(np.flatnonzero(counts[:len(classes)]).tolist(), reverse=True)
    rows = [{'id': i, 'label': label, 'score': round(float(score), 6), 'pixels': int(counts[i]),
             'share': round(int(counts[i]) / result['seg_map'].size, 6)}
            for i, label, score in zip(ids, result['labels'], result['scores'], strict=True)]
    return sorted(rows, key=lambda row: -row['pixels'])


def coco_rle(mask):
    """H×W boolean mask to COCO's compressed run lengths, `{'size': [H, W], 'counts': str}`."""
    from pycocotools import mask as coco
    encoded = coco.encode(np.asfortranarray(mask, np.uint8))
    return {'size': [int(side) for side in encoded['size']], 'counts': encoded['counts'].decode('ascii')}
