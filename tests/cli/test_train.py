"""`ms-segformer train`."""

import argparse
import json

import pytest

from ms_segformer.cli import train
from ms_segformer.metainfo import own_configuration


def parse(*words):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def test_the_command_line_becomes_the_trainer_s_arguments(tmp_path, tiny_model_dir):
    names = tmp_path / 'names.txt'
    names.write_text('a\nb\n')
    args = parse(
        tiny_model_dir,
        '--data',
        tmp_path,
        '--classes',
        names,
        '--epochs',
        3,
        '--lr',
        0.01,
        '--batch-size',
        4,
        '--amp',
        'bf16',
        '--resume',
        '--options',
        'train.ema=0.9',
        'train.lr_scheduler.warmup=null',
        'model.pretrained=mit.pth',
    )
    assert train.trainer_arguments(args) == {
        'model': str(tiny_model_dir),
        'data_root': str(tmp_path),
        'classes': str(names),
        'max_epochs': 3,
        'amp': 'bf16',
        'resume': True,
        'seed': 42,
        'work_dir': 'work_dir',
        'keep_checkpoints': 3,
        'cfg_options': {
            'train.ema': 0.9,
            'train.lr_scheduler.warmup': None,
            'model.pretrained': 'mit.pth',
            'train.dataloader.batch_size_per_gpu': 4,
            'train.optimizer.lr': 0.01,
        },
    }
    configuration = train.trainer_arguments(parse(tiny_model_dir / 'configuration.json'))
    assert configuration['cfg_file'].endswith('configuration.json') and 'model' not in configuration
    assert train.trainer_arguments(parse('b0'))['model'].startswith('damo/cv_segformer-b0')
    assert train.trainer_arguments(parse('b0', '--classes', 'sky, road'))['classes'] == ['sky', 'road']


def test_the_start_is_chosen_and_a_published_configuration_needs_no_hub_where_its_weights_are_not_asked_for(
    tmp_path, tiny_model_dir
):
    for start in ('imagenet', 'scratch', 'https://host/mit.pth', str(tiny_model_dir)):
        for name in ('b0', 'iic/cv_segformer-b0_image_semantic-segmentation_coco-stuff164k'):
            chosen = train.trainer_arguments(parse(name, '--from', start))
            assert chosen['cfg_file'] == str(own_configuration('b0')) and 'model' not in chosen
            assert chosen['load_from'] == start
        assert train.trainer_arguments(parse(tiny_model_dir, '--from', start))['model'] == str(tiny_model_dir)
    chosen = train.trainer_arguments(parse('b0', '--from', 'model'))
    assert chosen['model'].startswith('damo/') and chosen['load_from'] == 'model'
    with pytest.raises(FileNotFoundError, match='imagnet: no such file or model directory'):
        train.trainer_arguments(parse('b0', '--from', 'imagnet'))


def test_a_dry_run_prints_the_plan_and_leaves_no_folder(tiny_model_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        train.run(
            parse(
                tiny_model_dir,
                '--dry-run',
                '--images',
                20,
                '--epochs',
                2,
                '--device',
                'cpu',
                '--from',
                'imagenet',
                '--options',
                'train.dataloader.workers_per_gpu=0',
            )
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert 'images            20 (not here' in printed and 'epochs            2 of 10 iterations, 20 in all' in printed
    assert list(tmp_path.iterdir()) == []
    for option in ('--images', '--processes'):
        with pytest.raises(ValueError, match=f'{option} is for --dry-run'):
            train.run(parse(tiny_model_dir, option, 3))
    with pytest.raises(FileNotFoundError, match='imagnet: no such file'):
        train.run(parse(tiny_model_dir, '--dry-run', '--from', 'imagnet'))


@pytest.mark.parametrize(
    'words, kept, best_and', [([], 7, 3), (['--keep-checkpoints', 5], 5, 5), (['--keep-checkpoints', 'all'], None, 3)]
)
def test_checkpoints_are_kept_as_asked_for(words, kept, best_and):
    from modelscope.utils.config import Config

    arguments = train.trainer_arguments(parse('b0', *words))
    modify = arguments.get('cfg_modify_fn', lambda cfg: cfg)
    said = modify(Config({'train': {'checkpoint': {'period': {'max_checkpoint_num': 7}}}}))
    assert said.train.checkpoint.period.max_checkpoint_num == kept and arguments['keep_checkpoints'] == best_and
    none = modify(Config({'train': {'checkpoint': {'period': None}}}))
    assert none.train.checkpoint.period is None


@pytest.mark.parametrize('value', ['0', '1.5', 'some'])
def test_a_number_of_checkpoints_that_cannot_be_meant_is_wrong_usage(value, capsys):
    with pytest.raises(SystemExit):
        parse('b0', '--keep-checkpoints', value)
    assert f"'{value}' is neither a number of at least 1 nor all" in capsys.readouterr().err


def test_what_cannot_be_meant_is_an_error():
    with pytest.raises(ValueError, match="KEY=VALUE, got 'train.ema'"):
        train.trainer_arguments(parse('b0', '--options', 'train.ema'))
    with pytest.raises(FileNotFoundError, match='names.txt: no such file'):
        train.trainer_arguments(parse('b0', '--classes', 'names.txt'))
    with pytest.raises(FileNotFoundError, match='b9: no such directory, and neither a hub id'):
        train.trainer_arguments(parse('b9'))


def test_a_run_ends_with_a_model_directory(tmp_path, tiny_model_dir, capsys):
    import cv2
    import numpy as np

    random = np.random.RandomState(0)
    for split in ('train', 'val'):
        for folder, values, suffix in (('images', (0, 256), 'jpg'), ('annotations', (0, 2), 'png')):
            (tmp_path / 'data' / folder / split).mkdir(parents=True)
            shape = (40, 50, 3) if folder == 'images' else (40, 50)
            picture = random.randint(*values, shape, np.uint8)
            cv2.imwrite(str(tmp_path / 'data' / folder / split / f'0.{suffix}'), picture)
    small = {
        'type': 'MMMultiScaleFlipAug',
        'img_scale': [64, 48],
        'flip': False,
        'transforms': [
            {'type': 'MMResize'},
            {'type': 'MMNormalize', 'mean': [123.7, 116.3, 103.5], 'std': [58.4, 57.1, 57.4]},
            {'type': 'ImageToTensor', 'keys': ['img']},
            {'type': 'Collect', 'keys': ['img']},
        ],
    }
    assert (
        train.run(
            parse(
                tiny_model_dir,
                '--data',
                tmp_path / 'data',
                '--classes',
                'left,right',
                '--work-dir',
                tmp_path / 'run',
                '--epochs',
                1,
                '--device',
                'cpu',
                '--batch-size',
                1,
                '--options',
                'train.dataloader.workers_per_gpu=0',
                'evaluation.dataloader.workers_per_gpu=0',
                f'dataset.val.pipeline={json.dumps([small])}',
            )
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert f'trained model: {tmp_path}/run/output' in printed and 'mIoU' in printed
    assert (tmp_path / 'run' / 'output' / 'pytorch_model.pt').is_file()
