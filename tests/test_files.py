"""Files are complete or not there, whatever stood at their name before."""

import os
import stat
import subprocess
import sys
import threading

import pytest

from ms_segformer import files
from ms_segformer.files import atomic_write, read_json, remove_left, temporary_prefix


def write(path, content='new'):
    with atomic_write(path) as temporary:
        temporary.write_text(content)
        return temporary


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / 'made' / 'a.txt'
    with atomic_write(path) as temporary:
        temporary.write_text('half')
        assert not path.exists() and temporary.parent == path.parent
        assert temporary.suffix == '.txt' and temporary.name.startswith(temporary_prefix('a.txt'))
        temporary.write_text('whole')
    assert path.read_text() == 'whole' and os.listdir(path.parent) == ['a.txt']


def test_an_error_leaves_what_stood_there(tmp_path):
    (tmp_path / 'a.txt').write_text('old')
    with pytest.raises(RuntimeError), atomic_write(tmp_path / 'a.txt') as temporary:
        temporary.write_text('half')
        raise RuntimeError
    assert (tmp_path / 'a.txt').read_text() == 'old' and os.listdir(tmp_path) == ['a.txt']


@pytest.mark.parametrize('target', ['elsewhere/file.txt', 'elsewhere/not_there_yet.txt'])
def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path, target):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'file.txt').write_text('old')
    link = tmp_path / 'link.txt'
    link.symlink_to(target)
    temporary = write(link)
    assert link.is_symlink() and (tmp_path / target).read_text() == 'new' and not (tmp_path / target).is_symlink()
    assert temporary.parent == tmp_path / 'elsewhere' and not temporary.exists()


def test_devices_and_pipes_stay_what_they_are(tmp_path):
    write('/dev/null')
    assert stat.S_ISCHR(os.stat('/dev/null').st_mode)
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    read = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()), daemon=True)
    reader.start()
    write(fifo, 'through the pipe')
    reader.join(10)
    assert read == ['through the pipe'] and stat.S_ISFIFO(os.stat(fifo).st_mode)
    with pytest.raises(OSError, match='No space left'):
        write('/dev/full')


@pytest.mark.parametrize('redirected', [False, True])
@pytest.mark.parametrize('name', ['/dev/stdout', '/proc/self/fd/1'])
def test_the_output_of_the_process_is_written_to_in_order(tmp_path, name, redirected):
    code = (
        "from ms_segformer.files import atomic_write\nprint('before')\n"
        f"with atomic_write({name!r}) as t: t.write_text('content\\n')\nprint('after')"
    )
    with open(tmp_path / 'out.txt', 'w') as file:
        done = subprocess.run(
            [sys.executable, '-c', code], text=True, check=True, stdout=file if redirected else subprocess.PIPE
        )
    said = (tmp_path / 'out.txt').read_text() if redirected else done.stdout
    assert said == 'before\ncontent\nafter\n'


@pytest.mark.parametrize(
    'name',
    ['a' * 251 + '.png', '图' * 80 + '.png', '图' * 83 + 'x.json', 'a.' + 'x' * 253, 'a.' + '图' * 84, b'\xff\xfe.png'],
    ids=['ascii', '80 Chinese', '255 bytes', 'long suffix', 'long Chinese suffix', 'undecodable'],
)
def test_every_name_the_file_system_takes_can_be_written(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    temporary = write(path)
    assert path.read_text() == 'new' and len(os.fsencode(temporary.name)) <= 255


@pytest.mark.parametrize('mask', [0o022, 0o077, 0o002])
def test_permissions_are_the_umasks_and_those_of_a_file_that_was_there(tmp_path, monkeypatch, mask):
    old = tmp_path / 'old.txt'
    old.write_text('old')
    old.chmod(0o640)
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, 'umask', lambda _: pytest.fail('the umask was changed, for all threads'))
            write(old)
            with atomic_write(tmp_path / 'new.txt') as temporary:
                temporary.unlink()
                os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as writers do that replace the file
    finally:
        os.umask(before)
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / 'new.txt').stat().st_mode) == 0o666 & ~mask


def test_two_threads_can_write_one_file(tmp_path):
    threads = [threading.Thread(target=write, args=(tmp_path / 'a.txt', str(i) * 1000)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = (tmp_path / 'a.txt').read_text()
    assert len(content) == 1000 and len(set(content)) == 1 and os.listdir(tmp_path) == ['a.txt']


def test_a_directory_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(IsADirectoryError, match='a directory stands'), atomic_write(tmp_path):
        pytest.fail('the block ran')


def test_what_is_being_written_is_not_a_leftover(tmp_path):
    with atomic_write(tmp_path / 'a.txt') as temporary:
        temporary.write_text('half')
        remove_left(temporary)
        assert temporary.exists()
    left = tmp_path / temporary.name
    left.write_text('of a killed process')
    remove_left(left)
    remove_left(left)
    assert os.listdir(tmp_path) == ['a.txt']


def test_a_file_without_permissions_is_replaced(tmp_path, monkeypatch):
    """For root too, which opens everything: at no time is what is opened closed to its owner."""
    (tmp_path / 'a.txt').touch(0o000)
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(os, 'fsync', lambda handle: seen.append(os.fstat(handle).st_mode & 0o600) or fsync(handle))
    write(tmp_path / 'a.txt')
    assert seen == [0o600] and stat.S_IMODE((tmp_path / 'a.txt').stat().st_mode) == 0


def test_temporary_files_are_told_from_a_users_and_from_one_another():
    assert temporary_prefix('a.txt').startswith(files.TEMPORARY)
    assert temporary_prefix('a.txt') != temporary_prefix('b.txt')


@pytest.mark.parametrize(
    'content, said',
    [
        (b'{', 'Expecting'),
        (b'\xff\xfe', "can't decode"),
        (b'[' * 200_000, 'in one another without end'),
        (b'"' + b'x' * 40 + b'"', 'more than 32 bytes'),
    ],
)
def test_what_is_no_json_is_one_kind_of_error(tmp_path, monkeypatch, content, said):
    if said.startswith('more'):
        monkeypatch.setattr(files, 'LARGEST_JSON', 32)
    path = tmp_path / 'any.json'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_json(path)
    path.write_text('{"IoU": [1, null]}', encoding='utf-8')
    assert read_json(path) == {'IoU': [1, None]}
