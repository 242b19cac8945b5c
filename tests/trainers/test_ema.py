"""The average of the weights is what is evaluated and saved; weights that are given reach it."""

from pathlib import Path

import pytest
import torch
from modelscope.trainers import build_trainer

from ms_segformer.models.checkpoint import read_checkpoint


@pytest.fixture
def other(options, tmp_path):
    """A checkpoint of a run of its own, and what it evaluates to."""
    trainer = build_trainer(
        'easycv',
        {
            **options,
            'work_dir': str(tmp_path / 'other'),
            'seed': 7,
            'max_epochs': 6,
            'cfg_options': {'evaluation.period': None},
        },
    )
    trainer.train()
    return tmp_path / 'other' / 'epoch_6.pth', trainer.evaluate()


def snapshot(trainer):
    return {
        name: value.clone()
        for model in (trainer.bare_model, trainer.model_to_save)
        for name, value in model.state_dict(prefix=f'{id(model)}.').items()
    }


@pytest.mark.parametrize('ema', [None, 0.99])
def test_the_given_weights_are_evaluated_and_the_run_s_own_stay(options, other, ema):
    path, expected = other
    trainer = build_trainer('easycv', {**options, 'ema': ema, 'max_epochs': 1})
    assert trainer.evaluate(checkpoint_path=str(path)) == expected  # before anything was trained
    trainer.train()
    own, before = trainer.evaluate(), snapshot(trainer)
    assert own != expected and trainer.evaluate(checkpoint_path=str(path)) == expected
    assert all(torch.equal(before[name], value) for name, value in snapshot(trainer).items())
    assert trainer.evaluate() == own


@pytest.mark.parametrize('ema', [None, 0.9])
def test_an_evaluation_of_other_weights_in_between_does_not_change_the_run(options, other, ema):
    from modelscope.trainers.hooks.hook import Hook

    class Compare(Hook):
        def after_train_epoch(self, trainer):
            trainer.evaluate(checkpoint_path=str(other[0]))

    found = []
    for name, callbacks in (('plain', []), ('comparing', [Compare()])):
        trainer = build_trainer(
            'easycv',
            {
                **options,
                'ema': ema,
                'max_epochs': 2,
                'callbacks': callbacks,
                'work_dir': f'{options["work_dir"]}_{name}',
            },
        )
        trainer.train()
        found.append(read_checkpoint(Path(trainer.work_dir) / 'epoch_2.pth')[0])
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize('ema', [None, 0.9])
def test_after_restore_best_the_best_weights_are_evaluated(options, ema, tmp_path):
    for rule in ('min', 'max'):  # by one of them the best epoch is not the last; which, torch's rounding decides
        trainer = build_trainer(
            'easycv',
            {
                **options,
                'work_dir': str(tmp_path / rule),
                'ema': ema,
                'max_epochs': 3,
                'cfg_options': {'train.checkpoint.best': {'metric_key': 'mIoU', 'rule': rule, 'restore_best': True}},
            },
        )
        trainer.train()
        (best,) = (path for path in Path(trainer.work_dir).glob('best_*') if 'state' not in path.name)
        if 'epoch3' not in best.name:
            break
    assert 'epoch3' not in best.name
    for model in (trainer.bare_model, trainer.model_to_save):
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in read_checkpoint(best)[0].items())
    assert f'mIoU{trainer.evaluate()["mIoU"]}' in best.name


def test_a_new_run_from_given_weights_averages_from_them(options, other):
    trainer = build_trainer(
        'easycv',
        {
            **options,
            'ema': 0.99,
            'max_epochs': 1,
            'cfg_options': {'train.optimizer.lr': 0.0, 'evaluation.period': None},
        },
    )
    trainer.train(checkpoint_path=str(other[0]), load_all_state=False)
    saved, start = (read_checkpoint(path)[0] for path in (Path(trainer.work_dir) / 'epoch_1.pth', other[0]))
    key = 'decode_head.conv_seg.weight'
    assert torch.allclose(saved[key], start[key], atol=1e-7)
