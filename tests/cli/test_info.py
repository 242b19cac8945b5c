"""`ms-segformer info`: what users paste into an issue."""

import json

import pytest
from hub.fixtures import MODEL_ID, needs_hub_client, published_files

from ms_segformer.cli import info

pytestmark = pytest.mark.forked_python

INFO = (
    'import sys, argparse; from ms_segformer.cli import info; parser = argparse.ArgumentParser(); '
    'info.add_arguments(parser); sys.exit(info.run(parser.parse_args(sys.argv[1:])))'
)


def report(python, *arguments, check=True, **variables):
    done = python.run('-c', INFO, *arguments, '--json', check=check, **variables)
    return json.loads(done.stdout[done.stdout.index('{') :]), done.returncode


def test_it_names_versions_the_server_and_the_six_models(python, hub):
    found, status = report(python)
    about = found['environment']
    assert status == 0 and about['connection to ModelScope'] == 'complete'
    assert all(name in about['versions'] for name in ('ms-segformer 0.', 'modelscope 1.', 'torch 2.', 'numpy '))
    assert about['served by'].startswith('ms-segformer') and about['autoload'].startswith('autoload is off')
    assert str(python.cache) in about['cache'] and hub.url in about['cache']
    models = found['published models']
    assert len(models) == 6 and '35.91 mIoU' in models[MODEL_ID] and '47.2 ms' in models[MODEL_ID]
    assert 'ms-segformer fetch b0' in models[MODEL_ID]
    assert hub.requests == [], 'nothing is asked of the network'


@needs_hub_client
def test_a_published_model_before_and_after_it_is_fetched(python, hub):
    before, status = report(python, 'b0')
    assert 'not in the cache' in before['model']['files'] and status == 0
    python.run('-c', f'import ms_segformer; from modelscope import snapshot_download; snapshot_download({MODEL_ID!r})')
    asked = len(hub.requests)
    after, status = report(python, MODEL_ID)
    model = after['model']
    assert status == 0 and model['checkpoint loads'] is True and model['id'] == MODEL_ID
    assert str(python.cache) in model['directory'] and 'pytorch_model.pt' in model['files']
    assert model['engine'] and len(hub.requests) == asked


def test_a_directory_is_described(tiny_model_dir):
    about = info.model(str(tiny_model_dir))
    assert about['variant'] == 'none of B0 to B5' and about['parameters'] == '143,508'
    assert about['classes'] == '171 names, 172 outputs' and about['checkpoint loads'] is True
    assert about['engine']


def test_published_figures_are_those_of_the_six_ids_alone():
    about = info.model('demo')
    assert about['variant'] == 'B0' and about['checkpoint loads'] is True and 'published' not in about
    assert '35.91' not in str(about) and '35.91' in info.model('b0')['published']


@pytest.mark.parametrize(
    'damage, key, text',
    [
        ({'pytorch_model.pt': b'not a checkpoint'}, 'why not', 'pytorch_model.pt'),
        ({'pytorch_model.pt': None}, 'why not', 'no checkpoint'),
        ({'configuration.json': b'{'}, 'configuration', 'configuration.json'),
        ({'configuration.json': None}, 'configuration', 'no such file'),
    ],
)
def test_what_keeps_a_model_from_loading_is_told(tmp_path, damage, key, text):
    for name, content in {**published_files(), **damage}.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    about = info.model(str(tmp_path))
    assert about['checkpoint loads'] is False and text in about[key]


def test_a_model_that_does_not_load_makes_the_command_fail(python, hub, tmp_path):
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'configuration.json').write_bytes(published_files()['configuration.json'])
    found, status = report(python, tmp_path / 'model', check=False)
    assert status == 1 and 'no checkpoint' in found['model']['why not']


def test_the_variable_shows(python):
    found, _ = report(python, MS_SEGFORMER_DISABLE='1')
    assert 'MS_SEGFORMER_DISABLE' in found['environment']['served by']


def test_the_text_has_a_line_for_everything():
    text = info._text({'model': {'directory': '/x', 'checkpoint loads': True, 'parameters': '3'}})
    assert text.splitlines() == ['model', '  directory: /x', '  checkpoint loads: yes', '  parameters: 3']
