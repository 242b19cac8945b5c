"""`ms-segformer predict --format`: other tools' files, made from finished results."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from small_evaluation import scale_to

from ms_segformer.cli.main import main
from ms_segformer.files import temporary_prefix
from ms_segformer.pipelines.image_segmentation import SegformerPipeline


@pytest.fixture(scope='module')
def small_model(tiny_model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp('model') / 'small'
    shutil.copytree(tiny_model_dir, folder)
    scale_to(folder, [64, 48])
    return folder


@pytest.fixture
def predict(small_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(('photos/a.png', 'photos/more/b.png')):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name)
    return lambda *words: main(['predict', 'photos', '--model', str(small_model), '--engine', 'torch', *words])


@pytest.fixture
def segmented(monkeypatch):
    """Counts the images that the pipeline is given."""
    seen = []
    call = SegformerPipeline.__call__

    def counted(self, images, *arguments, **options):
        def noted():
            for image in images:
                seen.append(image)
                yield image

        return call(self, noted(), *arguments, **options)

    monkeypatch.setattr(SegformerPipeline, '__call__', counted)
    return seen


def test_formats_are_made_of_finished_results(predict, segmented, capsys):
    assert predict('--save', 'labels') == 0
    assert len(segmented) == 2 and not os.path.exists('outputs/coco.json')
    assert predict('--save', 'labels', '--format', 'coco') == 0
    assert len(segmented) == 4, 'the JSON that formats are made of was missing'
    assert predict('--format', 'coco', 'csv', 'masks', '--save', 'json') == 0
    assert len(segmented) == 4
    assert '-> outputs/coco.json, outputs/segments.csv, outputs/masks/\n' in capsys.readouterr().out
    coco = COCO('outputs/coco.json')
    for image in coco.imgs.values():
        label = np.array(Image.open(f'outputs/photos/{image["file_name"].removesuffix(".png")}_labels.png'))
        for annotation in coco.imgToAnns[image['id']]:
            np.testing.assert_array_equal(coco.annToMask(annotation), label == annotation['category_id'] - 1)


def test_a_run_that_was_killed_leaves_nothing_behind(predict):
    assert predict('--save', 'json') == 0
    left = f'outputs/{temporary_prefix("coco.json")}123456.json'
    open(left, 'w').write('{')
    assert predict('--save', 'json', '--format', 'coco', 'labelstudio', '--regions', 'polygons') == 0
    assert not os.path.exists(left)
    json.load(open('outputs/labelstudio.json'))


def test_what_stays_as_it_is_is_an_error(predict, capsys):
    os.mkdir('outputs')
    open('outputs/coco.json', 'w').write('my own')
    assert predict('--save', 'json', '--format', 'coco', 'csv') == 1
    assert 'error: outputs/coco.json has been changed since it was written, or was not' in capsys.readouterr().err
    assert open('outputs/coco.json').read() == 'my own' and os.path.exists('outputs/segments.csv')


@pytest.mark.parametrize(
    'words, said',
    [
        (['--simplify', '1'], '--simplify is for --format coco or labelme or labelstudio'),
        (['--format', 'csv', '--regions', 'rle'], '--regions is for --format coco or labelstudio'),
        (['--format', 'coco', '--image-prefix', 'x'], '--image-prefix is for --format labelstudio'),
    ],
)
def test_options_that_nothing_takes_are_refused(predict, capsys, words, said):
    assert predict(*words) == 1
    assert said in capsys.readouterr().err and not os.path.exists('outputs')


@pytest.mark.parametrize(
    'words', [['--format', 'cocoo'], ['--simplify', '-1'], ['--simplify', 'nan'], ['--min-area', '1.5']]
)
def test_mistakes_are_said_at_once(predict, capsys, words):
    with pytest.raises(SystemExit):
        predict(*words)
    assert words[-1] in capsys.readouterr().err
