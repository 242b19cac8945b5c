"""`ms-segformer fetch`: a model is there for later, or the message says what to try."""

from pathlib import Path

import pytest
from hub.fixtures import MODEL_ID, needs_hub_client, published_files

from ms_segformer.metainfo import demo_model_dir, find_model

pytestmark = pytest.mark.forked_python

FETCH = (
    'import sys, argparse; from ms_segformer.cli import fetch; parser = argparse.ArgumentParser(); '
    'fetch.add_arguments(parser); sys.exit(fetch.run(parser.parse_args(sys.argv[1:])))'
)


@pytest.mark.parametrize(
    'name, expected', [('b0', MODEL_ID), ('B0', MODEL_ID), (MODEL_ID, MODEL_ID), ('me/mine', 'me/mine')]
)
def test_short_names_and_ids(name, expected):
    assert find_model(name) == expected


@pytest.mark.parametrize('name', ['b9', 'segformer', 'a/b/c', '/x', 'x/', './x/y', ''])
def test_anything_else_is_refused(name):
    with pytest.raises(FileNotFoundError, match='no such directory, and neither a hub id'):
        find_model(name)


def test_directories_and_the_model_in_the_package(tmp_path):
    assert find_model(tmp_path) == str(tmp_path)
    assert find_model('demo') == str(demo_model_dir())


@needs_hub_client
def test_a_fetched_model_is_found_without_the_hub(python, hub):
    first = python.run('-c', FETCH, 'b0').stdout.splitlines()
    hub.stop()
    again = python.run('-c', FETCH, 'b0').stdout.splitlines()
    assert first == again and str(python.cache) in first[-2] and MODEL_ID in first[-1]


def test_a_revision_and_a_folder(python, hub, tmp_path):
    done = python.run('-c', FETCH, MODEL_ID, '--revision', 'v1.0.0', '--to', tmp_path / 'here')
    assert (tmp_path / 'here' / 'pytorch_model.pt').read_bytes() == hub.models[MODEL_ID]['pytorch_model.pt']
    assert repr(str(tmp_path / 'here')) in done.stdout.splitlines()[-1]
    assert hub.asked('Revision=v1.0.0.*pytorch_model.pt')


@pytest.mark.parametrize(
    'name, stopped, message',
    [
        ('damo/no_such_model', False, 'could not be downloaded'),
        pytest.param('b0', True, 'is not in the cache of this machine', marks=needs_hub_client),
    ],
)
def test_what_cannot_be_fetched_says_what_to_try(python, hub, name, stopped, message):
    if stopped:
        hub.stop()
    done = python.run('-c', FETCH, name, check=False)
    assert done.returncode and message in done.stderr and 'MODELSCOPE_ENDPOINT' in done.stderr


def test_imagenet_weights_and_a_url_are_fetched_for_later(python, hub, tmp_path, tiny_model_dir):
    import json

    content, weights = published_files(), (tiny_model_dir / 'pytorch_model.pt').read_bytes()
    configuration = json.loads(content['configuration.json'])
    configuration['model']['pretrained'] = f'{hub.url}/pretrain/mit.pth'
    hub.add_model('me/mine', {**content, 'configuration.json': json.dumps(configuration).encode()})
    hub.add_file('/pretrain/mit.pth', weights)
    first = python.run('-c', FETCH, 'me/mine', '--imagenet', '--to', tmp_path / 'here').stdout.split()[-1]
    assert first == str(tmp_path / 'here' / 'mit.pth')
    second = python.run('-c', FETCH, f'{hub.url}/pretrain/mit.pth', MS_SEGFORMER_CACHE=tmp_path / 'cache')
    path = Path(second.stdout.split()[-1])
    assert path.parent == tmp_path / 'cache' / 'weights' and path.read_bytes() == weights
    hub.add_file('/page.pth', b'<html>log in')
    done = python.run('-m', 'ms_segformer.cli.main', 'fetch', f'{hub.url}/page.pth', check=False)
    assert done.returncode == 1 and 'page.pth cannot be had: what came is no checkpoint: a web page' in done.stderr
    done = python.run('-c', FETCH, 'demo', '--imagenet', check=False)
    assert 'the configuration of demo names no ImageNet weights' in done.stderr


@pytest.mark.parametrize(
    'status, content',
    [
        (500, b'{"Message": "out\\nof order"}'),
        (200, b'null'),
        (200, b'[]'),
        (200, b'<html>\nwelcome'),
        pytest.param(404, b'{}', marks=needs_hub_client),
    ],
)
def test_a_hub_that_answers_badly_is_one_line(python, hub, status, content):
    hub.instead = status, content
    done = python.run('-m', 'ms_segformer.cli.main', 'fetch', 'b0', check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f'error: {MODEL_ID} (revision master) could not be downloaded: ')
