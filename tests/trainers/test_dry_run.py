"""The plan of a run: what it says is what the run then does, and nothing of the run is written."""

import json
import os
import signal
from pathlib import Path

import pytest
from modelscope.trainers import build_trainer
from tiny_run import shrink

from ms_segformer.datasets.errors import DatasetError
from ms_segformer.trainers import dry_run as module
from ms_segformer.trainers import start_weights
from ms_segformer.trainers.dry_run import dry_run
from ms_segformer.trainers.errors import TrainingError


def smaller(cfg):
    """Small crops for the published class list, as published otherwise."""
    crop = {'SegRandomCrop': {'crop_size': [32, 64]}, 'MMPad': {'size': [32, 64]}}
    for step in cfg.dataset.train.pipeline:
        step.update(crop.get(step['type'], {}))
    cfg.train.dataloader = {'batch_size_per_gpu': 2, 'workers_per_gpu': 0}
    return cfg


@pytest.fixture
def published(tiny_model_dir, tmp_path):
    """Arguments for a run of the published length; its data are nowhere."""
    return {
        'model': str(tiny_model_dir),
        'work_dir': str(tmp_path / 'run'),
        'device': 'cpu',
        'cfg_modify_fn': smaller,
        'max_epochs': 30,
        'cfg_options': {'train.lr_scheduler.warmup': 'linear', 'train.optimizer.lr': 6e-5},
    }


def test_the_plan_is_what_the_run_does(options, tmp_path):
    def modify(cfg):
        cfg = shrink(cfg)
        cfg.train.lr_scheduler.update(warmup='linear', warmup_iters=3, warmup_ratio=0.01)
        cfg.evaluation.period = None
        return cfg

    options = {**options, 'cfg_modify_fn': modify, 'cfg_options': {'train.optimizer.options.cumulative_iters': 2}}
    plan = dry_run(options)
    assert not (tmp_path / 'run').exists()
    trainer = build_trainer('easycv', options)
    trainer.train()
    lines = [
        json.loads(line)
        for path in Path(options['work_dir']).glob('*.log.json')
        for line in path.read_text().splitlines()
    ]
    rates = [line['lr'] for line in lines if line['mode'] == 'train']
    assert (plan.images, plan.made_up, plan.processes, plan.batch, plan.accumulated) == (8, False, 1, 2, 2)
    assert (plan.per_epoch, plan.epochs, plan.iterations) == (4, 3, len(rates))
    points = {name: (iteration, found[0]) for name, iteration, found in plan.rates}
    assert points == {
        name: (at, pytest.approx(rates[at], rel=1e-3))
        for name, at in {'start': 0, 'after the warm-up': 3, '25 %': 3, '50 %': 6, '75 %': 9, 'end': 11}.items()
    }
    assert all(high == pytest.approx(10 * low) for _, _, (low, high) in plan.rates), "the head's is ten times as high"
    assert plan.seconds > 0 and plan.memory > 10 * 2**20


def test_the_published_run_is_printed_without_its_data(published, tmp_path, monkeypatch):
    sizes = []
    measure = module._measure
    monkeypatch.setattr(
        module, '_measure', lambda trainer: sizes.append(trainer.train_dataset[0]['img'].shape[1:]) or measure(trainer)
    )
    plan = dry_run(published, processes=8)
    assert (plan.images, plan.made_up, plan.iterations) == (118_287, True, 30 * 7_393)
    assert sizes == [(32, 64)] and not (tmp_path / 'run').exists()
    text = '\n'.join(plan.lines())
    for said in (
        '118,287 (not here',
        '16 images: 8 × 2',
        '30 of 7,393 iterations, 221,790 in all',
        'start              iteration         1: 6.000e-11',
        '50 %               iteration   110,896: 3.000e-05',
        'an iteration on cpu of its own for each process',
        'GiB of each process',
    ):
        assert said in text
    assert dry_run(published, images=10).per_epoch == 5


def test_the_published_recipe_s_equivalents_for_one_device_take_its_steps_at_its_rates(published):
    recipe = dry_run(published, processes=8)
    options = {
        'one batch': {'train.dataloader.batch_size_per_gpu': 16},
        'accumulated': {'train.optimizer.options.cumulative_iters': 8, 'train.lr_scheduler.warmup_iters': 8 * 1500},
    }
    for name, changes in options.items():
        plan = dry_run({**published, 'cfg_options': {**published['cfg_options'], **changes}})
        assert plan.batch * plan.accumulated == 16 == recipe.processes * recipe.batch
        assert plan.steps == recipe.steps == 221_790, name
        for (point, _, rates), (same, _, expected) in list(zip(plan.rates, recipe.rates, strict=True))[1:-1]:
            assert point == same and rates == pytest.approx(expected, rel=1e-3)


def test_a_run_that_is_shorter_than_its_warm_up_is_warned_about(published, messages):
    dry_run(published, images=4)
    assert [message for message in messages if 'this run has 60 iterations, fewer than its warm-up of 1500' in message]


def test_data_that_are_not_there_are_named_where_they_were_meant_to_be(published, tmp_path):
    with pytest.raises(DatasetError):
        dry_run({**published, 'data_root': str(tmp_path)})
    with pytest.raises(TrainingError, match='their number is not known: say where they are .--data. or how many'):
        dry_run({**published, 'classes': ['a', 'b']})
    for images in (0, 10**18):
        with pytest.raises(TrainingError, match=f'{images} images .--images.: expected 1 to 10,000,000'):
            dry_run(published, images=images)


def test_no_weights_are_asked_for(published, monkeypatch):
    monkeypatch.setattr(start_weights, 'weights', lambda source: pytest.fail(f'{source} is fetched'))
    plan = dry_run({**published, 'load_from': 'https://host/mit.pth'}, images=4)
    assert plan.iterations == 60


@pytest.mark.parametrize(
    'seconds, said', [(20, '20 s'), (2700, '45 min'), (5400, '1 h 30 min'), (200_000, '2 d 7 h 33 min')]
)
def test_durations(seconds, said):
    assert module._duration(seconds) == said


def test_a_plan_that_is_ended_by_a_signal_leaves_no_folder():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match='143'):
        with module._temporary_folder() as folder:
            assert Path(folder).is_dir()
            os.kill(os.getpid(), signal.SIGTERM)
    assert not Path(folder).exists() and signal.getsignal(signal.SIGTERM) is before
