"""What a configuration file may make the hooks write to, and how many checkpoints are kept."""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
from modelscope.trainers import build_trainer
from tiny_run import CLASSES, shrink

from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.layout import find_data_sources
from ms_segformer.trainers import configuration, confinement
from ms_segformer.trainers.errors import TrainingError


@pytest.fixture
def with_train_section(options, tmp_path):
    """`with_train_section(changes, **arguments)`: a trainer whose model directory says `changes` in `train`."""

    def build(changes, **arguments):
        raw = json.loads((Path(options['model']) / 'configuration.json').read_text())
        raw['train'].update(changes)
        folder = tmp_path / 'model'
        folder.mkdir(exist_ok=True)
        (folder / 'configuration.json').write_text(json.dumps(raw))
        if not (folder / 'pytorch_model.pt').exists():
            (folder / 'pytorch_model.pt').symlink_to(Path(options['model']) / 'pytorch_model.pt')
        return build_trainer('easycv', {**options, 'max_epochs': 1, 'model': str(folder), **arguments})

    return build


OUTSIDE = ['/elsewhere', '../elsewhere', 'a/../../elsewhere', '~/elsewhere', 'oss://bucket/folder']


@pytest.mark.parametrize('path', OUTSIDE)
@pytest.mark.parametrize(
    'key, section',
    [
        ('train.checkpoint.period.save_dir', {'checkpoint': {'period': {'interval': 1, 'save_dir': 'PATH'}}}),
        (
            'train.checkpoint.period.output_sub_dir',
            {'checkpoint': {'period': {'interval': 1, 'output_sub_dir': 'PATH'}}},
        ),
        ('train.checkpoint.best.output_dir', {'checkpoint': {'best': {'metric_key': 'mIoU', 'output_dir': 'PATH'}}}),
        (
            'train.checkpoint.best.save_file_name',
            {'hooks': [{'type': 'BestCkptSaver', 'metric_key': 'mIoU', 'save_file_name': 'PATH'}]},
        ),
        ('train.logging.out_dir', {'hooks': [{'type': 'TextLoggerHook', 'out_dir': 'PATH'}]}),
        (
            'train.hooks, TensorboardHook.out_dir',
            {'hooks': [{'type': 'TensorboardHook', 'out_dir': 'PATH'}, {'type': 'TensorboardHook', 'out_dir': 'fine'}]},
        ),
        (
            'train.hooks, SomebodysHook.on_trace.dir_name',
            {'hooks': [{'type': 'SomebodysHook', 'on_trace': {'dir_name': 'PATH'}}]},
        ),
        (
            'train.hooks, SomebodysHook.parts.out_dir',
            {'hooks': [{'type': 'SomebodysHook', 'parts': [{'out_dir': 'fine'}, {'out_dir': 'PATH'}]}]},
        ),
        (
            'train.hooks, SomebodysHook.paths',
            {'hooks': [{'type': 'SomebodysHook', 'paths': {'__class__': 'tuple', '__value__': ['fine', 'PATH']}}]},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_a_file_does_not_make_hooks_write_outside(tiny_model_dir, tmp_path, key, section, path):
    raw = written(tiny_model_dir, json.loads(json.dumps(section).replace('PATH', path)))
    with pytest.raises(TrainingError, match=rf'configuration file says {key} = .*{path.split("/")[-1]}.*outside'):
        prepared(raw, tmp_path)


def test_a_file_does_not_upload(tiny_model_dir, tmp_path):
    raw = written(tiny_model_dir, {'checkpoint': {'period': {'interval': 1, 'push_to_hub': True}}})
    with pytest.raises(TrainingError, match='train.checkpoint.period.push_to_hub = True, which uploads the model'):
        prepared(raw, tmp_path)


def written(model_dir, train):
    raw = json.loads((model_dir / 'configuration.json').read_text())
    return {**raw, 'train': {**raw['train'], **train}}


def prepared(raw, work_dir):
    """What the trainer does with a configuration file."""
    result = deepcopy(raw)
    configuration.prepare(result)
    result['train']['work_dir'] = str(work_dir)
    confinement.confine(result, raw, None)


def test_the_trainer_holds_the_file_to_it(with_train_section):
    with pytest.raises(TrainingError, match='train.logging.out_dir = .* is outside'):
        with_train_section({'hooks': [{'type': 'TextLoggerHook', 'out_dir': '/elsewhere'}]})


@pytest.mark.parametrize(
    'path, good',
    [
        ('/elsewhere', False),
        ('../elsewhere', False),
        ('./runs/b0', True),
        (None, True),
        ('.', False),
        ('runs/..', False),
    ],
)
def test_the_work_directory_of_a_file_is_below_the_present_one(with_train_section, tmp_path, monkeypatch, path, good):
    monkeypatch.chdir(tmp_path)
    if good:
        trainer = with_train_section({'work_dir': path}, work_dir=None)
        assert Path(trainer.work_dir).resolve() == tmp_path / (path or 'work_dir')
    else:
        with pytest.raises(TrainingError, match='train.work_dir = .* is (outside|the present folder itself)'):
            with_train_section({'work_dir': path}, work_dir=None)
        assert with_train_section({'work_dir': path}).work_dir == str(tmp_path / 'run')


def test_the_relative_paths_of_a_file_are_below_the_work_directory(with_train_section, tmp_path, monkeypatch):
    (tmp_path / 'cwd').mkdir()
    monkeypatch.chdir(tmp_path / 'cwd')
    period = {'interval': 1, 'save_dir': 'points', 'output_dir': 'model'}
    with_train_section(
        {
            'checkpoint': {'period': period},
            'hooks': [{'type': 'TextLoggerHook', 'out_dir': 'logs'}, {'type': 'IterTimerHook'}],
        }
    ).train()
    assert (tmp_path / 'run' / 'points' / 'epoch_1.pth').is_file()
    assert (tmp_path / 'run' / 'model' / 'pytorch_model.pt').is_file()
    assert list((tmp_path / 'run' / 'logs').glob('*.log.json')) and not list((tmp_path / 'cwd').iterdir())


def test_what_the_user_sets_in_code_is_as_the_user_wants_it(with_train_section, tmp_path):
    outside = str(tmp_path / 'outside')
    file = {
        'checkpoint': {'period': {'interval': 1, 'save_dir': '/elsewhere'}},
        'hooks': [{'type': 'TextLoggerHook', 'interval': 1, 'out_dir': '/elsewhere'}, {'type': 'IterTimerHook'}],
    }

    def modify(cfg):
        cfg = shrink(cfg)
        cfg.train.hooks[0].out_dir = outside
        return cfg

    with_train_section(file, cfg_modify_fn=modify, cfg_options={'train.checkpoint.period.save_dir': outside}).train()
    assert (Path(outside) / 'epoch_1.pth').is_file() and list(Path(outside).glob('*.log.json'))


@pytest.mark.parametrize(
    'train, evaluation, count, kept, best',
    [
        ({'checkpoint': {'period': {'interval': 1}}}, 'EasyCVMetric', 3, 3, {'metric_key': 'mIoU'}),
        ({'checkpoint': {'period': {'interval': 1}}}, 'EasyCVMetric', None, None, None),
        ({'checkpoint': {'period': {'max_checkpoint_num': 7}, 'best': None}}, 'EasyCVMetric', 3, 7, None),
        ({'checkpoint': {'period': {}, 'best': {'metric_key': 'aAcc'}}}, 'EasyCVMetric', 3, 3, {'metric_key': 'aAcc'}),
        ({'checkpoint': {'period': {}}}, 'SomebodysMetric', 3, 3, None),
    ],
)
def test_the_number_of_checkpoints_is_limited_where_nothing_is_said(train, evaluation, count, kept, best):
    raw = {
        'train': train,
        'evaluation': {'metrics': {'type': evaluation}, 'period': {'interval': 1}},
        'dataset': {'val': {}},
    }
    configuration.limit_checkpoints(raw, count)
    assert train['checkpoint']['period'].get('max_checkpoint_num') == kept
    assert train['checkpoint'].get('best') == best


def test_a_run_may_keep_three_and_the_best(options):
    trainer = build_trainer('easycv', {**options, 'max_epochs': 5, 'keep_checkpoints': 3})
    trainer.train()
    folder = Path(trainer.work_dir)
    assert sorted(path.name for path in folder.glob('epoch_?.pth')) == ['epoch_3.pth', 'epoch_4.pth', 'epoch_5.pth']
    assert len(list(folder.glob('best_*_trainer_state.pth'))) == 1 and (folder / 'output_best').is_dir()


def with_class_file(folder, tiny_model_dir, tiny_data, name, place='CLASSES'):
    """A model directory whose configuration names its data, and a class file in a place."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.loads((tiny_model_dir / 'configuration.json').read_text())
    for split, source in find_data_sources(tiny_data, CLASSES).items():
        raw['dataset'][split]['data_source'] = {**source, 'classes': name}
    if place == 'CLASSES':
        raw['CLASSES'] = name
        for split in ('train', 'val'):
            del raw['dataset'][split]['data_source']['classes']
    (folder / 'configuration.json').write_text(json.dumps(raw))
    if not (folder / 'pytorch_model.pt').exists():
        (folder / 'pytorch_model.pt').symlink_to(tiny_model_dir / 'pytorch_model.pt')
    return str(folder)


PLACES_OF_CLASSES = pytest.mark.parametrize('place', ['CLASSES', 'data_source.classes'])


@PLACES_OF_CLASSES
@pytest.mark.parametrize('name', ['/etc/hostname', '../outside.txt', 'missing.txt', '\ud800.txt'])
def test_a_class_file_of_a_configuration_is_one_of_its_directory(
    options, tiny_model_dir, tiny_data, tmp_path, place, name
):
    (tmp_path / 'outside.txt').write_text('sky\ngrass\ndisc')
    model = with_class_file(tmp_path / 'model', tiny_model_dir, tiny_data, name, place)
    with pytest.raises(DatasetError, match='configuration.json: classes are .*(lies outside|no such file)'):
        build_trainer('easycv', {**options, 'model': model, 'classes': None, 'data_root': None})


@PLACES_OF_CLASSES
def test_a_class_file_of_a_configuration_is_read_from_beside_it(
    options, tiny_model_dir, tiny_data, tmp_path, monkeypatch, place
):
    model = Path(with_class_file(tmp_path / 'model', tiny_model_dir, tiny_data, 'classes.txt', place))
    (model / 'classes.txt').write_text('sky\ngrass\ndisc')
    (tmp_path / 'classes.txt').write_text('of\nsomething\nelse')
    monkeypatch.chdir(tmp_path)
    trainer = build_trainer(
        'easycv', {**options, 'model': str(model), 'classes': None, 'data_root': None, 'max_epochs': 1}
    )
    assert trainer.train_dataset.CLASSES == trainer.cfg.CLASSES == ['sky', 'grass', 'disc']
    monkeypatch.chdir('/')
    trainer.train()


@pytest.mark.parametrize(
    'given',
    [
        {'classes': 'mine.txt'},
        {'classes': None, 'cfg_options': {'CLASSES': 'mine.txt'}},
        {'classes': None, 'cfg_modify_fn': 'modify'},
    ],
    ids=['classes', 'options', 'modify'],
)
def test_a_class_file_that_the_user_names_is_relative_to_the_working_directory(
    options, tiny_model_dir, tiny_data, tmp_path, monkeypatch, given
):
    model = with_class_file(tmp_path / 'model', tiny_model_dir, tiny_data, 'classes.txt')
    Path(model, 'classes.txt').write_text('one\ntwo\nthree')
    (tmp_path / 'mine.txt').write_text('sky\ngrass\ndisc')
    monkeypatch.chdir(tmp_path)

    def modify(cfg):
        cfg = shrink(cfg)
        cfg.CLASSES = 'mine.txt'
        return cfg

    given = {**given, 'cfg_modify_fn': modify} if 'cfg_modify_fn' in given else given
    trainer = build_trainer('easycv', {**options, 'model': model, **given})
    assert trainer.cfg.CLASSES == ['sky', 'grass', 'disc']


def test_a_hook_of_the_file_is_held_to_it_where_the_user_switched_its_place_on_again(tiny_model_dir, tmp_path):
    raw = written(
        tiny_model_dir,
        {
            'checkpoint': {'period': None},
            'hooks': [{'type': 'CheckpointHook', 'interval': 1, 'save_dir': '/elsewhere'}],
        },
    )
    changed = deepcopy(raw)
    changed['train']['checkpoint'] = {'period': {'interval': 1}}
    configuration.prepare(changed)
    changed['train']['work_dir'] = str(tmp_path)
    with pytest.raises(TrainingError, match='train.checkpoint.period.save_dir = .*outside'):
        confinement.confine(changed, raw, None)


@pytest.mark.parametrize(
    'said',
    [
        {'train.checkpoint.period.save_dir': 'ELSEWHERE'},
        {'train.checkpoint.period': {'save_dir': 'ELSEWHERE'}},
        {'train': {'checkpoint': {'period': {'save_dir': 'ELSEWHERE'}}}},
    ],
)
def test_what_the_user_says_counts_when_the_file_says_the_same(with_train_section, tmp_path, said):
    elsewhere = str(tmp_path / 'elsewhere')
    said = json.loads(json.dumps(said).replace('ELSEWHERE', elsewhere))
    file = {'checkpoint': {'period': {'interval': 1, 'save_dir': elsewhere}}}
    trainer = with_train_section(file, cfg_options=said)
    assert trainer.cfg.train.checkpoint.period.save_dir == elsewhere


def test_a_trained_model_can_be_trained_on_wherever_its_hooks_wrote(with_train_section, options, tmp_path):
    def modify(cfg):
        cfg = shrink(cfg)
        cfg.train.hooks = [
            {'type': 'CheckpointHook', 'interval': 1},
            {'type': 'TensorboardHook', 'out_dir': str(tmp_path / 'board')},
            {'type': 'TensorboardHook', 'out_dir': str(tmp_path / 'run' / 'board')},
        ]
        return cfg

    with_train_section({'hooks': []}, cfg_modify_fn=modify).train()
    exported = json.loads((tmp_path / 'run' / 'output' / 'configuration.json').read_text())
    assert exported['train']['hooks'] == [{'type': 'TensorboardHook'}, {'type': 'TensorboardHook', 'out_dir': 'board'}]
    build_trainer('easycv', {**options, 'model': str(tmp_path / 'run' / 'output'), 'work_dir': str(tmp_path / 'next')})


@pytest.mark.parametrize('relative', [True, False])
def test_the_configuration_of_a_run_goes_on_with_it(options, tmp_path, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    folder = 'run' if relative else str(tmp_path / 'run')
    first = build_trainer(
        'easycv',
        {
            **options,
            'max_epochs': 1,
            'work_dir': folder,
            'cfg_options': {'train.checkpoint.period.save_dir': f'{folder}/points', 'evaluation.period': None},
        },
    )
    first.train()
    arguments = {key: value for key, value in options.items() if key not in ('model', 'cfg_modify_fn')}
    for epochs in (2, 3):
        resumed = build_trainer(
            'easycv',
            {
                **arguments,
                'cfg_file': f'{folder}/configuration.json',
                'max_epochs': epochs,
                'work_dir': folder,
                'resume': True,
            },
        )
        resumed.train()
        assert (resumed.run, resumed.iter) == (first.run, 4 * epochs)
    assert sorted(path.name for path in (tmp_path / 'run' / 'points').glob('epoch_?.pth')) == [
        'epoch_1.pth',
        'epoch_2.pth',
        'epoch_3.pth',
    ]


def test_two_contradicting_best_savers_of_a_file_are_an_error(with_train_section):
    file = {
        'checkpoint': {'period': {'interval': 1}, 'best': {'metric_key': 'mIoU'}},
        'hooks': [{'type': 'BestCkptSaverHook', 'metric_key': 'aAcc'}],
    }
    with pytest.raises(TrainingError, match='two hooks for the best checkpoint.*mIoU.*aAcc.*keep one'):
        with_train_section(file)


@pytest.mark.parametrize('key', ['filename', 'file_name', 'dir_name', 'save_to', 'out', 'log', 'output', 'json_out'])
def test_what_somebody_s_hook_writes_is_below_the_work_directory(tiny_model_dir, tmp_path, key):
    raw = written(
        tiny_model_dir, {'hooks': [{'type': 'SomebodysHook', key: 'a/b', 'more': {key: ['c']}, 'level': 'd'}]}
    )
    result = deepcopy(raw)
    configuration.prepare(result)
    result['train']['work_dir'] = str(tmp_path)
    confinement.confine(result, raw, None)
    assert result['train']['hooks'] == [
        {'type': 'SomebodysHook', key: f'{tmp_path}/a/b', 'more': {key: [f'{tmp_path}/c']}, 'level': 'd'}
    ]
    assert confinement.relocatable(result)['train']['hooks'] == raw['train']['hooks']


@pytest.mark.parametrize(
    'key, value, holds',
    [
        ('img_suffix', '.jpg', lambda trainer: trainer.train_dataset.source.img_suffix == ['.jpg']),
        ('ignore_index', 9, lambda trainer: trainer.train_dataset.source.ignore_index == 9),
        ('split', 'half.txt', lambda trainer: len(trainer.train_dataset) == 2),
    ],
)
def test_options_of_the_data_count_before_what_the_folder_says(options, tmp_path, monkeypatch, key, value, holds):
    (tmp_path / 'half.txt').write_text('000\n001\n')
    monkeypatch.chdir(tmp_path)
    arguments = {**options, 'cfg_options': {f'dataset.train.data_source.{key}': value}}
    assert holds(build_trainer('easycv', arguments))


def test_the_ignored_value_of_the_data_set_counts_before_what_the_folder_says(options):
    trainer = build_trainer('easycv', {**options, 'cfg_options': {'dataset.train.ignore_index': 9}})
    assert trainer.train_dataset.source.ignore_index == 9 and trainer.eval_dataset.source.ignore_index == 255


def test_a_split_file_that_an_option_names_is_the_one_that_is_read(options):
    with pytest.raises(DatasetError, match=r'nope\.txt does not exist'):
        build_trainer('easycv', {**options, 'cfg_options': {'dataset.train.data_source.split': 'nope.txt'}})


def test_options_of_a_split_that_the_folder_lacks_are_refused(options, tiny_data, tmp_path):
    for part in ('images', 'annotations'):
        shutil.copytree(tiny_data / part / 'train', tmp_path / 'data' / part / 'train')
    with pytest.raises(DatasetError, match=r'for val: dataset\.val\.data_source\.img_suffix would have no effect'):
        build_trainer(
            'easycv',
            {
                **options,
                'data_root': str(tmp_path / 'data'),
                'cfg_options': {'dataset.val.data_source.img_suffix': '.png'},
            },
        )


@pytest.mark.parametrize('make', [Path.mkdir, lambda path: path.symlink_to('gone')])
def test_class_names_that_are_no_file_are_an_error(options, tiny_data, tmp_path, make):
    shutil.copytree(tiny_data, tmp_path / 'data')
    make(tmp_path / 'data' / 'classes.txt')
    with pytest.raises(DatasetError, match='not a regular file|a file that does not exist'):
        build_trainer('easycv', {**options, 'data_root': str(tmp_path / 'data'), 'classes': None})
    with pytest.raises(DatasetError, match='not a regular file|a file that does not exist'):
        find_data_sources(tmp_path / 'data')


def test_values_that_are_taken_for_the_model_s_ids_are_warned_of(options, tiny_data, caplog):
    build_trainer('easycv', dict(options))
    assert 'names no classes' not in caplog.text
    build_trainer('easycv', {**options, 'classes': None})
    assert f"{tiny_data} names no classes: the values in its label maps are taken as the ids of the model's 171" in (
        caplog.text
    )
