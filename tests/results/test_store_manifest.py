"""An output folder in a store keeps what a local one keeps: whatever ends a run, and whoever else writes there."""

import itertools
import time
from concurrent.futures import Future

import pytest

from ms_segformer.results import Manifest, ManifestError, StoreManifest, open_manifest, store_manifest
from ms_segformer.results.manifest import NAME, record_of
from ms_segformer.stores import Store, StoreError, open_store

NUMBER = itertools.count()


@pytest.fixture
def folder():
    """The URL of an empty folder in the memory of this process."""
    return f'memory://bucket/{next(NUMBER)}'


@pytest.fixture
def one_a_batch(monkeypatch):
    monkeypatch.setattr(store_manifest, 'BATCH', 1)


def tree(folder):
    store = open_store(folder)
    return {each.url[len(folder) + 1 :]: store.read(each.url) for each in store.below(folder)}


def entry(name, content=b'labels', **more):
    return {
        'input': {'path': f'/data/{name}', 'size': 1, 'mtime_ns': 2},
        'outputs': {f'{name}_labels.png': record_of(content)},
        'model': {'name': 'b0', 'sha256': 'f'},
        'options': {'mode': 'whole'},
        'error': None,
        **more,
    }


def keep(manifest, name, content=b'labels'):
    """What `predict` does with each image."""
    manifest.append(entry(name, content, writing=True, before={}))
    manifest.put({f'{name}_labels.png': content})
    manifest.append(entry(name, content))


def killed(folder, names, **more):
    """A run that was killed after it had put these, each in a batch of its own, before it went on."""
    manifest = StoreManifest(folder).__enter__()
    for name in names:
        keep(manifest, name, **more)
    manifest._wait()
    return manifest


def test_a_finished_folder_holds_what_a_local_one_holds(folder, tmp_path):
    with open_manifest(str(tmp_path)) as local, open_manifest(folder) as manifest:
        assert type(local) is Manifest and type(manifest) is StoreManifest
        for name in 'cab':
            keep(manifest, name)
            local.append(entry(name))
        for one in (local, manifest):
            one.append(entry('x', outputs={}, error='broken'))
            one.compact(['/data/a', '/data/b', '/data/x'])
    assert tree(folder) == {
        NAME: (tmp_path / NAME).read_bytes(),
        **{f'{name}_labels.png': b'labels' for name in 'abc'},
    }


def test_what_was_put_before_a_kill_is_known_and_the_last_images_are_made_again(folder, one_a_batch):
    killed(folder, 'abc')
    assert [name for name in tree(folder) if name.startswith(NAME)] == [f'{NAME}.{"0" * 16}.{n:06}' for n in (1, 2, 3)]
    with StoreManifest(folder) as manifest:
        assert {key[-1]: each.get('writing', False) for key, each in manifest.entries.items()} == {
            'a': False,
            'b': False,
            'c': True,
        }
        assert manifest.size_of('c_labels.png') == 6 and manifest.holds_one_of('c_labels.png', [record_of(b'labels')])
        keep(manifest, 'c')
        manifest.compact(['/data/a', '/data/b', '/data/c'])
    again = folder + '-unbroken'
    with StoreManifest(again) as manifest:
        for name in 'abc':
            keep(manifest, name)
        manifest.compact(['/data/a', '/data/b', '/data/c'])
    assert tree(folder) == tree(again)


def test_an_announcement_reaches_the_store_before_its_files(folder, one_a_batch, monkeypatch):
    puts = []
    put = Store.put

    def note(self, url, content, new=False):
        puts.append((url[len(folder) + 1 :], content))
        put(self, url, content, new)

    monkeypatch.setattr(Store, 'put', note)
    killed(folder, 'ab')
    assert [name.partition('.')[0] for name, _ in puts] == ['manifest', 'a_labels', 'manifest', 'b_labels']
    assert b'"path": "/data/b"' in puts[2][1] and b'writing' in puts[2][1]


def test_of_many_images_a_few_objects_of_the_log_say_so(folder, monkeypatch):
    requests = []
    for method in ('put', 'info', 'below', 'read'):
        original = getattr(Store, method)

        def note(self, *args, _method=method, _original=original, **options):
            requests.append(_method)
            return _original(self, *args, **options)

        monkeypatch.setattr(Store, method, note)
    images = 10 * store_manifest.BATCH
    with StoreManifest(folder) as manifest:
        for number in range(images):
            keep(manifest, str(number))
        manifest.compact([])
    assert requests.count('put') - images == 10 + 1, 'a part of the log for each batch, and the manifest'
    assert requests.count('info') == 10 + 2 and requests.count('below') == 1 and requests.count('read') == 0


def test_an_interrupted_run_puts_what_it_has(folder):
    with pytest.raises(KeyboardInterrupt), StoreManifest(folder) as manifest:
        keep(manifest, 'a')
        raise KeyboardInterrupt
    with StoreManifest(folder) as manifest:
        assert not manifest.entries['/data/a'].get('writing')
    assert tree(folder)['a_labels.png'] == b'labels'


def test_an_interrupt_while_a_batch_is_waited_for_loses_none(folder, one_a_batch, monkeypatch):
    put, result = Store.put, Future.result

    def slow(self, url, content, new=False):
        time.sleep('a_labels' in url)
        put(self, url, content, new)

    def interrupted(self):
        monkeypatch.setattr(Future, 'result', result)
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, 'put', slow)
    with pytest.raises(KeyboardInterrupt), StoreManifest(folder) as manifest:
        keep(manifest, 'a')
        monkeypatch.setattr(Future, 'result', interrupted)
        keep(manifest, 'b')
    with StoreManifest(folder) as manifest:
        assert {key[-1]: each.get('writing', False) for key, each in manifest.entries.items()} == {
            'a': False,
            'b': False,
        }


def test_of_two_runs_from_one_state_one_is_refused_before_it_puts_a_file(folder, one_a_batch):
    first, second = StoreManifest(folder).__enter__(), StoreManifest(folder).__enter__()
    keep(first, 'a', b'first')
    first._wait()
    keep(second, 'a', b'second')
    with pytest.raises(ManifestError, match='another run is writing there'):
        second._wait()
    assert tree(folder)['a_labels.png'] == b'first'
    keep(first, 'b', b'first')
    first.compact([])
    assert set(tree(folder)) == {NAME, 'a_labels.png', 'b_labels.png'}


def test_a_run_that_another_one_has_overtaken_is_refused(folder, one_a_batch):
    first = StoreManifest(folder).__enter__()
    with StoreManifest(folder) as second:
        keep(second, 'a', b'second')
        second.compact([])
    keep(first, 'a', b'first')
    with pytest.raises(ManifestError, match='has done so since this one began'):
        first.compact([])
    assert tree(folder)['a_labels.png'] == b'second'


def test_an_object_that_appears_in_between_is_not_replaced(folder, one_a_batch):
    manifest = StoreManifest(folder).__enter__()
    open_store(folder).put(f'{folder}/a_labels.png', b'foreign')
    keep(manifest, 'a')
    with pytest.raises(ManifestError, match='a_labels.png has appeared since the run began'):
        manifest._wait()
    assert tree(folder)['a_labels.png'] == b'foreign'


def test_what_a_kill_left_of_a_log_does_not_count_against_the_manifest(folder, one_a_batch, monkeypatch):
    monkeypatch.setattr(Store, 'remove', lambda self, urls: None)
    with StoreManifest(folder) as manifest:
        for name in 'ab':
            keep(manifest, name)
        manifest.compact(['/data/a', '/data/b'])
    monkeypatch.undo()
    left = tree(folder)
    assert len(left) == 5
    with StoreManifest(folder) as manifest:
        assert not any(each.get('writing') for each in manifest.entries.values())
        manifest.compact(['/data/a', '/data/b'])
    assert set(tree(folder)) == {NAME, 'a_labels.png', 'b_labels.png'}
    assert tree(folder)[NAME] == left[NAME]


def test_an_edited_manifest_does_not_lose_what_the_log_of_a_killed_run_knows(folder, one_a_batch):
    with StoreManifest(folder) as manifest:
        keep(manifest, 'a')
        manifest.compact([])
    killed(folder, 'bc')
    store, url = open_store(folder), f'{folder}/{NAME}'
    store.put(url, store.read(url).replace(b'"b0"', b'"B0"'))
    with StoreManifest(folder) as manifest:
        assert [key[-1] for key in manifest.entries] == ['a', 'b', 'c']


@pytest.mark.parametrize('content', [b'other\n', b'{"a": 1}\n', b'{"input": {"path": 1}}\n'])
@pytest.mark.parametrize('name', [NAME, f'{NAME}.{"0" * 16}.000001'])
def test_another_programs_manifest_is_left_alone(folder, name, content):
    open_store(folder).put(f'{folder}/{name}', content)
    with pytest.raises(ManifestError, match='not a manifest of ms-segformer predict'), StoreManifest(folder):
        pass
    assert tree(folder) == {name: content}


def test_a_store_that_fails_ends_the_run_and_the_same_command_goes_on(folder, one_a_batch, monkeypatch):
    put = Store.put

    def fail(self, url, content, new=False):
        if 'b_labels' in url:
            raise StoreError('the store is on fire')
        put(self, url, content, new)

    monkeypatch.setattr(Store, 'put', fail)
    with pytest.raises(StoreError, match=f'{folder}: the store is on fire. Results that are there are kept'):
        with StoreManifest(folder) as manifest:
            for name in 'abcd':
                keep(manifest, name)
            manifest.compact([])
    monkeypatch.undo()
    with StoreManifest(folder) as manifest:
        assert {key[-1]: each.get('writing', False) for key, each in manifest.entries.items()}['a'] is False
        assert manifest.entries['/data/b']['writing'] is True
