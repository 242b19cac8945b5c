"""The folder of compiled networks: what is kept, what goes, and what is never touched, loaded or written over."""

import hashlib
import multiprocessing
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from ms_segformer.engines import cache

CONTENT = bytes(1000)
SECRET = b'a film'


def name(letter, suffix='-1x3x64x64.openvino'):
    return letter * 40 + suffix


def stored(content):
    return hashlib.sha256(content).digest() + content


@pytest.fixture(autouse=True)
def given(tmp_path, monkeypatch):
    """The folder the user gives; a fresh process's memory of what was warned about."""
    folder = tmp_path / 'given'
    monkeypatch.setenv('MS_SEGFORMER_CACHE', str(folder))
    monkeypatch.setattr(cache, '_told', set())
    return folder


def entries():
    return sorted(path.name for path in cache.cache_dir().iterdir())


def test_folder_follows_the_environment(monkeypatch, tmp_path, given):
    assert cache.cache_dir() == given / 'compiled-networks'
    monkeypatch.delenv('MS_SEGFORMER_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert cache.cache_dir() == tmp_path / 'xdg' / 'ms-segformer' / 'compiled-networks'


def test_what_was_written_is_read_and_is_private():
    before = os.umask(0)
    try:
        cache.write(name('a'), CONTENT)
    finally:
        os.umask(before)
    assert cache.read(name('a')) == CONTENT
    assert cache.read(name('b')) is None
    assert stat.S_IMODE(cache.cache_dir().stat().st_mode) == 0o700
    assert stat.S_IMODE((cache.cache_dir() / name('a')).stat().st_mode) == 0o600
    assert entries() == [name('a')]


def test_the_least_recently_used_goes(monkeypatch):
    monkeypatch.setattr(cache, 'LIMIT', 3500)
    for letter in 'abc':
        cache.write(name(letter), CONTENT)
        os.utime(cache.cache_dir() / name(letter), (ord(letter), ord(letter)))
    assert cache.read(name('a')) == CONTENT  # now the most recently used
    cache.write(name('d', '.onnx-cached'), CONTENT)
    assert entries() == [name('a'), name('c'), name('d', '.onnx-cached')]


def test_what_is_not_ours_is_neither_counted_nor_removed(monkeypatch, given, tmp_path):
    """A user's film and thesis, in the folder given and in ours, beside names that are nearly ours."""
    monkeypatch.setattr(cache, 'LIMIT', 2500)
    (tmp_path / 'elsewhere').write_bytes(SECRET)
    cache.cache_dir().mkdir(parents=True, mode=0o700)
    foreign = [
        given / 'film.mkv',
        given / name('a'),
        cache.cache_dir() / 'thesis.openvino',
        cache.cache_dir() / name('a', '.bin'),
        cache.cache_dir() / (name('A') + '.bak'),
        cache.cache_dir() / ('g' * 40 + '.openvino'),
        cache.cache_dir() / ('.' + name('a')),
    ]
    for path in foreign:
        path.write_bytes(SECRET * 1000)
        os.utime(path, (1, 1))
    link, folder = cache.cache_dir() / name('e'), cache.cache_dir() / name('f')
    link.symlink_to(tmp_path / 'elsewhere')
    folder.mkdir()
    for letter in '0123':
        cache.write(name(letter), CONTENT)
        os.utime(cache.cache_dir() / name(letter), (ord(letter), ord(letter)))
    assert all(path.read_bytes() == SECRET * 1000 for path in foreign)
    assert link.is_symlink() and folder.is_dir() and (tmp_path / 'elsewhere').read_bytes() == SECRET
    assert [entry for entry in entries() if entry[0] in '0123'] == [name('2'), name('3')]


def test_a_name_that_would_never_be_pruned_is_refused():
    with pytest.raises(ValueError, match='no name of a cached file'):
        cache.write('model.openvino', CONTENT)


@pytest.mark.parametrize('damage', [b'', CONTENT[:20], stored(CONTENT)[:-1], stored(CONTENT)[:-1] + b'\1'])
def test_a_damaged_file_is_removed_and_said(damage, caplog):
    cache.write(name('a'), CONTENT)
    (cache.cache_dir() / name('a')).write_bytes(damage)
    assert cache.read(name('a')) is None
    assert entries() == [] and 'damaged, made again' in caplog.text


posix = pytest.mark.skipif(not hasattr(os, 'geteuid'), reason='owners and modes are those of POSIX')


def writable_file(path, elsewhere):
    path.chmod(0o620)


def writable_folder(path, elsewhere):
    path.parent.chmod(0o770)


def link_to_a_good_file(path, elsewhere):
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def link_to_a_good_folder(path, elsewhere):
    path.parent.rename(elsewhere)
    path.parent.symlink_to(elsewhere)


def named_pipe(path, elsewhere):
    path.unlink()
    os.mkfifo(path)


def another_owner(path, elsewhere):
    os.chown(path, 12345, -1)


def another_owner_of_the_folder(path, elsewhere):
    os.chown(path.parent, 12345, -1)


TAMPERED = [writable_file, writable_folder, link_to_a_good_file, link_to_a_good_folder, named_pipe]
BY_ROOT = [another_owner, another_owner_of_the_folder]


@posix
@pytest.mark.parametrize(
    'tamper',
    TAMPERED
    + [
        pytest.param(tamper, marks=pytest.mark.skipif(getattr(os, 'geteuid', lambda: 0)() != 0, reason='needs root'))
        for tamper in BY_ROOT
    ],
)
def test_what_others_could_have_written_is_neither_loaded_nor_written_over(tamper, tmp_path, caplog):
    cache.write(name('a'), CONTENT)
    path = cache.cache_dir() / name('a')
    tamper(path, tmp_path / 'elsewhere')
    before = snapshot(tmp_path)
    for _ in range(2):
        assert cache.read(name('a')) is None
        cache.write(name('a'), b'new')
    assert snapshot(tmp_path) == before
    (warning,) = caplog.messages
    assert str(path.parent) in warning and 'set MS_SEGFORMER_CACHE to a folder of your own' in warning


@posix
@pytest.mark.skipif(getattr(os, 'geteuid', lambda: 0)() != 0, reason='needs root')
def test_root_does_not_load_what_a_user_compiled(caplog):
    """`sudo` keeps HOME: the user's folder is then before root."""
    cache.write(name('a'), CONTENT)
    for path in (cache.cache_dir() / name('a'), cache.cache_dir()):
        os.chown(path, 1000, 1000)
    assert cache.read(name('a')) is None
    assert 'belongs to another user (id 1000; this process runs as 0)' in caplog.text


@posix
@pytest.mark.parametrize('mode', [0o777, 0o1777])
def test_a_folder_given_that_others_can_write_to_holds_a_private_one(mode, given):
    given.mkdir()
    given.chmod(mode)
    cache.write(name('a'), CONTENT)
    assert cache.read(name('a')) == CONTENT
    assert stat.S_IMODE(given.stat().st_mode) == mode


@posix
def test_a_folder_exchanged_after_its_check_is_not_used(tmp_path, monkeypatch):
    """Where others can write to the folder given, they can put another in the place of ours at any moment."""
    cache.write(name('a'), CONTENT)
    ours, theirs = cache.cache_dir(), tmp_path / 'theirs'
    theirs.mkdir()
    (theirs / name('a')).write_bytes(stored(b'theirs'))
    (tmp_path / 'precious').write_bytes(SECRET)
    (theirs / name('b')).symlink_to(tmp_path / 'precious')
    check = cache._check_owner

    def exchange(status, path):
        check(status, path)
        if path == ours and not (tmp_path / 'moved').exists():
            ours.rename(tmp_path / 'moved')
            theirs.rename(ours)

    monkeypatch.setattr(cache, '_check_owner', exchange)
    assert cache.read(name('a')) == CONTENT
    ours.rename(theirs)
    (tmp_path / 'moved').rename(ours)
    cache.write(name('b'), b'ours')
    assert (tmp_path / 'precious').read_bytes() == SECRET
    assert (tmp_path / 'moved' / name('b')).read_bytes() == stored(b'ours')


def snapshot(folder):
    """Names, kinds, modes, owners, times and contents of everything in a folder."""
    found = {}
    for path in sorted(Path(folder).rglob('*')):
        status = path.lstat()
        found[str(path)] = (
            status.st_mode,
            status.st_uid,
            status.st_mtime_ns,
            path.read_bytes() if path.is_file() else path.is_symlink() and os.readlink(path),
        )
    return found


def test_a_folder_that_cannot_be_made_is_said_once(given, caplog):
    given.write_text('')
    for letter in 'ab':
        assert cache.read(name(letter)) is None
        cache.write(name(letter), CONTENT)
    assert len(caplog.messages) == 1 and 'MS_SEGFORMER_CACHE' in caplog.text


def test_a_system_without_descriptors_of_folders_keeps_files_too(monkeypatch):
    """Windows: the same by path, without the checks of owners and modes."""
    monkeypatch.setattr(cache, '_BY_DESCRIPTOR', False)
    monkeypatch.delattr(os, 'geteuid', raising=False)
    monkeypatch.setattr(cache, 'LIMIT', 1500)
    for letter in 'ab':
        cache.write(name(letter), CONTENT)
    assert entries() == [name('b')] and cache.read(name('b')) == CONTENT
    (cache.cache_dir() / name('b')).write_bytes(b'damaged')
    assert cache.read(name('b')) is None and entries() == []


def test_a_file_that_cannot_be_marked_as_used_is_used(monkeypatch):
    cache.write(name('a'), CONTENT)

    def read_only(*_, **__):
        raise OSError(30, 'Read-only file system')

    monkeypatch.setattr(cache.os, 'utime', read_only)
    assert cache.read(name('a')) == CONTENT


def keep_writing():
    while True:
        cache.write(name('a'), bytes(5_000_000))


def test_what_a_killed_process_left_is_removed_later():
    process = multiprocessing.get_context('fork').Process(target=keep_writing)
    process.start()
    while not (cache.cache_dir().is_dir() and any(map(cache.UNFINISHED.fullmatch, entries()))):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    left = [entry for entry in entries() if cache.UNFINISHED.fullmatch(entry)] or [name('b') + '.' + '0' * 16]
    (cache.cache_dir() / left[0]).touch()
    cache.write(name('c'), CONTENT)
    assert left[0] in entries(), 'another process may be writing it'
    os.utime(cache.cache_dir() / left[0], (1, 1))
    cache.write(name('c'), CONTENT)
    assert left[0] not in entries() and cache.read(name('c')) == CONTENT


@posix
@pytest.mark.parametrize('path', ['~nobody-of-this-name/x', None])
def test_without_a_home_directory_only_the_next_starts_time_is_lost(monkeypatch, caplog, path):
    for variable in ('MS_SEGFORMER_CACHE', 'XDG_CACHE_HOME', 'HOME'):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, 'getuid', lambda: 54321)  # of no account
    if path is not None:
        monkeypatch.setenv('MS_SEGFORMER_CACHE', path)
    cache.write(name('a'), CONTENT)
    assert cache.read(name('a')) is None
    assert caplog.text.count('compiled networks are not kept') == 1 and 'set MS_SEGFORMER_CACHE' in caplog.text
    with pytest.raises(cache.NoHome, match=path or '~/.cache'):
        cache.cache_dir()
