"""Files of PyTorch: what comes out of them, and that nothing in them runs, grows or is believed unseen."""

import argparse
import collections
import datetime
import json
import os
import pathlib
import pickle
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import torch
from exported import named

from ms_segformer.models.checkpoint import load_state, read_checkpoint
from ms_segformer.models.pickle_interpreter import CheckpointError, SetAside
from ms_segformer.models.torch_file import digest_of, read_torch_file, write_torch_file

FORMATS = [(protocol, legacy) for protocol in (2, 3, 4, 5) for legacy in (False, True)]


class Absent:
    """Pickled under the name of a package that is not installed."""


class Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def save(content, path, protocol=2, legacy=False):
    with named(Absent, 'a_package.that_is.not_installed'):
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)


def foreign(command):
    """What people put beside their weights."""
    return {
        'scalar': np.float64(35.91),
        'text': np.str_('sky'),
        'count': np.int64(3),
        'flag': np.bool_(True),
        'array': np.arange(6.0).reshape(2, 3),
        'fortran': np.asfortranarray(np.arange(6).reshape(2, 3)),
        'big endian': np.arange(3, dtype='>i4'),
        'when': datetime.datetime(2022, 11, 1),
        'where': pathlib.PurePosixPath('/data'),
        'by name': collections.defaultdict(list, {'a': [1]}),
        'arguments': argparse.Namespace(lr=0.1),
        'absent': Absent(),
        'command': Command(command),
        'random': np.random.RandomState(0).get_state(),
        'names': {'a', 'b'},
        'size': torch.Size([1, 2]),
    }


@pytest.mark.parametrize('protocol, legacy', FORMATS)
def test_tensors_and_plain_values_come_out_and_the_rest_is_set_aside(tmp_path, protocol, legacy):
    state = {
        'a': torch.randn(3, 4),
        'b': torch.randn(4, 3).t(),
        'half': torch.ones(2, dtype=torch.bfloat16),
        'n': torch.tensor(7),
        'none': torch.empty(0, 3),
        'parameter': torch.nn.Parameter(torch.ones(2)),
    }
    base = torch.arange(10.0)
    save(
        {'state_dict': {**state, 'left': base[:4], 'right': base[4:]}, 'meta': foreign(f'touch {tmp_path}/ran')},
        tmp_path / 'file.pt',
        protocol,
        legacy,
    )
    file = read_torch_file(tmp_path / 'file.pt')
    for key, value in state.items():
        found = file.content['state_dict'][key]
        assert found.dtype == value.dtype and torch.equal(found, value.detach()), key
    assert torch.equal(file.content['state_dict']['right'], base[4:])
    meta = file.content['meta']
    assert (meta['scalar'], meta['count'], meta['flag']) == (35.91, 3, True) and type(meta['count']) is int
    assert meta['by name'] == {'a': [1]} and meta['names'] == {'a', 'b'} and meta['size'] == (1, 2)
    assert meta['array'] == meta['fortran'] == [[0, 1, 2], [3, 4, 5]] and meta['big endian'] == [0, 1, 2]
    assert len(meta['random'][1]) == 624 and meta['text'] == 'sky'
    assert all(isinstance(meta[key], SetAside) for key in ('when', 'where', 'arguments', 'absent', 'command'))
    assert {
        f'{os.name}.system',
        'argparse.Namespace',
        'datetime.datetime',
        'a_package.that_is.not_installed.Absent',
    } <= set(file.set_aside)
    assert not (tmp_path / 'ran').exists() and file.digest is None


def test_nothing_is_imported_called_or_compiled_while_a_file_is_read(tmp_path):
    for legacy in (False, True):
        save(
            {'state_dict': {'a': torch.ones(2)}, 'meta': foreign(f'touch {tmp_path}/ran')},
            tmp_path / f'{legacy}.pt',
            legacy=legacy,
        )
    torch.save({'state_dict': {'a': torch.ones(2)}, 'meta': {}}, tmp_path / 'plain.pt')
    code = """
        import json, sys
        from ms_segformer.models.torch_file import read_torch_file
        read_torch_file(sys.argv[1])  # what reading any file imports
        noted, on = [], []
        watched = ('import', 'os.system', 'exec', 'compile', 'subprocess.Popen', 'pickle.find_class', 'open')
        sys.addaudithook(lambda event, args: noted.append([event, str(args[0])]) if on and event in watched else None)
        on.append(True)
        for path in sys.argv[2:]:
            read_torch_file(path)
        on.clear()
        print(json.dumps(noted))
    """
    files = [str(tmp_path / name) for name in ('plain.pt', 'False.pt', 'True.pt')]
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code), *files], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [['open', path] for path in files[1:]]
    assert not (tmp_path / 'ran').exists()


def rewritten(path, change):
    """The zip file with every entry as `change(name, content)` gives it, and with right checksums."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))


def test_a_tensor_that_is_larger_than_its_numbers_is_refused(tmp_path):
    torch.save({'a': torch.ones(1).expand(100_000, 100_000)}, tmp_path / 'expanded.pt')
    assert isinstance(read_torch_file(tmp_path / 'expanded.pt').content['a'], SetAside)
    with pytest.raises(CheckpointError, match=r'a is .* shape \(100000, 100000\) in a storage of 1 values'):
        read_checkpoint(tmp_path / 'expanded.pt')
    base = torch.ones(1000, 1000)
    torch.save({str(i): base.view(-1) for i in range(100)}, tmp_path / 'shared.pt')
    with pytest.raises(CheckpointError, match='far larger than the file'):
        read_checkpoint(tmp_path / 'shared.pt')


def test_compressed_entries_are_refused(tmp_path):
    path = tmp_path / 'model.pt'
    torch.save({'a': torch.zeros(100_000)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match='compressed'):
        read_torch_file(path)


BOMBS = {
    # a list of a million entries made into a dict, and into a set, again and again
    'copied dict': b'\x80\x02]('
    + b'K\x01K\x02\x86' * 50_000
    + b'eq\x00'
    + b'ccollections\nOrderedDict\nq\x01'
    + b'h\x01h\x00\x85R' * 1000
    + b'.',
    # text of a megabyte turned into bytes a hundred times
    'copied text': b'\x80\x02X\x00\x00\x10\x00'
    + b'x' * (1 << 20)
    + b'q\x00c_codecs\nencode\nq\x01'
    + b'h\x01h\x00\x85R' * 100
    + b'.',
    # nested so deep that hashing or printing it would end the process
    'deep key': b'\x80\x02)' + b'\x85' * 200_000 + b'q\x00}h\x00K\x01s.',
    # work that one opcode asks for again and again
    'long arguments': b'\x80\x02('
    + b'K\x01' * 100_000
    + b'tq\x00ccollections\nOrderedDict\nq\x01'
    + b'h\x01h\x00R0' * 50_000
    + b'N.',
    'wide keys': b'\x80\x02(' + b'K\x01' * 100_000 + b'tq\x00}' + b'h\x00K\x01s' * 50_000 + b'.',
    'equal hashes': b'\x80\x02}('
    + b''.join(b'\x8a\x0a' + (k * (2**61 - 1)).to_bytes(10, 'little') + b'K\x01' for k in range(1, 50_000))
    + b'u.',
    'long integer': b'\x80\x02\x8b\x00\x00\x40\x00' + b'\x7f' * (4 << 20) + b'q\x00}' + b'h\x00K\x01s' * 100_000 + b'.',
    'long names': b'\x80\x04X\x00\x00\x10\x00' + b'a' * (1 << 20) + b'q\x00' + b'h\x00h\x00\x93' * 10_000 + b'.',
    'wide name': b'\x80\x04]q\x00' + b'h\x00h\x00\x86q\x00' * 100 + b'h\x00h\x00\x93.',
    'memo': b'\x80\x02Nr\xff\xff\xff\xff.',
    'long text': b'\x80\x04\x8d\xff\xff\xff\xff\xff\x00\x00\x00x.',
    'empty array': (
        b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R'
        b'(K\x01J\xff\xff\xff\x7fK\x00\x86cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R\x89C\x00tb.'
    ),
}


@pytest.mark.parametrize('name', BOMBS)
def test_a_small_pickle_does_not_take_much_memory_or_time(tmp_path, name):
    torch.save({}, tmp_path / 'bomb.pt')
    rewritten(tmp_path / 'bomb.pt', lambda entry, content: BOMBS[name] if entry.endswith('data.pkl') else content)
    code = (
        'import resource, sys; from ms_segformer.models.torch_file import *; from ms_segformer.models.checkpoint '
        'import CheckpointError\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        'try: read_torch_file(sys.argv[1])\nexcept CheckpointError as error: print(error)\n'
        'print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path / 'bomb.pt')], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout.splitlines()[-1]) < 150_000, done.stdout  # KiB


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('where', ['start', 'middle', 'end'])
def test_truncated_files_are_clear_errors(tmp_path, legacy, where):
    path = tmp_path / 'cut.pt'
    torch.save({'a': torch.randn(1000)}, path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: {'start': 30, 'middle': len(content) // 2, 'end': -1}[where] or None])
    with pytest.raises(CheckpointError, match='cut.pt: .*(damaged|truncated|not a PyTorch)'):
        read_torch_file(path)


def test_a_flipped_bit_in_a_foreign_zip_file_gives_the_same_tensors_or_an_error(tmp_path):
    path = tmp_path / 'model.pt'
    content = {'state_dict': {f'layer.{i}': torch.randn(20) for i in range(20)}}
    torch.save(content, path)
    good, random, noticed = path.read_bytes(), np.random.default_rng(1), 0
    for position in random.integers(0, len(good), 400):
        damaged = bytearray(good)
        damaged[position] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_torch_file(path).content
        except CheckpointError:
            noticed += 1
            continue
        assert all(torch.equal(value, content['state_dict'][key]) for key, value in found['state_dict'].items())
        assert found['state_dict'].keys() == content['state_dict'].keys()
    assert noticed > 200


def test_mutated_files_give_values_or_a_clear_error(tmp_path):
    """In the pickle, with checksums that are right; the campaign does the same for longer."""
    path = tmp_path / 'file.pt'
    random = np.random.default_rng(2)
    for legacy in (False, True):
        save({'state_dict': {'a': torch.ones(3)}, 'meta': foreign(f'touch {tmp_path}/ran')}, path, legacy=legacy)
        good = path.read_bytes()
        for _ in range(150):
            path.write_bytes(good)
            if legacy:
                path.write_bytes(mutated(good, random))
            else:
                rewritten(path, lambda name, content: mutated(content, random) if name.endswith('.pkl') else content)
            try:
                read_torch_file(path)
            except CheckpointError as error:
                assert str(path) in str(error)
    assert not (tmp_path / 'ran').exists()


def mutated(content, random):
    content = bytearray(content)
    for _ in range(random.integers(1, 4)):
        content[random.integers(len(content))] = random.integers(256)
    return bytes(content)


def test_what_is_written_carries_a_digest_and_opens_everywhere(tmp_path):
    path = tmp_path / 'ours.pt'
    digest = write_torch_file(path, {'a': torch.arange(5), 'b': [1, {'c': (2, None)}]})
    assert digest_of(path) == digest == read_torch_file(path).digest
    assert torch.equal(torch.load(path, weights_only=True)['a'], torch.arange(5))
    assert zipfile.ZipFile(path).testzip() is None
    torch.save({}, tmp_path / 'theirs.pt')
    assert digest_of(tmp_path / 'theirs.pt') is None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for read in (digest_of, read_torch_file):
        with pytest.raises(CheckpointError, match='ours.pt: damaged'):
            read(path)


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'empty'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 15\n', 'git lfs pull'),
        (b'<html>404</html>', 'a web page .<html>404'),
        (b'\n<?xml version="1.0"?><Error/>', 'a web page'),
        (b'{"Code": 404}', 'not a PyTorch checkpoint'),
        (b'<\0\0\0\0\0\0\0{}', 'not a PyTorch checkpoint'),
        (pickle.dumps({'a': 1}), 'not a PyTorch checkpoint'),
    ],
)
def test_files_that_are_none_of_pytorch_s_say_what_they_are(tmp_path, content, message):
    (tmp_path / 'file.pt').write_bytes(content)
    with pytest.raises(CheckpointError, match=f'file.pt: .*{message}'):
        read_torch_file(tmp_path / 'file.pt')
    with pytest.raises(CheckpointError, match='a folder; expected'):
        read_torch_file(tmp_path)


def test_a_legacy_file_whose_storages_have_no_names_is_refused(tmp_path):
    """The list of keys at its end, of a tuple so deep that hashing it would end the process."""
    path = tmp_path / 'deep.pt'
    torch.save({'a': torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    head = content[: content.rindex(b'\x80\x02]')]
    path.write_bytes(head + b'\x80\x02])' + b'\x85' * 300_000 + b'a.' + content[-20:])
    with pytest.raises(CheckpointError, match='storages are not the ones'):
        read_torch_file(path)


def test_what_a_message_takes_from_a_file_is_short_and_on_one_line(tmp_path, caplog):
    class Named:
        def __reduce__(self):
            return Absent, ()

    path = tmp_path / 'loud.pt'
    Absent.__qualname__ = 'A\x1b[2J\nERROR: fake ' + 'x' * 200
    try:
        with named(Absent, 'package'):
            setattr(sys.modules['package'], Absent.__qualname__, Absent)
            torch.save(
                {'state_dict': {'a\x1b' + 'y' * 100_000: torch.ones(1)}, 'meta': Named()}, path, pickle_protocol=4
            )
    finally:
        Absent.__qualname__ = 'Absent'
    with pytest.raises(CheckpointError) as error:
        load_state(torch.nn.Linear(1, 1), read_checkpoint(path)[0], str(path))
    for text in (str(error.value), caplog.text.split('\n')[0]):
        assert '\x1b' not in text and len(text) < 1000 and '\\x1b' in text


def test_arrays_beside_weights_and_shared_numbers_are_no_reason_to_refuse(tmp_path):
    base = torch.arange(1000.0)
    content = {
        'state_dict': {str(i): base for i in range(12)},
        'expanded': torch.ones(1).expand(1000, 1000),
        'confusion': np.ones((172, 172)),
        'picture': np.ones((1000, 1000, 3), np.uint8),
        'many': set(range(30_000)),
    }
    torch.save(content, tmp_path / 'file.pt')
    state, _ = read_checkpoint(tmp_path / 'file.pt')
    assert len(state) == 12 and all(torch.equal(value, base) for value in state.values())
    read = read_torch_file(tmp_path / 'file.pt').content
    assert read['confusion'] == np.ones((172, 172)).tolist() and len(read['many']) == 30_000
    assert isinstance(read['picture'], SetAside)


def test_tensors_that_are_more_than_a_view_are_not_taken_for_one(tmp_path):
    torch.save({'negative': torch.tensor([1 + 2j]).conj().imag}, tmp_path / 'negative.pt')
    with pytest.raises(CheckpointError, match='negative is torch.Tensor with'):
        read_checkpoint(tmp_path / 'negative.pt')


def test_checksums_are_written_where_torch_was_told_to_leave_them_out(tmp_path):
    if not hasattr(torch.serialization, 'set_crc32_options'):
        pytest.skip('this torch always writes them')
    torch.serialization.set_crc32_options(False)
    try:
        write_torch_file(tmp_path / 'ours.pt', {'a': torch.ones(100)})
        assert torch.serialization.get_crc32_options() is False
    finally:
        torch.serialization.set_crc32_options(True)
    assert zipfile.ZipFile(tmp_path / 'ours.pt').testzip() is None
