"""Training and the other commands on annotations of COCO, in place of label maps."""

import json
import shutil

import numpy as np
import pytest
from modelscope.trainers import build_trainer
from PIL import Image
from tiny_run import CLASSES

from ms_segformer.cli.main import main
from ms_segformer.datasets.label_file import read_label
from ms_segformer.results.formats import encode_rle


def as_coco(data, folder, names=CLASSES):
    """Copy a data folder, its label maps as COCO's files."""
    for split in ('train', 'val'):
        shutil.copytree(data / 'images' / split, folder / 'images' / split)
        images, annotations = [], []
        for path in sorted((folder / 'images' / split).iterdir()):
            label = read_label(data / 'annotations' / split / f'{path.stem}.png')
            size = {'height': label.shape[0], 'width': label.shape[1]}
            images.append({'id': path.stem, 'file_name': path.name, **size})
            for each in np.unique(label[label < len(CLASSES)]).tolist():
                mask = encode_rle(label == each)
                annotations.append({'image_id': path.stem, 'category_id': each, 'segmentation': mask, 'iscrowd': 1})
        categories = [{'id': number, 'name': name} for number, name in enumerate(names)]
        (folder / f'{split}.json').write_text(
            json.dumps({'images': images, 'annotations': annotations, 'categories': categories})
        )
    return folder


def test_training_sees_what_it_sees_of_label_maps(options, tiny_data, tmp_path):
    """The classes come from the files; weights and metrics are those of a run on label maps."""
    folder = as_coco(tiny_data, tmp_path / 'data')
    changes = {'data_root': str(folder), 'work_dir': str(tmp_path / 'annotated')}
    without = {key: value for key, value in options.items() if key != 'classes'}
    runs = []
    for arguments in (options, {**without, **changes}):
        runs.append(build_trainer('easycv', {**arguments, 'max_epochs': 1}))  # one after the other: each sets the seed
        runs[-1].train()
    assert runs[1].train_dataset.CLASSES == list(CLASSES)
    assert runs[0].metric_values == runs[1].metric_values
    for (name, ours), theirs in zip(
        runs[0].model.state_dict().items(), runs[1].model.state_dict().values(), strict=True
    ):
        assert ours.equal(theirs), name


def test_classes_of_the_model_keep_their_ids(options, tiny_data, tmp_path):
    names = ['sky-other', 'grass', 'frisbee']
    folder = as_coco(tiny_data, tmp_path / 'data', names)
    without = {key: value for key, value in options.items() if key != 'classes'}
    trainer = build_trainer('easycv', {**without, 'data_root': str(folder)})
    dataset = trainer.train_dataset
    assert dataset.num_classes == 171
    assert set(np.unique(dataset.load_label(0)).tolist()) <= {*map(dataset.CLASSES.index, names), 255}


def test_check_data_reads_annotations(tiny_data, tmp_path, capsys):
    folder = as_coco(tiny_data, tmp_path / 'data')
    main(['check-data', str(tiny_data), '--classes', str(class_file(tmp_path)), '--json', '-j', '1'])
    expected = json.loads(capsys.readouterr().out)
    assert main(['check-data', str(folder), '--json', '-j', '1']) == 0
    assert json.loads(capsys.readouterr().out) == expected
    content = json.loads((folder / 'val.json').read_text())
    content['annotations'][0]['segmentation']['counts'] = '1'
    (folder / 'val.json').write_text(json.dumps(content))
    assert main(['check-data', str(folder), '-j', '1']) == 1
    said = capsys.readouterr().out
    assert 'unreadable: 1' in said and 'the run lengths do not fit' in said


def class_file(folder):
    path = folder / 'names.txt'
    path.write_text('\n'.join(CLASSES))
    return path


@pytest.mark.parametrize('name, code', [('person', 0), ('unheard of', 1)])
def test_eval_finds_a_model_s_classes_by_their_names(tiny_model_dir, tmp_path, capsys, name, code):
    (tmp_path / 'data').mkdir()
    Image.new('RGB', (64, 64), 'green').save(tmp_path / 'data' / '0.png')
    content = {
        'images': [{'id': 0, 'file_name': '0.png', 'height': 64, 'width': 64}],
        'categories': [{'id': 5, 'name': name}],
        'annotations': [{'image_id': 0, 'category_id': 5, 'segmentation': [[0, 0, 64, 0, 64, 64, 0, 64]]}],
    }
    (tmp_path / 'data' / 'coco.json').write_text(json.dumps(content))
    words = ['eval', '--model', tiny_model_dir, '--data', tmp_path / 'data', '--split', 'all', '--engine', 'torch']
    assert main([str(word) for word in words]) == code
    printed = capsys.readouterr()
    assert ('person' in printed.out and 'taken as the ids' not in printed.err) if code == 0 else name in printed.err


def test_pixels_in_no_region_are_of_a_class_on_request(options, tiny_data, tmp_path):
    folder = as_coco(tiny_data, tmp_path / 'data', [*CLASSES, 'background'])
    without = {key: value for key, value in options.items() if key != 'classes'}
    for split in ('train', 'val'):
        content = json.loads((folder / f'{split}.json').read_text())
        content['annotations'] = content['annotations'][:1]
        (folder / f'{split}.json').write_text(json.dumps(content))
    said = {'dataset.train.data_source.unlabeled': 'background'}
    trainer = build_trainer('easycv', {**without, 'data_root': str(folder), 'cfg_options': said})
    assert (trainer.train_dataset.load_label(1) == len(CLASSES)).all()
    assert (trainer.eval_dataset.load_label(1) == 255).all()
