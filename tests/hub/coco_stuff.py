"""The data set of the model cards, `damo/coco_stuff164k`, in the forms that a hub serves a data set in."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ms_segformer.datasets.coco_stuff import RAW_TO_TRAIN

SPLITS = {'train': 'train', 'validation': 'val'}


def add_coco_stuff(hub, folder, name='coco_stuff164k', inside=''):
    """Serve the pairs of a folder in COCO-Stuff's layout as `damo/NAME`, as published: a meta file and a zip per split.

    `inside` is a folder in the zips that holds everything.
    """
    meta = {}
    for split, short in SPLITS.items():
        hub.add_file(f'/zips/{name}/{short}.zip', _zip(Path(folder), short, inside))
        meta[split] = {'meta': '', 'file': f'{hub.url}/zips/{name}/{short}.zip'}
    hub.add_dataset(
        f'damo/{name}', {f'{name}.json': json.dumps({'default': meta}).encode(), 'README.md': b'COCO-Stuff 164k'}
    )


def add_tables(hub, folder, name='coco_stuff164k', columns=('image', 'label'), suffix='_labelTrainIds.png'):
    """Serve the same as parquet files, one per split, with columns of pictures."""
    import datasets

    files = {'README.md': b'COCO-Stuff 164k'}
    for split, short in SPLITS.items():
        ids = (Path(folder) / f'{short}.txt').read_text().split()
        paths = [
            [str(Path(folder) / f'{short}2017' / f'{image_id}.jpg') for image_id in ids],
            [str(Path(folder) / 'annotations' / f'{short}2017' / f'{image_id}{suffix}') for image_id in ids],
        ]
        table = datasets.Dataset.from_dict(dict(zip(columns, paths, strict=True)))
        for column in columns:
            table = table.cast_column(column, datasets.Image())
        buffer = io.BytesIO()
        table.to_parquet(buffer)
        files[f'data/{split}-00000-of-00001.parquet'] = buffer.getvalue()
    hub.add_dataset(f'damo/{name}', files, formation=4)


def add_files(hub, folder, name='coco_stuff164k'):
    """Serve the same as the plain files that they are."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob('*') if path.is_file()
    }
    hub.add_dataset(f'damo/{name}', {'README.md': b'COCO-Stuff 164k', **files}, formation=4)


def to_official(folder):
    """Give the label maps of `make_pairs` their official names and ids; a strip of wall-other shows which ids they are.

    Returns:
        The folder.
    """
    for path in sorted(Path(folder).glob('annotations/*/*_labelTrainIds.png')):
        label = np.asarray(Image.open(path)).copy()
        official = np.append(np.flatnonzero(RAW_TO_TRAIN != 255), np.full(85, 255))[label].astype(np.uint8)
        official[:2] = 172
        Image.fromarray(official).save(path.with_name(path.name.replace('_labelTrainIds', '')))
        path.unlink()
    return folder


def make_pairs(folder, count=4, size=(64, 48)):
    """Write a little data set in COCO-Stuff's layout: two regions per photograph, some pixels unlabeled."""
    folder = Path(folder)
    generator = np.random.default_rng(0)
    for name in SPLITS.values():
        (folder / f'{name}2017').mkdir(parents=True)
        (folder / 'annotations' / f'{name}2017').mkdir(parents=True)
        ids = [f'{number:012d}' for number in range(count)]
        for number, image_id in enumerate(ids):
            label = np.full(size[::-1], 145, np.uint8)  # sky-other above, grass below
            label[20 + number :] = 111
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


def _zip(folder, name, inside):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob('*')):
            relative = path.relative_to(folder)
            if path.is_file() and (
                relative.parts[0] in (f'{name}2017', f'{name}.txt')
                or relative.parts[:2] == ('annotations', f'{name}2017')
            ):
                archive.write(path, str(Path(inside) / relative))
    return buffer.getvalue()
