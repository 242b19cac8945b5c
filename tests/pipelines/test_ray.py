"""`segment` on Ray Data, `predict --ray` and `eval --ray`, on real clusters of this machine.

Starting Ray and a process with a model takes seconds, so the tests share a cluster and see much in one run.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from small_evaluation import random_pairs, scale_to

from campaigns.s3_server import S3Server
from ms_segformer import load
from ms_segformer.cli.main import main
from ms_segformer.results.parquet import RECORD, ParquetFolder, file_system

pytest.importorskip('ray', reason="needs Ray Data: pip install 'ms-segformer[ray]'")
pytest.importorskip('pyarrow', reason="needs pyarrow: pip install 'ms-segformer[ray]'")

os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
os.environ['RAY_worker_niceness'] = '0'  # beside other tests they would wait

import pyarrow as pa  # noqa: E402
import ray  # noqa: E402
from pyarrow import dataset as arrow_dataset  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from ms_segformer.pipelines.ray import (  # noqa: E402
    PartSegmenter,
    RayError,
    in_actors,
    segment,
    segment_parts,
    segmentation_schema,
)

ROOT = Path(__file__).parents[2]
STORE = 100 << 20  # bytes of a node's object store


@pytest.fixture(autouse=True)
def one_thread():
    """As the actors have; with more, scores may differ in the last digit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module', autouse=True)
def same_signals():
    """Ray leaves a handler of SIGTERM in this process, which the tests after these would meet."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope='module')
def model(tiny_model_dir, tmp_path_factory):
    """The tiny model, for photographs of about 64×48 pixels."""
    folder = tmp_path_factory.mktemp('model') / 'tiny'
    shutil.copytree(tiny_model_dir, folder)
    scale_to(folder, [64, 48])
    return folder


def photographs(folder, count):
    """Paths of that many noisy pictures of several shapes; the third is broken."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        shape = (40 + 8 * (number % 3), 56 + 8 * (number % 2), 3)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / f'{number:03}.png')
    (folder / '002.png').write_bytes(b'no picture')
    return sorted(str(path) for path in folder.iterdir())


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp('photos') / 'photos', 40)


def nodes(*cpus):
    """A cluster with a node for each number of CPUs."""
    cluster = Cluster()
    for count in cpus:
        cluster.add_node(num_cpus=count, num_gpus=0, object_store_memory=STORE, include_dashboard=False)
    return cluster


@pytest.fixture(scope='module')
def cluster():
    """A node with two CPUs."""
    cluster = nodes(2)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def connected(cluster):
    ray.init(address=cluster.address, log_to_driver=False, logging_level='ERROR')
    yield
    ray.shutdown()


def rows_of(folder):
    """All rows of a folder of Parquet files, by path; a path that comes twice is a mistake."""
    table = arrow_dataset.dataset(str(folder), format='parquet').to_table()
    assert table.schema.equals(segmentation_schema().insert(0, pa.field('path', pa.string())))
    found = {row['path']: row for row in table.to_pylist()}
    assert len(found) == table.num_rows
    return found


def agrees(row, result):
    """Whether a row says what the pipeline does."""
    if 'error' in result:
        return row['error'] == result['error'] and row['height'] is row['label_map'] is row['segments'] is None
    seg_map = result['seg_map']
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(row['label_map']))), seg_map)
    assert (row['height'], row['width']) == seg_map.shape and row['error'] is None
    assert [dict(each, mask=None) for each in row['segments']] == [dict(each, mask=None) for each in result.to_dicts()]
    return all(np.array_equal(coco.decode(each['mask']), seg_map == each['id']) for each in row['segments'])


def predict(*words, model, out):
    return main(['predict', *map(str, words), '--model', str(model), '-o', str(out), '--engine', 'torch'])


def test_a_data_set_of_anyone_gets_the_columns_lazily_and_bad_images_an_error(connected, model, photos):
    segmenter = load(model, device='cpu', engine='torch')
    expected = segmenter(photos[:6], with_masks=False)
    items = [{'path': path, 'bytes': Path(path).read_bytes(), 'number': i} for i, path in enumerate(photos[:6])]
    items += [{'path': 'nothing', 'bytes': None, 'number': 6}, {'path': 'empty', 'bytes': b'', 'number': 7}]
    dataset = ray.data.from_items(items, override_num_blocks=4)
    done = segment(dataset, model, engine='torch', concurrency=1)
    assert 'MapBatches(Segmenter)' in repr(done) and done.schema(fetch_if_missing=False) is None
    table = pa.concat_tables(ray.get(done.to_arrow_refs()))
    assert table.column_names == ['path', 'number', *segmentation_schema().names]
    assert all(table.schema.field(field.name).equals(field) for field in segmentation_schema())
    rows = sorted(table.to_pylist(), key=lambda row: row['number'])
    assert [row['path'] for row in rows] == [item['path'] for item in items]
    for row, result in zip(rows[:6], expected, strict=True):
        if row['number'] == 2:
            assert row['label_map'] is None and 'not an image of a kind' in row['error']
        else:
            assert agrees(row, result)
    assert 'null; expected an image' in rows[6]['error'] and rows[7]['error']


def test_arrays_paths_and_blocks_of_nothing_but_errors_have_the_same_schema(connected, model, photos):
    arrays = [np.asarray(Image.open(path)) for path in photos[3:6]]
    dataset = ray.data.from_items([{'image': array} for array in arrays])
    dataset = dataset.union(ray.data.from_items([{'image': arrays[0]}]))
    done = segment(dataset, model, engine='torch', concurrency=1, keep_images=True)
    found = pa.concat_tables(ray.get(done.select_columns(segmentation_schema().names).to_arrow_refs()))
    expected = load(model, device='cpu', engine='torch')(arrays, with_masks=False)
    by_size = sorted(found.to_pylist(), key=lambda row: (row['height'], row['width'], row['label_map']))
    wanted = sorted(expected + expected[:1], key=lambda result: result['seg_map'].shape)
    assert [(row['height'], row['width']) for row in by_size] == [each['seg_map'].shape for each in wanted]
    errors = segment(ray.data.from_items([{'path': '/nowhere.jpg'}]), model, engine='torch', concurrency=1)
    table = pa.concat_tables(ray.get(errors.to_arrow_refs()))
    assert table.schema.equals(segmentation_schema().insert(0, pa.field('path', pa.string())))
    assert '/nowhere.jpg' in table.column('error')[0].as_py() and found.schema.equals(segmentation_schema())


def test_what_segment_does_not_take_is_said_before_anything_runs(connected, model):
    dataset = ray.data.from_items([{'picture': b'', 'number': 1}])
    with pytest.raises(TypeError, match="no argument 'with_mask'"):
        segment(dataset, model, with_mask=True)
    with pytest.raises(ValueError, match='columns picture, number; expected image, bytes or path'):
        segment(dataset, model)
    with pytest.raises(ValueError, match='columns number; expected picture'):
        segment(dataset.drop_columns(['picture']).materialize(), model, column='picture')
    with pytest.raises(ValueError, match='the columns error already'):
        segment(ray.data.from_items([{'image': b'', 'error': 1}]), model)
    with pytest.raises(ValueError, match='batch_size is 0'):
        segment(dataset, model, column='picture', batch_size=0)
    with pytest.raises(ValueError, match='concurrency is 0'):
        segment(dataset, model, column='picture', concurrency=0)


def test_predict_on_a_cluster_writes_a_row_for_each_image_and_does_none_twice(cluster, model, photos, tmp_path, capsys):
    out = tmp_path / 'rows'
    folder = Path(photos[0]).parent
    words = ('--ray', cluster.address, '--processes', 2)
    assert predict(*photos[:30], *words, model=model, out=out) == 1
    said = capsys.readouterr().err
    assert '29 of 30 images segmented' in said and 'error: ' in said and '002.png' in said
    first = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert RECORD in first and len(first) == 5
    assert predict(folder, folder / 'missing.jpg', *words, model=model, out=out) == 1
    assert '10 of 41 images segmented' in (said := capsys.readouterr().err) and '30 skipped' in said
    rows = rows_of(out)
    assert sorted(rows) == sorted([*photos, str(folder / 'missing.jpg')])
    results = load(model, device='cpu', engine='torch')(photos, with_masks=False)
    assert all(agrees(rows[path], result) for path, result in zip(photos, results, strict=True))
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name in first} == first
    shutil.copy(photos[0], folder / 'missing.jpg')
    try:
        assert predict(folder, folder / 'missing.jpg', *words, model=model, out=out) == 0
        assert predict(folder, *words, '--retry-failed', model=model, out=out) == 1
    finally:
        (folder / 'missing.jpg').unlink()
    again = rows_of(out)
    assert again.pop(str(folder / 'missing.jpg'))['label_map'] == rows[photos[0]]['label_map']
    assert again == {path: row for path, row in rows.items() if path in photos}


REFUSED = [
    (['--ray', 'local', '--save', 'json'], '--save does not go with --ray'),
    (['--ray', 'local', '--format', 'coco'], '--format does not go with --ray'),
    (['--ray', 'local', '--overwrite'], '--overwrite does not go with --ray'),
    (['--ray', 'local', '--names'], '--names does not go with --ray'),
    (['--ray', 'local', '--min-share', '3'], '--min-share does not go with --ray'),
    (['--ray', 'local', '--device', 'cuda:1'], '--device cuda:1: with --ray each actor gets its GPU from Ray'),
    (['clip.mp4', '--ray', 'local'], 'videos do not go with --ray'),
    (['--ray', ''], '--ray names no cluster; expected local, auto, HOST:PORT or ray://HOST:PORT'),
]


@pytest.mark.parametrize(('words', 'message'), REFUSED)
def test_what_does_not_go_with_ray_is_refused(model, photos, tmp_path, capsys, words, message):
    assert predict(photos[0], *words, model=model, out=tmp_path / 'rows') == 1
    assert message in capsys.readouterr().err and not (tmp_path / 'rows').exists()


def test_a_name_that_is_no_text_is_said_before_a_cluster_is_asked(model, tmp_path, capsys):
    path = os.fsdecode(bytes(tmp_path) + b'/\xff.png')
    Image.new('RGB', (64, 48)).save(path)
    assert predict(path, '--ray', 'local', model=model, out=tmp_path / 'rows') == 1
    assert 'its name is not UTF-8, as the text of a row has to be' in capsys.readouterr().err
    assert not (tmp_path / 'rows').exists()


def test_where_no_cluster_is_the_address_is_named(model, photos, tmp_path, capsys):
    assert predict(photos[0], '--ray', '127.0.0.1:1', model=model, out=tmp_path / 'rows') == 1
    assert '--ray 127.0.0.1:1: no cluster of Ray is there' in capsys.readouterr().err


def test_eval_on_a_cluster_equals_one_process(cluster, model, tmp_path, capsys):
    data = random_pairs(tmp_path / 'data', [f'{number}' for number in range(20)])
    found = {}
    for name, words in {'one': [], 'ray': ['--ray', cluster.address]}.items():
        arguments = ['--model', model, '--data', data, '--engine', 'torch', '--device', 'cpu', *words]
        assert (
            main(
                [
                    'eval',
                    *map(str, arguments),
                    '--json',
                    str(tmp_path / name),
                    '--confusion',
                    str(tmp_path / f'{name}.png'),
                ]
            )
            == 0
        )
        found[name] = json.loads((tmp_path / name).read_text())
        del found[name]['seconds']
    assert found['one'] == found['ray'] and found['ray']['images'] == 20
    assert (tmp_path / 'one.png').read_bytes() == (tmp_path / 'ray.png').read_bytes()
    assert main(['eval', '--model', str(model), '--data', str(data), '--ray', 'local', '--workers', '1']) == 1
    assert '--workers does not go with --ray' in capsys.readouterr().err


def actors(job='MapWorker'):
    """Processes of actors of Ray Data, by what they call themselves."""
    found = []
    for folder in Path('/proc').iterdir():
        if folder.name.isdigit():
            try:
                if f'ray::{job}' in (folder / 'cmdline').read_bytes().decode(errors='replace'):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, 'it did not come'
        time.sleep(0.02)
    return found


def test_a_node_and_an_actor_die_in_the_middle_and_every_row_is_there_once(model, tmp_path):
    photos = photographs(tmp_path / 'photos', 60)
    cluster = nodes(1, 1, 1)
    out, seen = tmp_path / 'rows', []

    def harm():
        wait_for(lambda: len(list(out.glob('part-*.parquet'))) >= 1)
        seen.append(len(list(out.glob('part-*.parquet'))))
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        os.kill(actors()[0], signal.SIGKILL)
        seen.append(len(list(out.glob('part-*.parquet'))))

    thread = threading.Thread(target=harm)
    try:
        thread.start()
        assert predict(*photos, '--ray', cluster.address, model=model, out=out) == 1  # the broken one
        thread.join()
    finally:
        cluster.shutdown()
    assert max(seen) < len(list(out.glob('part-*.parquet')))
    assert sorted(rows_of(out)) == photos


def test_an_image_that_ends_its_process_every_time_has_no_row_and_the_others_have(connected, tmp_path):
    class Stub(PartSegmenter):
        """Without a model, whose start would take most of the time."""

        def __init__(self, location, unfinished, **arguments):
            self._files, self._path = file_system(location)
            self._unfinished = unfinished

        def rows(self, images):
            if 'fatal' in images:
                os._exit(1)
            return pa.Table.from_pylist([{'height': 1}] * len(images), schema=segmentation_schema())

    keys = [*map(str, range(10)), 'fatal']
    with ParquetFolder(str(tmp_path / 'rows'), {'model': {'sha256': ''}, 'options': {}}) as folder:
        arguments = {'num_cpus': 1, 'num_gpus': 0, 'concurrency': 2, 'segmenter': Stub}
        outcomes = list(segment_parts(folder, folder.plan(keys).parts, 'none', {}, **arguments))
        assert [(each.part.keys, each.failed) for each in outcomes if each.lost] == [(('fatal',), 1)]
        assert 'fatal: the process that segments it was ended every time' in outcomes[-1].errors[0]
        assert [part.keys for part in folder.plan(keys).parts] == [('fatal',)]
    assert sorted(rows_of(tmp_path / 'rows')) == sorted(keys[:-1])


def test_why_actors_cannot_be_made_is_said_in_a_line(connected):
    class Broken:
        def __init__(self):
            raise FileNotFoundError('model: no such directory')

        def __call__(self, table):
            return table

    with pytest.raises(RayError, match='^the processes of the cluster cannot work: FileNotFoundError: model: no such'):
        list(in_actors(Broken, [{'row': 1}], {}, num_cpus=1, num_gpus=0, concurrency=1))


def test_a_killed_run_from_store_to_store_is_finished_by_the_next(model, photos, tmp_path):
    for name in ('moto', 's3fs'):
        pytest.importorskip(name, reason=f'needs {name}, for a store on this machine')
    words = ['predict', 's3://bucket/photos', '--ray', 'local', '--processes', '1', '--model', str(model)]

    def command(server):
        environment = {**os.environ, **server.environment, 'PYTHONPATH': str(ROOT)}
        arguments = [*words, '-o', 's3://bucket/rows', '--engine', 'torch']
        return subprocess.Popen([sys.executable, '-m', 'ms_segformer', *arguments], cwd=tmp_path, env=environment)

    with S3Server() as server:
        server.client.create_bucket(Bucket='bucket')
        for path in photos:
            server.put('bucket', f'photos/{Path(path).name}', Path(path).read_bytes())
        broken = command(server)
        wait_for(lambda: server.names('bucket', 'rows/part-'))
        broken.send_signal(signal.SIGKILL)
        broken.wait()
        kept = len(server.names('bucket', 'rows/part-'))
        assert command(server).wait() in (0, 1)  # the broken image may be done
        (tmp_path / 'rows').mkdir()
        for name, content in server.tree('bucket', 'rows/').items():
            (tmp_path / 'rows' / name).write_bytes(content)
    assert kept < len(list((tmp_path / 'rows').glob('part-*.parquet')))
    rows = rows_of(tmp_path / 'rows')
    results = load(model, device='cpu', engine='torch')(photos, with_masks=False)
    assert sorted(rows) == [f's3://bucket/photos/{Path(path).name}' for path in photos]
    for (url, row), path, result in zip(sorted(rows.items()), photos, results, strict=True):
        assert row['error'].replace(url, path) == result['error'] if 'error' in result else agrees(row, result)
    assert all(path.name == RECORD or path.suffix == '.parquet' for path in (tmp_path / 'rows').iterdir())
