"""How close int8 comes to float32 on real photographs."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

import ms_segformer
from recipes.street_demo.classes import CAMVID, CLASSES, IGNORE, lookup_table

pytestmark = pytest.mark.skipif(
    not find_spec('nncf') or not find_spec('openvino'),
    reason="needs NNCF and OpenVINO: pip install 'ms-segformer[quantize]'",
)


@pytest.fixture(scope='module')
def camvid(shared):
    return shared / 'data' / 'camvid'


@pytest.fixture(scope='module')
def streets(camvid, tmp_path_factory):
    """Every sixth photograph that the demonstration model was trained on, to calibrate with."""
    folder = tmp_path_factory.mktemp('streets')
    for path in sorted((camvid / 'images' / 'train').glob('*.jpg'))[::6]:
        (folder / path.name).symlink_to(path)
    return folder


def both(model, streets, folder):
    """Pipelines in float32 and int8."""
    record = ms_segformer.quantize(model, streets, folder / 'quantized')
    assert record.error < 0.05
    return [ms_segformer.load(folder / 'quantized', device='cpu', precision=each) for each in ('float32', 'int8')]


def miou(maps, labels):
    """In percent, in plain numpy."""
    maps, labels = np.stack(maps), np.stack(labels)
    maps, labels = maps[labels != IGNORE], labels[labels != IGNORE]
    iou = [((maps == i) & (labels == i)).sum() / ((maps == i) | (labels == i)).sum() for i in range(len(CLASSES))]
    return 100 * np.mean(iou)


def test_the_demonstration_model_on_camvid(camvid, streets, tmp_path):
    """On the validation photographs mIoU stays within 0.3 points, and 99.5 % of the pixels are as in float32."""
    paths = sorted((camvid / 'images' / 'val').glob('*.jpg'))
    table = lookup_table(CAMVID)
    labels = [table[np.asarray(Image.open(camvid / 'annotations' / 'val' / f'{path.stem}.png'))] for path in paths]
    exact, rounded = (
        [result['seg_map'] for result in segmenter(list(map(str, paths)), with_masks=False)]
        for segmenter in both('demo', streets, tmp_path)
    )
    same = np.mean(np.stack(exact) == np.stack(rounded))
    figures = miou(exact, labels), miou(rounded, labels)
    print(f'mIoU {figures[0]:.2f} in float32, {figures[1]:.2f} in int8; {same:.4%} of the pixels are equal')
    assert len(paths) == 101
    assert abs(figures[0] - figures[1]) <= 0.3 and same >= 0.995


def test_clear_pixels_of_172_classes(shared, streets, tmp_path):
    """Where the winner leads by half a logit or more, 99 % of the pixels keep it."""
    pipelines = both(shared / 'oracle' / 'trained_b0', streets, tmp_path)
    paths = sorted((shared / 'data' / 'camvid' / 'images' / 'val').glob('*.jpg'))[::20]
    paths += sorted((shared / 'data' / 'cocostuff_sample' / 'val2017').glob('*.jpg'))
    equal = clear = 0
    for path in paths:
        prepared = pipelines[0].preprocessor(str(path))['img']
        maps = []
        for segmenter in pipelines:
            logits = segmenter.prepare_model()(prepared)
            maps.append(torch.nn.functional.interpolate(logits, prepared.shape[2:], mode='bilinear'))
        best = maps[0].topk(2, 1).values
        leads = best[:, 0] - best[:, 1] >= 0.5
        equal += int((maps[0].argmax(1) == maps[1].argmax(1))[leads].sum())
        clear += int(leads.sum())
    print(f'{equal / clear:.4%} of {clear:,} clear pixels are equal')
    assert clear > 1e6 and equal / clear >= 0.99
