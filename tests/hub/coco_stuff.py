"""The data set of the model cards, `damo/coco_stuff164k`, as the hub serves it: a meta file and one zip per split."""
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = {'train': 'train', 'validation': 'val'}


def add_coco_stuff(hub, folder):
    """Serve the pairs of a folder in COCO-Stuff's layout as `damo/coco_stuff164k`."""
    meta = {}
    for split, name in SPLITS.items():
        hub.add_file(f'/zips/{name}.zip', _zip(Path(folder), name))
        meta[split] = {'meta': '', 'file': f'{hub.url}/zips/{name}.zip'}
    hub.add_dataset('damo/coco_stuff164k', {'coco_stuff164k.json': json.dumps({'default': meta}).encode(),
                                            'README.md': b'COCO-Stuff 164k'})


def make_pairs(folder, count=4, size=(64, 48)):
    """Write a little data set in COCO-Stuff's layout: two regions per photograph, some pixels unlabelled."""
    folder = Path(folder)
    generator = np.random.default_rng(0)
    for name in SPLITS.values():
        (folder / f'{name}2017').mkdir(parents=True)
        (folder / 'annotations' / f'{name}2017').mkdir(parents=True)
        ids = [f'{number:012d}' for number in range(count)]
        for number, image_id in enumerate(ids):
            label = np.full(size[::-1], 145, np.uint8)  # sky-other above, grass below
            label[20 + number:] = 111
            label[:, :4] = 255
            image = np.where(label[..., None] == 111, (40, 130, 30), (120, 170, 230)).astype(np.uint8)
            image = image + generator.integers(0, 20, image.shape, np.uint8)
            Image.fromarray(image).save(folder / f'{name}2017' / f'{image_id}.jpg')
            Image.fromarray(label).save(folder / 'annotations' / f'{name}2017' / f'{image_id}_labelTrainIds.png')
        (folder / f'{name}.txt').write_text('\n'.join(ids) + '\n')
    return folder


def training_files(files, epochs=None, image_scale=None, crop=None, data_root='${data_root}/'):
    """Return the files of a model repository with a configuration for training on `damo/coco_stuff164k`.

    The paths start with `data_root`; the number of epochs and the sizes may be smaller than published.
    """
    configuration = json.loads(files['configuration.json'])
    text = json.dumps(configuration).replace('./data/coco_stuff164k/', data_root)
    configuration = json.loads(text)
    if epochs:
        configuration['train']['max_epochs'] = epochs
    if crop:
        _resize(configuration['dataset']['train']['pipeline'], image_scale, crop)
        _resize(configuration['dataset']['val']['pipeline'], image_scale, crop)
    return {**files, 'configuration.json': json.dumps(configuration).encode()}


def _resize(pipeline, image_scale, crop):
    sizes = {'img_scale': image_scale, 'crop_size': crop, 'size': crop}
    for transform in pipeline:
        for key, value in sizes.items():
            if key in transform:
                transform[key] = {'__class__': 'tuple', '__value__': list(value)}


def _zip(folder, name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob('*')):
            relative = path.relative_to(folder)
            if path.is_file() and (relative.parts[0] in (f'{name}2017', f'{name}.txt')
                                   or relative.parts[:2] == ('annotations', f'{name}2017')):
                archive.write(path, str(relative))
    return buffer.getvalue()
