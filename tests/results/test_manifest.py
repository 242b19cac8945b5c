"""The manifest outlives killed runs, other programs' files and names that are no text."""

import errno
import os

import pytest

from ms_segformer.results import Manifest, ManifestError, OwnOutputs
from ms_segformer.results.manifest import NAME, key_of, read_manifest, record_of, to_line


def entry(name, error=None, **more):
    return {
        'input': {'path': f'/data/{name}', 'size': 1, 'mtime_ns': 2},
        'outputs': {f'data/{name}_labels.png': record_of(b'labels')},
        'model': {'name': 'b0', 'sha256': 'f'},
        'options': {'mode': 'whole'},
        'error': error,
        **more,
    }


def test_an_output_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'link').symlink_to('nowhere')
    for name, said in (
        ('file', 'a file; results are written to a folder'),
        ('file/sub', 'the folder cannot be made'),
        ('link', 'the folder cannot be made'),
    ):
        with pytest.raises(ManifestError, match=f'{name}: {said}'), Manifest(tmp_path / name):
            pass


def test_the_last_line_of_an_image_counts(tmp_path):
    with Manifest(tmp_path / 'out') as manifest:
        for each in (entry('a', writing=True), entry('b', error='broken'), entry('a')):
            manifest.append(each)
    assert read_manifest(tmp_path / 'out')[0] == {'/data/b': entry('b', error='broken'), '/data/a': entry('a')}


def test_a_finished_manifest_does_not_depend_on_the_order_of_its_making(tmp_path):
    keys = ['/data/a', '/data/b', '/data/c']
    contents = set()
    for number, names in enumerate((['a', 'b', 'c'], ['c', 'a', 'b'], ['b', 'a', 'b', 'c', 'a'])):
        with Manifest(tmp_path / str(number)) as manifest:
            manifest.append(entry('x'))
            for name in names:
                manifest.append(entry(name))
            manifest.compact(keys)
        contents.add((tmp_path / str(number) / NAME).read_bytes())
    assert contents == {b''.join(map(to_line, map(entry, 'xabc')))}


def test_a_torn_last_line_is_as_if_it_were_not_there(tmp_path):
    for length in range(len(to_line(entry('b'))) - 1):
        (tmp_path / NAME).write_bytes(to_line(entry('a')) + to_line(entry('b'))[:length])
        with Manifest(tmp_path) as manifest:
            assert list(manifest.entries) == ['/data/a']
            manifest.append(entry('c'))
        assert list(read_manifest(tmp_path)[0]) == ['/data/a', '/data/c']


def test_a_last_line_that_only_lacks_its_end_counts(tmp_path):
    (tmp_path / NAME).write_bytes(to_line(entry('a')) + to_line(entry('b')).rstrip())
    with Manifest(tmp_path) as manifest:
        manifest.append(entry('c'))
    assert list(read_manifest(tmp_path)[0]) == ['/data/a', '/data/b', '/data/c']


NOT_OURS = {
    'one line without its end': b'{"input": {"path": "a.wav"}, "text": "hello"}',
    'zeros': b'\0' * 50,
    'nested': b'{"input": {"path": ' + b'[' * 10**5,
    'nested, whole': b'{"input": {"path": ' + b'[' * 10**5 + b'\n',
    'outputs in a list': to_line({**entry('a'), 'outputs': ['a.png']}),
    'an output without a name': to_line({**entry('a'), 'outputs': {'': record_of(b'')}}),
    'an impossible output': to_line({**entry('a'), 'outputs': {'a\0.png': record_of(b'')}}),
    'an output of nothing': to_line({**entry('a'), 'outputs': {'a.png': None}}),
    'a version in a list': to_line({**entry('a'), 'input': {'url': 'http://a', 'etag': ['b']}}),
    'a list for a path': to_line({**entry('a'), 'input': {'path': ['b']}}),
    'a number': b'3\n',
    'a list': b'[{}]\n',
}


@pytest.mark.parametrize('content', NOT_OURS.values(), ids=NOT_OURS)
def test_what_is_not_a_manifest_is_left_alone(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ManifestError, match='not a manifest'):
        Manifest(tmp_path).__enter__()
    assert f'{tmp_path}/a.png' not in OwnOutputs() and (tmp_path / NAME).read_bytes() == content


def test_a_line_without_end_is_not_read(tmp_path):
    for begin in (b'', to_line(entry('a'))):
        with open(tmp_path / NAME, 'wb') as file:
            file.write(begin)
            file.truncate(2**40)  # takes no space, and would take a terabyte of memory
        with pytest.raises(ManifestError, match='more than 4194304 bytes'):
            read_manifest(tmp_path)


def test_a_line_that_could_not_be_written_whole_is_taken_back(tmp_path, monkeypatch):
    with Manifest(tmp_path) as manifest:
        manifest.append(entry('a'))
        write = os.write

        def full(descriptor, content):
            if len(content) < 50:
                raise OSError(errno.ENOSPC, 'No space left on device')
            return write(descriptor, content[:-40])

        with monkeypatch.context() as patch:
            patch.setattr(os, 'write', full)
            with pytest.raises(OSError, match='No space'):
                manifest.append(entry('b'))
        assert (tmp_path / NAME).read_bytes() == to_line(entry('a'))
        manifest.append(entry('c'))
    assert list(read_manifest(tmp_path)[0]) == ['/data/a', '/data/c']


def test_zeros_after_a_power_cut_are_a_torn_line(tmp_path):
    (tmp_path / NAME).write_bytes(to_line(entry('a')) + to_line(entry('b'))[:20] + b'\0' * 100)
    assert list(read_manifest(tmp_path)[0]) == ['/data/a']


def test_names_that_are_no_text_come_back(tmp_path):
    name = os.fsdecode(b'\xff\xe5\x9b\xbe.png')
    with Manifest(tmp_path) as manifest:
        manifest.append(entry(name))
    assert key_of(read_manifest(tmp_path)[0][f'/data/{name}']) == f'/data/{name}'


def test_the_lock_goes_with_the_manifest(tmp_path):
    with Manifest(tmp_path), pytest.raises(ManifestError, match='another process'):
        Manifest(tmp_path).__enter__()
    (tmp_path / NAME).write_text('other')
    with pytest.raises(ManifestError, match='not a manifest'):
        Manifest(tmp_path).__enter__()
    (tmp_path / NAME).unlink()
    with Manifest(tmp_path):
        assert os.listdir(tmp_path) == [], 'no lock file'


def test_a_pipe_in_the_manifests_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / NAME)
    with pytest.raises(ManifestError, match='regular file'):
        read_manifest(tmp_path)


def test_results_are_recognized_wherever_they_are_looked_at_from(tmp_path, monkeypatch):
    out = tmp_path / 'out'
    with Manifest(out) as manifest:
        manifest.append(entry('a'))
    (tmp_path / 'link').symlink_to(out)
    (out / 'data').mkdir()
    (out / 'data' / 'a_labels.png').write_bytes(b'labels')
    (out / 'data' / NAME).write_text('another program, deeper')
    monkeypatch.chdir(out / 'data')
    results = OwnOutputs()
    for path in (
        f'{out}/data/a_labels.png',
        'a_labels.png',
        '../data/a_labels.png',
        f'{tmp_path}/link/data/a_labels.png',
    ):
        assert path in results
    assert f'{out}/data/b_labels.png' not in results and f'{tmp_path}/data/a_labels.png' not in results


def test_a_file_that_holds_something_else_is_no_result(tmp_path):
    with Manifest(tmp_path) as manifest:
        manifest.append(entry('a', writing=True, before={'data/a_labels.png': record_of(b'old')}))
    path = tmp_path / 'data' / 'a_labels.png'
    path.parent.mkdir()
    for content, ours in ((b'labels', True), (b'old', True), (b'photo!', False), (b'', False)):
        path.write_bytes(content)
        assert (str(path) in OwnOutputs()) is ours
    path.unlink()
    os.symlink('/etc/hostname', path)
    assert str(path) not in OwnOutputs()


@pytest.mark.skipif(os.geteuid() != 0, reason='only root gives files away')
def test_what_another_user_lists_is_no_result(tmp_path):
    with Manifest(tmp_path) as manifest:
        manifest.append(entry('a'))
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'a_labels.png').write_bytes(b'labels')
    assert f'{tmp_path}/data/a_labels.png' in OwnOutputs()
    os.chown(tmp_path / NAME, 12345, 12345)
    assert f'{tmp_path}/data/a_labels.png' not in OwnOutputs()
