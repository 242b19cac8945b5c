"""What `import ms_segformer` offers: everything lazily, and `load` that opens a model by any of its names."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hub.fixtures import hub, published_files, python  # noqa: F401

import ms_segformer
from ms_segformer.cli.main import COMMANDS

PHOTO = Path(__file__).parents[1] / 'assets' / 'china.jpg'


def test_names_are_known_before_anything_heavy_is_imported(python):  # noqa: F811
    assert python.result("""
        import json, sys
        import ms_segformer
        known = dir(ms_segformer)
        heavy = [name for name in ('modelscope', 'torch', 'numpy', 'importlib.metadata') if name in sys.modules]
        print(json.dumps([sorted(set(ms_segformer.__all__) - set(known)), heavy]))
    """) == [[], []]


def test_every_name_is_the_thing_itself():
    for name, module in ms_segformer._HOMES.items():
        found = getattr(ms_segformer, name)
        assert found.__name__ == name and found.__module__ == f'ms_segformer.{module}'
    assert set(ms_segformer._HOMES) | {'activate', 'deactivate', '__version__'} == set(ms_segformer.__all__)


def test_type_checkers_read_the_same_names():
    lines = Path(ms_segformer.__file__).read_text(encoding='utf-8').splitlines()
    for name, module in ms_segformer._HOMES.items():
        assert f'    from .{module} import {name}' in lines


def test_the_help_lists_every_name_with_what_it_is_for():
    listed = ms_segformer.__doc__.split('What is here:\n\n')[1].split('\n\n')[0].splitlines()
    names = [name for line in listed for name in line[4:26].strip().split(', ')]
    assert all(line[27:].strip() for line in listed)
    assert sorted([*names, '__version__']) == sorted(ms_segformer.__all__)


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'lod'; it offers .*\bload\b"):
        _ = ms_segformer.lod


def test_the_demonstration_model_opens_by_its_name_and_knows_what_it_is():
    segmenter = ms_segformer.load('demo', device='cpu')
    assert isinstance(segmenter, ms_segformer.SegformerPipeline)
    result = segmenter(str(PHOTO))
    assert 'sky-other' in result['labels'] and len(result['masks']) == len(result['labels'])
    assert segmenter.variant == 'b0' and len(segmenter.classes) == 10
    assert segmenter.id2label[segmenter.classes.index('tree')] == 'tree'
    ids = set(np.unique(result['seg_map'])) & set(segmenter.id2label)
    assert {segmenter.id2label[i] for i in ids} == set(result['labels'])
    assert segmenter.palette.shape == (256, 3) and segmenter.palette.dtype == np.uint8
    assert len(np.unique(segmenter.palette[:10], axis=0)) == 10


@pytest.mark.forked_python
def test_the_example_in_the_help_runs_without_a_network(python, hub):  # noqa: F811
    hub.stop()
    example = ms_segformer.__doc__.split('no network is needed:\n')[1].split('\nRun the code')[0]
    done = python.run(code=example)
    assert any(line.startswith('sky-other 0.') for line in done.stdout.splitlines()), done.stdout
    assert hub.requests == []


@pytest.mark.forked_python
def test_a_published_model_opens_by_its_short_name_and_by_its_directory(python, hub):  # noqa: F811
    code = """
        import ms_segformer
        from ms_segformer.integrations.modelscope.hub import fetch
        from ms_segformer.metainfo import VARIANTS
        model = ms_segformer.load('b0', device='cpu')
        again = ms_segformer.load(fetch(VARIANTS['b0'].hub_ids[0]), device='cpu')
        print(type(model).__name__, len(model.classes), model.classes == again.classes)
    """
    assert python.run(code=code).stdout.split()[-3:] == ['SegformerPipeline', '171', 'True']


@pytest.mark.parametrize(
    'arguments, error, message',
    [
        (
            ('b9',),
            FileNotFoundError,
            'b9: no such directory, and neither a hub id such as damo/.* nor one of b0, .*demo',
        ),
        (('',), FileNotFoundError, 'no such directory'),
        (('demo', 'v1'), ValueError, "revision is 'v1', and demo is a directory"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        ms_segformer.load(arguments[0], revision=dict(enumerate(arguments)).get(1))
    assert '\n' not in str(caught.value)


def test_a_folder_without_a_model_is_refused_before_modelscope_sees_it(tmp_path):
    with pytest.raises((ValueError, OSError), match='configuration.json') as caught:
        ms_segformer.load(tmp_path)
    assert '\n' not in str(caught.value)


@pytest.mark.forked_python
def test_it_says_so_when_it_is_not_active(python):  # noqa: F811
    code = """
        import ms_segformer
        ms_segformer.deactivate()
        try:
            ms_segformer.load('demo')
        except ms_segformer.SegformerError as error:
            print(error)
    """
    assert 'call ms_segformer.activate()' in python.run(code=code).stdout


def test_the_package_is_the_command_line():
    done = subprocess.run(
        [sys.executable, '-m', 'ms_segformer', '--help'],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(ms_segformer.__file__).parents[1],
    )
    assert all(command in done.stdout for command in COMMANDS)
