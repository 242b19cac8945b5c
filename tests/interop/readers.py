"""Reads the files of `predict --format` with the other projects' own readers, in their environment.

    python readers.py FOLDER CLASSES READER TARGET

Writes the label map of every image into the folder TARGET as .npy, by the image's name; 255 where there is no class.
This file imports nothing of ms-segformer.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np


def pycocotools(folder, classes):
    from pycocotools.coco import COCO

    coco = COCO(str(folder / 'coco.json'))
    names = {each['id']: each['name'] for each in coco.loadCats(coco.getCatIds())}
    for image in coco.imgs.values():
        label = np.full((image['height'], image['width']), 255, np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(image['id'])):
            label[coco.annToMask(annotation) > 0] = classes.index(names[annotation['category_id']])
        yield image['file_name'], label


def supervision(folder, classes):
    import supervision

    dataset = supervision.DetectionDataset.from_coco(
        str(folder / 'images'), str(folder / 'coco.json'), force_masks=True
    )
    for path, image, detections in dataset:
        label = np.full(image.shape[:2], 255, np.uint8)
        for mask, number in zip(detections.mask, detections.class_id, strict=True):
            label[mask] = classes.index(dataset.classes[number])
        yield Path(path).name, label


def label_studio(folder, classes):
    """Brush masks by the SDK's converter; polygons as it writes them into a COCO file, filled by pycocotools."""
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface
    from pycocotools import mask as coco

    interface = LabelInterface((folder / 'labelstudio_config.xml').read_text(encoding='utf-8'))
    assert list(next(iter(interface.labels))) == classes, 'the labeling interface has other labels'
    for task in json.loads((folder / 'labelstudio.json').read_text()):
        prediction = task['predictions'][0]
        assert interface.validate_prediction(prediction), 'the SDK refuses the prediction'
        label = None
        for region in prediction['result']:
            height, width = region['original_height'], region['original_width']
            label = np.full((height, width), 255, np.uint8) if label is None else label
            value = region['value']
            if region['type'] == 'brushlabels':
                mask = np.reshape(decode_rle(value['rle']), (height, width, 4))[..., 3] > 0
            else:
                points = (np.array(value['points']) / 100 * [width, height]).ravel().tolist()
                mask = coco.decode(coco.frPyObjects([points], height, width))[..., 0] > 0
            label[mask] = classes.index(value[region['type']][0])
        yield task['data']['image'].rpartition('=')[2], label


def labelme(folder, classes):
    from labelme import utils
    from labelme._label_file import read_label_file

    for path in sorted((folder / 'labelme').rglob('*.json')):
        read_label_file(str(path))  # refuses what is not its form, and an image that is not there
        content = json.loads(path.read_text())
        size = content['imageHeight'], content['imageWidth']
        numbers = {'_background_': 0, **{name: number + 1 for number, name in enumerate(classes)}}
        found, _ = utils.shapes_to_label((*size, 3), content['shapes'], numbers)
        yield Path(content['imagePath']).name, (found.astype(np.int64) - 1).astype(np.uint8)


def datumaro(folder, classes):
    """What CVAT imports COCO with; polygons filled by pycocotools."""
    import datumaro
    from pycocotools import mask as coco

    (folder / 'cvat' / 'annotations').mkdir(parents=True)
    shutil.copytree(folder / 'images', folder / 'cvat' / 'images' / 'default')
    shutil.copy(folder / 'coco.json', folder / 'cvat' / 'annotations' / 'instances_default.json')
    dataset = datumaro.Dataset.import_from(str(folder / 'cvat'), 'coco_instances')
    names = [each.name for each in dataset.categories()[datumaro.AnnotationType.label]]
    for item in dataset:
        label = np.full(item.media.size, 255, np.uint8)
        for annotation in item.annotations:
            if annotation.type == datumaro.AnnotationType.mask:
                mask = annotation.image > 0
            elif annotation.type == datumaro.AnnotationType.polygon:
                mask = coco.decode(coco.frPyObjects([annotation.points], *label.shape))[..., 0] > 0
            else:  # the box beside each
                continue
            label[mask] = classes.index(names[annotation.label])
        yield f'{item.id}.png', label


def panopticapi(folder, classes):
    """`panopticapi.utils.rgb2id` of every picture, by its own list of segments."""
    from panopticapi.utils import rgb2id
    from PIL import Image

    content = json.loads((folder / 'panoptic.json').read_text())
    names = {each['id']: each['name'] for each in content['categories']}
    images = {each['id']: each['file_name'] for each in content['images']}
    for annotation in content['annotations']:
        ids = rgb2id(np.array(Image.open(folder / 'panoptic' / annotation['file_name'])))
        label = np.full(ids.shape, 255, np.uint8)
        for segment in annotation['segments_info']:
            label[ids == segment['id']] = classes.index(names[segment['category_id']])
        yield images[annotation['image_id']], label


READERS = {each.__name__: each for each in (pycocotools, supervision, label_studio, labelme, datumaro, panopticapi)}


if __name__ == '__main__':
    folder, classes, reader, target = sys.argv[1:]
    for name, label in READERS[reader](Path(folder), json.loads(classes)):
        np.save(Path(target) / f'{name}.npy', label)
