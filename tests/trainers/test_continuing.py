"""A checkpoint of EasyCV or mmcv whose `meta` names epoch and iteration is gone on from; one without is a start."""

import json

import pytest
import torch
from modelscope.metainfo import Trainers
from modelscope.trainers import build_trainer
from tiny_run import shrink

from ms_segformer.models.checkpoint import read_checkpoint
from ms_segformer.models.segformer import Segformer
from ms_segformer.trainers.errors import TrainingError

META = {'epoch': 30, 'iter': 120, 'mmcv_version': '1.7.2'}


@pytest.fixture(scope='module')
def weights(tiny_model_dir):
    return read_checkpoint(tiny_model_dir / 'pytorch_model.pt')[0]


@pytest.fixture
def trainer(options):
    """A trainer of 31 epochs of 4 iterations with the classes of the weights, which evaluates nothing."""

    def plain(cfg):
        cfg = shrink(cfg)
        cfg.evaluation.period = None
        return cfg

    del options['classes']
    return build_trainer(Trainers.easycv, {**options, 'max_epochs': 31, 'cfg_modify_fn': plain})


def gathered(model, optimizer_class=torch.optim.AdamW, **options):
    """What an optimizer of all parameters in one group, as mmcv builds it, holds after two steps."""
    optimizer = optimizer_class(model.parameters(), lr=0.0, **options)
    for step in range(2):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, 1.0 + number + step)
        optimizer.step()
    return optimizer.state_dict()


def logged(trainer):
    lines = [json.loads(line) for path in trainer_logs(trainer) for line in path.read_text().splitlines()]
    return [(line['epoch'], line['iter'], line['lr']) for line in lines if line['mode'] == 'train']


def trainer_logs(trainer):
    from pathlib import Path

    return list(Path(trainer.work_dir).glob('*.log.json'))


@pytest.mark.parametrize('iteration', [120, 221790, None])
def test_one_of_31_epochs_is_left_after_the_thirtieth(trainer, weights, tmp_path, messages, iteration):
    meta = {key: value for key, value in {**META, 'iter': iteration}.items() if value is not None}
    torch.save({'meta': meta, 'state_dict': weights}, tmp_path / 'published.pth')
    trainer.train(checkpoint_path=str(tmp_path / 'published.pth'))
    rates = [pytest.approx(1e-3 * (1 - done / 124), abs=1e-8) for done in range(120, 124)]
    assert logged(trainer) == [(31, number + 1, rate) for number, rate in enumerate(rates)]
    (said,) = (message for message in messages if 'its meta says' in message)
    assert 'epoch 30 is done; training goes on with epoch 31 of 31, 120 of 124 iterations done' in said
    assert ("(there 221790: its epochs had 7393, this run's have 4; epochs count)" in said) == (iteration == 221790)
    assert '; the optimizer starts anew (the file has none)' in said
    assert read_checkpoint(tmp_path / 'run' / 'epoch_31.pth')[1]['epoch'] == 31


@pytest.mark.parametrize('meta', [{}, {'epoch': 'thirty'}, {'epoch': True, 'iter': 4}, {'epoch': -1}, {'iter': 120}])
def test_a_file_that_names_no_epoch_starts_a_new_run(trainer, weights, tmp_path, messages, meta):
    torch.save({'meta': meta, 'state_dict': weights}, tmp_path / 'published.pth')
    trainer.train_loop = lambda loader: None
    trainer.train(checkpoint_path=str(tmp_path / 'published.pth'))
    assert (trainer.epoch, trainer.iter) == (0, 0)
    assert [
        message
        for message in messages
        if message.endswith('published.pth: its weights are the start of a new run, for its meta names no epoch')
    ]


def test_a_file_of_other_classes_starts_a_new_run_whatever_epoch_it_names(trainer, weights, tmp_path, messages):
    meta = {**META, 'epoch': 31, 'CLASSES': ['one', 'two']}
    torch.save({'meta': meta, 'state_dict': weights}, tmp_path / 'other.pth')
    trainer.train_loop = lambda loader: None
    trainer.train(checkpoint_path=str(tmp_path / 'other.pth'))
    assert (trainer.epoch, trainer.iter) == (0, 0)
    assert [
        message
        for message in messages
        if message.endswith('other.pth: its weights are the start of a new run, for they are of other classes')
    ]


def test_all_state_is_left_where_only_the_weights_are_asked_for(trainer, weights, tmp_path, messages):
    torch.save({'meta': META, 'state_dict': weights}, tmp_path / 'published.pth')
    trainer.train_loop = lambda loader: None
    trainer.train(str(tmp_path / 'published.pth'), load_all_state=False)
    assert trainer.iter == 0 and [message for message in messages if message.endswith('the start of a new run')]


def test_a_file_after_which_nothing_is_left_is_refused_before_anything_is_moved(trainer, weights, tmp_path):
    torch.save({'meta': {'epoch': 31, 'iter': 124}, 'state_dict': weights}, tmp_path / 'published.pth')
    before = sorted(path.name for path in (tmp_path / 'run').iterdir())
    with pytest.raises(TrainingError, match='epoch 31 is done, and this run has 31: nothing is left to train. Raise'):
        trainer.train(checkpoint_path=str(tmp_path / 'published.pth'))
    assert sorted(path.name for path in (tmp_path / 'run').iterdir()) == before


@pytest.fixture
def go_on(trainer, weights, tmp_path):
    """A function that lets the trainer go on from a file with an optimizer, and trains nothing."""

    def train(saved):
        torch.save({'meta': META, 'state_dict': weights, 'optimizer': saved}, tmp_path / 'mmcv.pth')
        trainer.train_loop = lambda loader: None
        trainer.train(checkpoint_path=str(tmp_path / 'mmcv.pth'))
        return trainer.optimizer

    return train


@pytest.mark.parametrize('grouping', ['one', 'each'])
@pytest.mark.parametrize('steps', ['number', 'tensor'])
def test_the_optimizer_of_mmcv_is_taken_along_parameter_by_parameter(
    go_on, trainer, tiny_model_dir, messages, grouping, steps
):
    model = Segformer.from_pretrained(str(tiny_model_dir))
    saved = gathered(model)
    if grouping == 'each':
        saved['param_groups'] = [{**saved['param_groups'][0], 'params': [number]} for number in saved['state']]
    if steps == 'number':  # as PyTorch before 1.12 counted
        for values in saved['state'].values():
            values['step'] = int(values['step'])
    optimizer = go_on(saved)
    assert len(optimizer.param_groups) == 3, "the rates of the head and of the norms are the configuration's"
    assert {group['initial_lr'] for group in optimizer.param_groups} == {1e-3, 1e-2}
    for number, (name, parameter) in enumerate(trainer.bare_model.named_parameters()):
        held = optimizer.state[parameter]
        assert torch.equal(held['exp_avg'], saved['state'][number]['exp_avg']) and held['step'] == 2, name
    assert [message for message in messages if message.endswith("the optimizer's state is taken from it")]


UNFIT = {
    'of another kind': (lambda saved, model: gathered(model, torch.optim.SGD, momentum=0.9), 'gathers other values'),
    'empty': (lambda saved, model: {**saved, 'state': {}}, 'the file has none'),
    'no optimizer': (lambda saved, model: ['a list'], 'the file has none'),
    'groups of another kind': (
        lambda saved, model: {
            **saved,
            'param_groups': [{'params': [0, 1]}, {'params': list(range(2, len(saved['state'])))}],
        },
        'groups its parameters in another way',
    ),
    'too few': (lambda saved, model: {**saved, 'param_groups': [{'params': [0, 1]}]}, 'is of 2 parameters'),
    'other shapes': (
        lambda saved, model: {
            **saved,
            'state': {number: {**values, 'exp_avg': torch.ones(3, 3)} for number, values in saved['state'].items()},
        },
        'parameters of other shapes',
    ),
    'not finite': (
        lambda saved, model: {
            **saved,
            'state': {
                number: {**values, 'exp_avg': values['exp_avg'] + float('nan')}
                for number, values in saved['state'].items()
            },
        },
        'is not finite',
    ),
}


@pytest.mark.parametrize('kind', UNFIT)
def test_an_optimizer_that_does_not_fit_starts_anew(go_on, tiny_model_dir, messages, kind):
    change, said = UNFIT[kind]
    model = Segformer.from_pretrained(str(tiny_model_dir))
    optimizer = go_on(change(gathered(model), model))
    assert not optimizer.state
    assert [message for message in messages if 'the optimizer starts anew (' in message and said in message]


def test_the_checkpoint_that_mmcv_wrote_is_gone_on_from(trainer, oracle, messages):
    trainer.train_loop = lambda loader: None
    trainer.train(checkpoint_path=str(oracle / 'exported' / 'mmcv_epoch.pth'))
    assert (trainer.epoch, trainer.iter) == (30, 120)
    assert [message for message in messages if 'epoch 30 is done' in message and '(there 1000' in message]
