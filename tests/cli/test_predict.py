"""`ms-segformer predict`: what it writes, and what it says when something is wrong."""
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from ms_segformer.cli.main import main
from ms_segformer.datasets.coco_stuff import CLASSES


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    (folder / 'more').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ('a.jpg', 'b.png', 'more/a.png'):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / name)
    return folder


def predict(*arguments):
    return main(['predict', *map(str, arguments)])


def test_label_map_overlay_and_json_agree(photos, tiny_model_dir, tmp_path, capsys):
    out = tmp_path / 'out'
    assert predict(photos / 'a.jpg', '--model', tiny_model_dir, '-o', out) == 0
    assert sorted(p.name for p in out.iterdir()) == ['a.json', 'a_labels.png', 'a_overlay.jpg']
    labels = Image.open(out / 'a_labels.png')
    assert labels.mode == 'P' and labels.size == (64, 48)
    seg_map = np.asarray(labels)
    content = json.loads((out / 'a.json').read_text(encoding='utf-8'))
    assert (content['height'], content['width']) == seg_map.shape
    assert {row['id'] for row in content['segments']} == {i for i in np.unique(seg_map).tolist() if i < len(CLASSES)}
    for row in content['segments']:
        mask = seg_map == row['id']
        assert row['label'] == CLASSES[row['id']]
        np.testing.assert_array_equal(coco.decode(row['mask']), mask)
        assert row['pixels'] == mask.sum() and abs(row['share'] - mask.mean()) < 1e-6
        assert 0 < row['score'] <= 1
    shares = [row['share'] for row in content['segments']]
    assert shares == sorted(shares, reverse=True)
    overlay = Image.open(out / 'a_overlay.jpg')
    assert overlay.width > 64 and overlay.height >= 48
    printed = capsys.readouterr().out
    assert all(row['label'] in printed for row in content['segments'])


def test_folders_patterns_and_repeated_names(photos, tiny_model_dir, tmp_path):
    out = tmp_path / 'out'
    assert predict(photos, photos / '*.png', '--model', tiny_model_dir, '-o', out, '--save', 'labels') == 0
    assert sorted(p.name for p in out.iterdir()) == ['a_2_labels.png', 'a_labels.png', 'b_labels.png']


def test_a_bad_image_fails_alone(photos, tiny_model_dir, tmp_path, capsys):
    (photos / 'broken.jpg').write_bytes(b'nothing')
    out = tmp_path / 'out'
    assert predict(photos / 'a.jpg', photos / 'broken.jpg', 'nowhere.jpg', '--model', tiny_model_dir, '-o', out) == 1
    said = capsys.readouterr().err
    assert 'broken.jpg: not an image' in said and 'nowhere.jpg: no such file' in said
    assert '1 of 3 images segmented' in said
    assert (out / 'a.json').exists() and not list(out.glob('broken*')) and not list(out.glob('.*'))


@pytest.mark.parametrize('images, model, said', [
    (['nowhere.jpg'], None, 'nowhere.jpg: no such file'),
    (['*.nothing'], None, 'nothing matches'),
    (['.'], None, 'no images in this folder'),
    (['nowhere.jpg'], './no_model', 'no_model: no such directory'),
    (['nowhere.jpg'], '.', 'configuration.json'),
])
def test_mistakes_are_one_line_and_exit_code_1(tmp_path, monkeypatch, tiny_model_dir, capsys, images, model, said):
    monkeypatch.chdir(tmp_path)
    assert predict(*images, '--model', model or tiny_model_dir) == 1
    error = capsys.readouterr().err
    assert said in error and 'Traceback' not in error
    assert not (tmp_path / 'outputs').exists()


def test_a_full_disk_leaves_no_half_written_file(photos, tiny_model_dir, tmp_path, monkeypatch, capsys):
    def no_space(self, path, *_, **__):
        with open(path, 'wb') as file:
            file.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Image.Image, 'save', no_space)
    out = tmp_path / 'out'
    assert predict(photos / 'a.jpg', '--model', tiny_model_dir, '-o', out) == 1
    assert 'No space left' in capsys.readouterr().err
    assert list(out.iterdir()) == []
