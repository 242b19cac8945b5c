"""`ms-segformer predict` with images and results in stores, against an S3 server on this machine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from campaigns.s3_server import S3Server
from ms_segformer import stores
from ms_segformer.cli.main import main
from ms_segformer.results import find_in_stores, store_inputs, store_manifest
from ms_segformer.results.manifest import NAME
from ms_segformer.results.store_log import NO_MANIFEST
from ms_segformer.stores import Store

pytest.importorskip('s3fs', reason="needs s3fs: pip install '.[s3]'")
pytest.importorskip('moto', reason="needs an S3 server: pip install 'moto[server]'")
NAMES = ('a.jpg', 'b.png', 'more/a.png', 'more/c.png')


@pytest.fixture(scope='module')
def server():
    with pytest.MonkeyPatch.context() as patch, S3Server() as server:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def bucket(server, request):
    """The name of an empty bucket."""
    name = re.sub('[^a-z0-9]', '-', request.node.name.lower())[:60].strip('-')
    server.client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current directory, with images in the folder `photos`."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(NAMES):
        photograph(tmp_path / 'photos' / name, seed)
    return tmp_path


@pytest.fixture
def predict(model):
    def run(*arguments, out='out', save=('labels', 'json')):
        options = ['--model', model, '-o', out, '--engine', 'torch', '--device', 'cpu', '--save', *save]
        return main(['predict', *map(str, arguments), *map(str, options)])

    return run


def photograph(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)


def upload(server, bucket, folder='photos', prefix='photos/'):
    for path in Path(folder).rglob('*'):
        if path.is_file():
            server.put(bucket, prefix + path.relative_to(folder).as_posix(), path.read_bytes())


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob('*') if path.is_file()
    }


def entries(content):
    return {Path(next(iter(each['input'].values()))).name: each for each in map(json.loads, content.splitlines())}


def requests(monkeypatch):
    """A list of the requests to stores from now on: (method, URL)."""
    asked = []
    for method in ('info', 'below', 'read', 'put'):
        original = getattr(Store, method)

        def note(self, url, *args, _method=method, _original=original, **options):
            asked.append((_method, url))
            return _original(self, url, *args, **options)

        monkeypatch.setattr(Store, method, note)
    return asked


def test_images_in_a_store_give_what_local_ones_give(here, predict, server, bucket):
    upload(server, bucket)
    assert predict('photos', out='local') == 0
    assert predict(f's3://{bucket}/photos') == 0
    local, out = tree('local/photos'), tree(f'out/{bucket}/photos')
    assert local.keys() == out.keys() and len(out) == 8
    for name, content in out.items():
        if name.endswith('.json'):
            found = json.loads(content)
            assert found.pop('image') == f's3://{bucket}/photos/' + next(
                image for image in NAMES if image.startswith(name.removesuffix('.json') + '.')
            )
            expected = json.loads(local[name])
            del expected['image']
            assert found == expected
        else:
            assert content == local[name]
    listed = {each['Key']: each for each in server.client.list_objects_v2(Bucket=bucket)['Contents']}
    for entry in map(json.loads, Path('out/manifest.jsonl').read_text().splitlines()):
        assert set(entry['input']) == {'store', 'size', 'etag', 'sha256'}
        known = listed[entry['input']['store'].removeprefix(f's3://{bucket}/')]
        assert entry['input']['etag'] == known['ETag'].strip('"') and entry['input']['size'] == known['Size']


def test_unchanged_objects_are_skipped_without_being_fetched(here, predict, server, bucket, monkeypatch, capsys):
    upload(server, bucket)
    assert predict(f's3://{bucket}/photos') == 0
    before = tree('out')
    asked = requests(monkeypatch)
    assert predict(f's3://{bucket}/photos/') == 0
    assert '4 skipped' in capsys.readouterr().err and tree('out') == before
    assert [method for method, _ in asked].count('below') == 1 and 'read' not in dict(asked)
    photograph(here / 'photos' / 'b.png', 9)
    upload(server, bucket)
    asked.clear()
    assert predict(f's3://{bucket}/photos/*.*', f's3://{bucket}/photos/more/c.png') == 0
    assert [url for method, url in asked if method == 'read'] == [f's3://{bucket}/photos/b.png']
    changed = {name for name, content in tree('out').items() if before[name] != content}
    assert changed == {'manifest.jsonl', f'{bucket}/photos/b_labels.png', f'{bucket}/photos/b.json'}


def test_names_with_two_slashes_are_names(here, server, bucket, monkeypatch):
    monkeypatch.setattr(store_inputs, 'NAMED', 2)
    for name in ('a/1.jpg', 'a//2.jpg', 'a//3.jpg', '/4.jpg', '/5.jpg'):
        server.put(bucket, name, b'image')
    named = [f's3://{bucket}/{name}' for name in ('a//2.jpg', 'a//3.jpg', '/4.jpg', '/5.jpg', 'a//missing.jpg')]
    found = find_in_stores(named)
    assert [each.refusal for url in named[:4] for each in found.inputs[url]] == [None] * 4
    assert found.inputs[named[4]][0].refusal == f'{named[4]}: there is no such object, folder or bucket'
    pattern = f's3://{bucket}/a//*.jpg'
    assert [each.key for each in find_in_stores([pattern]).inputs[pattern]] == named[:2]


def test_results_in_a_store_are_what_a_local_folder_would_hold(here, predict, server, bucket, monkeypatch, capsys):
    (here / 'photos' / 'broken.jpg').write_bytes(b'nothing')
    assert predict('photos', out='local') == 1
    assert predict('photos', out=f's3://{bucket}/results/') == 1
    assert server.tree(bucket, 'results/') == tree('local')
    assert f'-> s3://{bucket}/results/photos/a_labels.png' in capsys.readouterr().out
    asked = requests(monkeypatch)
    assert predict('photos', out=f's3://{bucket}/results') == 1
    assert 'segmented; 4 skipped' in capsys.readouterr().err
    assert [method for method, _ in asked].count('below') == 1 and 'put' not in dict(asked)
    asked.clear()
    assert predict('photos', '--overwrite', out=f's3://{bucket}/results') == 1
    puts = [url for method, url in asked if method == 'put']
    assert len(puts) == 1 and 'manifest.jsonl.' in puts[0], 'results that are equal stay'
    assert server.tree(bucket, 'results/') == tree('local')


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(here, predict, server, bucket):
    """The log of another run, whose folder the pattern would match, stays."""
    server.put(bucket, f'run1/{NAME}.{NO_MANIFEST}.000001', b'theirs')
    assert predict('photos', out='local') == 0
    assert predict('photos', out=f's3://{bucket}/run[1]') == 0
    assert server.tree(bucket, 'run[1]/') == tree('local')
    assert server.names(bucket, 'run1/') == [f'run1/{NAME}.{NO_MANIFEST}.000001']


def test_a_name_that_is_no_text_fails_alone(here, predict, server, bucket, capsys):
    photograph(here / os.fsdecode(b'photos/\xff.png'))
    assert predict('photos', out=f's3://{bucket}/results') == 1
    said = capsys.readouterr().err
    assert 'its name is not UTF-8, as names in stores are; rename the image' in said and '4 of 5 images' in said
    assert sum(name.endswith('.json') for name in server.names(bucket)) == 4
    assert predict('photos') == 0, 'a folder takes it'


def test_nothing_that_is_not_this_images_result_is_replaced(here, predict, server, bucket, capsys):
    out = f's3://{bucket}/results'
    server.put(bucket, 'results/photos/a_labels.png', b'foreign')
    assert predict('photos', out=out, save=('labels',)) == 1
    assert f'{out}/photos/a_labels.png is there already and is not a result' in capsys.readouterr().err
    server.put(bucket, 'results/photos/b_labels.png', b'corrected')
    photograph(here / 'photos' / 'b.png', 9)
    assert predict('photos', out=out, save=('labels',)) == 1
    assert f'{out}/photos/b_labels.png has been changed since it was written' in capsys.readouterr().err
    assert server.get(bucket, 'results/photos/a_labels.png') == b'foreign'
    assert server.get(bucket, 'results/photos/b_labels.png') == b'corrected'
    assert predict('photos', '--overwrite', out=out, save=('labels',)) == 0
    assert predict('photos', out='local', save=('labels',)) == 0
    assert server.tree(bucket, 'results/') == tree('local')


def test_results_of_another_run_below_the_images_are_no_images(here, predict, server, bucket, capsys):
    upload(server, bucket)
    url = f's3://{bucket}/photos'
    assert predict(url, out=f'{url}/results') == 0
    before = server.tree(bucket)
    assert predict(url, out=f'{url}/results') == 0
    said = capsys.readouterr().err
    assert 'note: 4 results of earlier runs are not taken for images' in said and '4 skipped' in said
    assert server.tree(bucket) == before


def test_a_result_that_would_replace_an_image_is_refused(here, predict, server, bucket, capsys):
    server.put(bucket, f'{bucket}/a_labels.png', (here / 'photos' / 'b.png').read_bytes())
    server.put(bucket, 'a.png', (here / 'photos' / 'b.png').read_bytes())
    url = f's3://{bucket}'
    assert predict(f'{url}/a.png', f'{url}/{bucket}/a_labels.png', out=url) == 1
    assert 'would replace this file, which is one of the images' in capsys.readouterr().err
    assert set(server.tree(bucket)) == {f'{bucket}/a_labels.png', 'a.png'}


def delete(server, bucket):
    """Remove a bucket into which objects may still be put."""
    while True:
        server.remove(bucket)
        with suppress(server.client.exceptions.ClientError):
            server.client.delete_bucket(Bucket=bucket)
            return


def run_later(model, *arguments):
    """The command in a process of its own, with an image a batch."""
    start = (
        'import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); '
        'from ms_segformer.results import store_manifest; store_manifest.BATCH = 1; '
        'from ms_segformer.cli.main import main; sys.exit(main())'
    )
    options = ['--model', model, '--engine', 'torch', '--device', 'cpu', '--save', 'labels', 'json']
    command = [sys.executable, '-c', start, 'predict', *arguments, *options]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(found):
    for _ in range(2400):
        if found():
            return
        time.sleep(0.05)
    raise AssertionError('it did not come')


@pytest.mark.parametrize('kind', [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_in_the_middle_goes_on(here, predict, model, server, bucket, kind, capsys):
    for number in range(40):
        photograph(here / 'photos' / f'{number}.png', number)
    assert predict('photos', out='local') == 0
    with run_later(model, 'photos', '-o', f's3://{bucket}/results') as process:
        wait_for(lambda: sum('_labels' in name for name in server.names(bucket)) > 3)
        process.send_signal(kind)
        said = process.stderr.read()
    assert process.returncode == (130 if kind == signal.SIGINT else -signal.SIGKILL)
    assert said == ('interrupted\n' if kind == signal.SIGINT else '')
    left = server.tree(bucket, 'results/')
    assert 'manifest.jsonl' not in left and 3 < sum('_labels' in name for name in left) < 44
    capsys.readouterr()
    assert predict('photos', out=f's3://{bucket}/results') == 0
    skipped = int(re.search(r'; (\d+) skipped', capsys.readouterr().err)[1])
    assert skipped >= sum('_labels' in name for name in left) - (0 if kind == signal.SIGINT else 3)
    assert server.tree(bucket, 'results/') == tree('local')


def test_a_bucket_of_images_that_vanishes_is_said_for_each_image(here, predict, server, bucket, monkeypatch, capsys):
    upload(server, bucket)
    from ms_segformer.cli import predict as command

    opened = command._open

    def vanish(args):
        delete(server, bucket)
        return opened(args)

    monkeypatch.setattr(command, '_open', vanish)
    assert predict(f's3://{bucket}/photos', 'photos/a.jpg') == 1
    said = capsys.readouterr().err
    reason = 'cannot be fetched (there is no such object, or no such bucket)'
    assert [f'error: s3://{bucket}/photos/{name}: {reason}' in said for name in NAMES] == [True] * 4
    assert '1 of 5 images segmented' in said and 'Traceback' not in said
    assert predict(f's3://{bucket}/photos', f's3://{bucket}/photos/a.jpg') == 1
    said = capsys.readouterr().err
    assert f'error: s3://{bucket}/photos: there is no such object, folder or bucket' in said


def test_a_bucket_of_results_that_vanishes_ends_the_run_and_the_same_command_goes_on(
    here, predict, server, bucket, monkeypatch, capsys
):
    assert predict('photos', out='local') == 0
    capsys.readouterr()
    put = Store.put

    def vanish(self, url, content, new=False):
        if url.endswith('more/a_labels.png'):
            delete(server, bucket)
        put(self, url, content, new)

    monkeypatch.setattr(store_manifest, 'BATCH', 1)
    monkeypatch.setattr(Store, 'put', vanish)
    assert predict('photos', out=f's3://{bucket}/results') == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error'))
    assert line == (
        f'error: s3://{bucket}/results: there is no such object, or no such bucket. Results that are there are kept, '
        'and the same command goes on with the others'
    )
    assert predict('photos', out=f's3://{bucket}/results') == 1
    assert 'no such bucket' in capsys.readouterr().err
    monkeypatch.setattr(Store, 'put', put)
    server.client.create_bucket(Bucket=bucket)
    assert predict('photos', out=f's3://{bucket}/results') == 0
    assert server.tree(bucket, 'results/') == tree('local')


@pytest.fixture
def fresh_stores(monkeypatch):
    """Stores are opened anew, by the environment as the test has it."""
    import s3fs

    monkeypatch.setattr(stores, '_stores', {})
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_that_is_named_by_a_pattern_is_said(here, predict, server, capsys):
    assert predict('s3://photo*/a.jpg') == 1
    assert 'error: s3://photo*/a.jpg: the name of a bucket is no pattern; name each' in capsys.readouterr().err


@pytest.mark.parametrize('arguments, out', [(['s3://bucket/photos'], 'out'), (['photos'], 's3://bucket/out')])
def test_a_server_that_is_gone_is_said_in_words(here, predict, monkeypatch, fresh_stores, capsys, arguments, out):
    with socket.create_server(('127.0.0.1', 0)) as gone:
        port = gone.getsockname()[1]
    monkeypatch.setenv('AWS_ENDPOINT_URL', f'http://127.0.0.1:{port}')
    monkeypatch.setenv('AWS_MAX_ATTEMPTS', '1')
    assert predict(*arguments, out=out) == 1
    said = capsys.readouterr().err
    assert f'127.0.0.1:{port}' in said and said.startswith('error: s3://bucket/') and said.count('\n') == 1


def test_missing_credentials_are_said_in_words(here, predict, server, monkeypatch, fresh_stores, capsys):
    for name in server.environment:
        monkeypatch.delenv(name)
    monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    monkeypatch.setenv('AWS_ENDPOINT_URL', server.environment['AWS_ENDPOINT_URL'])
    monkeypatch.setenv('HOME', str(here))
    assert predict('photos', out='s3://bucket/out') == 1
    said = capsys.readouterr().err
    assert 'the store refuses it (' in said and 'credentials from its own environment' in said


def test_no_secret_reaches_a_message_or_a_manifest(here, predict, server, bucket, capsys, tmp_path):
    upload(server, bucket)
    url = f's3://{bucket}/photos'
    assert predict(url, f's3://{bucket}-nowhere/a.jpg', out=f's3://{bucket}/results') == 1
    with pytest.raises(SystemExit):
        predict('photos', out=f's3://{server.environment["AWS_ACCESS_KEY_ID"]}:hush@{bucket}/results')
    assert predict(f's3://me:hush@{bucket}/photos') == 1
    said = ''.join(capsys.readouterr())
    kept = b''.join(server.tree(bucket, 'results/').values())
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
        assert server.environment[name] not in said and server.environment[name].encode() not in kept
    assert 'hush' not in said and said.count('a name or password stands before the @') == 2
    assert not Path('out').exists()


@pytest.mark.parametrize(
    'arguments, out', [(['ftp://127.0.0.1:1/a.jpg'], 'out'), (['photos'], 'ftp://127.0.0.1:1/out')]
)
def test_a_store_that_cannot_be_opened_is_named(here, predict, capsys, arguments, out):
    assert predict(*arguments, out=out) == 1
    assert capsys.readouterr().err.startswith('error: ftp://127.0.0.1:1/')


@pytest.mark.parametrize(
    'arguments, said',
    [
        (['photos', '--format', 'coco', '-o', 's3://bucket/out'], '--format writes to a folder, not into a store'),
        (['clip.mp4', '-o', 's3://bucket/out'], 'clip.mp4: the files of a video are written to a folder'),
        (['s3://bucket/clip.mp4', '-o', 'out'], 's3://bucket/clip.mp4: a video is read from a file; download it first'),
        (['photos', '-o', 's4://bucket/out'], 's4:// is no store that results are written to'),
        (['photos', '-o', 'https://host/out'], 'https:// is no store that results are written to'),
        (['photos', '-o', 's3://'], 's3://: names no bucket'),
    ],
)
def test_what_stores_are_not_for_is_refused_at_the_door(here, model, server, capsys, monkeypatch, arguments, said):
    monkeypatch.setattr('ms_segformer.cli.predict._open', lambda args: pytest.fail('opens a model'))
    Path('clip.mp4').write_bytes(b'video')
    if 's3://bucket/clip.mp4' in arguments:
        server.client.create_bucket(Bucket='bucket')
        server.put('bucket', 'clip.mp4', b'video')
    try:
        code = main(['predict', *arguments, '--model', str(model)])
    except SystemExit as end:
        code = end.code
    assert code in (1, 2) and said in capsys.readouterr().err


def test_a_list_of_objects_and_files(here, predict, server, bucket, capsys):
    upload(server, bucket)
    Path('list.txt').write_text(f'photos/a.jpg\r\n\ns3://{bucket}/photos/b.png\ns3://{bucket}/nothing.png')
    assert predict('--from', 'list.txt', save=('labels',)) == 1
    assert f's3://{bucket}/nothing.png: there is no such object' in capsys.readouterr().err
    assert set(tree('out')) == {'manifest.jsonl', 'photos/a_labels.png', f'{bucket}/photos/b_labels.png'}
