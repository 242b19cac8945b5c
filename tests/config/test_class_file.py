"""Class names from a file: what a configuration may name, what a user may name, and what neither hangs nor fills on."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from ms_segformer.config.class_file import LIMIT, ClassFileError, read_class_file
from ms_segformer.config.messages import ConfigurationError
from ms_segformer.config.reader import read_configuration
from ms_segformer.datasets.coco_stuff import CLASSES
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.sources import read_classes

NAMES = '\n'.join(CLASSES)


@pytest.fixture(autouse=True)
def bounded():
    """A test that waits for the other end of a pipe fails, instead of standing for ever."""
    if not hasattr(signal, 'SIGALRM'):
        yield
        return

    def stop(*_):
        raise TimeoutError('still reading after 30 s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize('content', [b'sky\nroad\n', b'\xef\xbb\xbfsky\nroad', b'sky\r\nroad\r\n', b'\n  sky \n\nroad'])
def test_names_are_read_with_or_without_a_byte_order_mark(tmp_path, content):
    (tmp_path / 'classes.txt').write_bytes(content)
    assert read_class_file(tmp_path / 'classes.txt') == ['sky', 'road']
    assert read_classes(str(tmp_path / 'classes.txt')) == ['sky', 'road']


def pipe(folder):
    os.mkfifo(folder / 'named')
    return folder / 'named'


def bound_socket(folder):
    before = os.getcwd()
    os.chdir(folder)  # the path of a socket has little room
    with socket.socket(socket.AF_UNIX) as server:
        server.bind('named')
    os.chdir(before)
    return folder / 'named'


def too_large(folder):
    with open(folder / 'named', 'wb') as file:
        file.truncate(1 << 40)  # takes no room on the disk
    return folder / 'named'


def folder_itself(folder):
    (folder / 'named').mkdir()
    return folder / 'named'


def latin(folder):
    (folder / 'named').write_bytes('Straße'.encode('latin-1'))
    return folder / 'named'


def device(folder):
    return Path('/dev/zero')


def terminal(folder):
    return Path('/dev/tty')


WRONG = {
    pipe: 'is not a regular file',
    bound_socket: 'is not a regular file',
    folder_itself: 'is not a regular file',
    device: 'is not a regular file',
    terminal: 'is not a regular file',
    too_large: 'more than 1,048,576 bytes',
    latin: 'is not UTF-8 text',
}


@pytest.mark.skipif(os.name != 'posix', reason='pipes, sockets and devices are those of POSIX')
@pytest.mark.parametrize('make', WRONG, ids=lambda make: make.__name__)
def test_anything_but_a_small_text_file_is_refused_in_words(tmp_path, make):
    path = make(tmp_path)
    for read, error in ((read_class_file, ClassFileError), (read_classes, DatasetError)):
        with pytest.raises(error, match=f'{path} .*{WRONG[make]}'):
            read(path)


@pytest.mark.parametrize('name', ['missing.txt', 'a\0b', 'classes.txt/below', '\ud800.txt'])
def test_a_missing_file_is_named(tmp_path, name):
    (tmp_path / 'classes.txt').write_text('sky')
    with pytest.raises((FileNotFoundError, ClassFileError)) as error:
        read_class_file(tmp_path / name)
    with pytest.raises(DatasetError) as said:
        read_classes(tmp_path / name)
    assert 'PosixPath' not in f'{error.value}{said.value}'
    f'{error.value}{said.value}'.encode()  # a terminal can show it


def test_the_limit_itself_is_accepted(tmp_path):
    (tmp_path / 'classes.txt').write_bytes(b'x' * LIMIT)
    assert len(read_class_file(tmp_path / 'classes.txt')[0]) == LIMIT


@pytest.fixture
def model(tmp_path, tiny_model_dir):
    """A model directory whose configuration names a class file; files outside it that could be meant."""
    raw = json.loads((tiny_model_dir / 'configuration.json').read_text())
    (tmp_path / 'outside.txt').write_text(NAMES)
    (tmp_path / 'model-2').mkdir()
    (tmp_path / 'model-2' / 'classes.txt').write_text(NAMES)
    folder = tmp_path / 'model'
    folder.mkdir()

    def write(name):
        (folder / 'configuration.json').write_text(json.dumps({**raw, 'CLASSES': name}))
        return folder

    return write


@pytest.mark.parametrize(
    'name',
    ['/dev/zero', '/etc/passwd', '../outside.txt', '../model-2/classes.txt', 'link.txt', 'folder/classes.txt', 'pipe'],
)
@pytest.mark.skipif(os.name != 'posix', reason='symbolic links and pipes are those of POSIX')
def test_a_configuration_names_regular_files_of_its_directory_only(tmp_path, model, name):
    folder = model(name)
    (folder / 'link.txt').symlink_to(tmp_path / 'outside.txt')
    (folder / 'folder').symlink_to(tmp_path / 'model-2')
    os.mkfifo(folder / 'pipe')
    with pytest.raises(ConfigurationError, match='CLASSES is .*one name a line.*(lies outside|is not a regular file)'):
        read_configuration(folder)


@pytest.mark.parametrize('name', ['no\nsuch', 'a\x1b[2J'])
def test_a_name_that_cannot_be_printed_is_told_on_one_line(model, name):
    with pytest.raises(ConfigurationError, match='no such file') as error:
        read_configuration(model(name))
    assert str(error.value).isprintable()


@pytest.mark.parametrize('name', ['classes.txt', 'below/classes.txt', './below/../classes.txt', 'link.txt'])
def test_files_and_links_inside_the_directory_are_read(tmp_path, model, name):
    folder = model(name)
    (folder / 'below').mkdir()
    for path in (folder / 'classes.txt', folder / 'below' / 'classes.txt'):
        path.write_text(NAMES, encoding='utf-8-sig')
    (folder / 'link.txt').symlink_to('below/classes.txt')
    assert read_configuration(folder).classes == CLASSES
    (tmp_path / 'linked').symlink_to(folder)
    assert read_configuration(tmp_path / 'linked').classes == CLASSES
    assert read_configuration(folder / 'configuration.json').classes == CLASSES


@pytest.fixture
def snapshot(tmp_path, model):
    """A model directory in the layout of Hugging Face's cache: links into a folder of the content of every file."""
    folder, blobs = tmp_path / 'hub' / 'snapshots' / 'revision', tmp_path / 'hub' / 'blobs'
    folder.mkdir(parents=True)
    blobs.mkdir()
    (blobs / 'c0ffee').write_text(NAMES)
    os.replace(model('classes.txt') / 'configuration.json', blobs / 'f00d')
    (folder / 'configuration.json').symlink_to('../../blobs/f00d')
    return folder


@pytest.mark.skipif(os.name != 'posix', reason='symbolic links are those of POSIX')
def test_a_directory_of_links_into_one_folder_of_content_is_read(tmp_path, snapshot):
    (snapshot / 'classes.txt').symlink_to('../../blobs/c0ffee')
    assert read_configuration(snapshot).classes == CLASSES
    (tmp_path / 'linked').symlink_to(snapshot)
    assert read_configuration(tmp_path / 'linked').classes == CLASSES


@pytest.mark.skipif(os.name != 'posix', reason='symbolic links are those of POSIX')
@pytest.mark.parametrize('target', ['/etc/passwd', '../../../outside.txt', '../../blobs/link'])
def test_a_link_in_such_a_directory_leads_nowhere_else(tmp_path, snapshot, target):
    (tmp_path / 'hub' / 'blobs' / 'link').symlink_to(tmp_path / 'outside.txt')
    (snapshot / 'classes.txt').symlink_to(target)
    with pytest.raises(ConfigurationError, match='lies outside'):
        read_configuration(snapshot)
