"""Stores by their URLs: which there are, what is refused, and what their errors say."""

import importlib.util
import threading
import time

import pytest

from ms_segformer import stores
from ms_segformer.download import Interruption
from ms_segformer.errors import ArgumentError
from ms_segformer.stores import Store, StoreError, check_url, open_store, scheme_of


@pytest.mark.parametrize(
    'location, scheme',
    [
        ('s3://bucket/a.jpg', 's3'),
        ('OSS://bucket/a.jpg', 'oss'),
        ('hf://datasets/user/name/a.jpg', 'hf'),
        ('memory://a', 'memory'),
        ('file:///a.jpg', None),
        ('http://host/a.jpg', None),
        ('zip://a.jpg::s3://bucket/b.zip', None),
        ('simplecache::s3://bucket/a.jpg', None),
        ('s4://bucket/a.jpg', None),
        ('s3:/bucket/a.jpg', None),
        ('shots/s3://a.jpg', None),
    ],
)
def test_what_is_a_store(location, scheme):
    assert scheme_of(location) == scheme


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    missing = next((name for name in ('ossfs', 'tosfs', 'ocifs') if not importlib.util.find_spec(name)), None)
    if missing is None:
        pytest.skip('the packages of all stores are installed')
    with pytest.raises(ArgumentError, match=f'needs a package that is not installed.*`pip install {missing}`'):
        check_url(f'{missing[:3]}://bucket/a.jpg')


def test_a_url_without_a_bucket_is_refused():
    with pytest.raises(ArgumentError, match='names no bucket; expected memory://BUCKET/NAME'):
        check_url('MEMORY://')
    assert check_url('MEMORY://Bucket/A') == 'memory://Bucket/A'


class Failing:
    """A file system that fails in its own way."""

    def __init__(self, error):
        self.error = error

    def invalidate_cache(self):
        pass

    def info(self, path):
        raise self.error

    def _strip_protocol(self, url):
        return url


class ForeignError(Exception):
    pass


@pytest.mark.parametrize(
    'error, said',
    [
        (PermissionError('Access Denied'), 'the store refuses it (Access Denied); it takes credentials from its own'),
        (ForeignError('Unable to locate\ncredentials'), 'the store refuses it (Unable to locate credentials)'),
        (OSError(5, 'no route'), '[Errno 5] no route'),
        (ForeignError('the key is hush-hush-hush'), 'ForeignError: the key is ***'),
    ],
)
def test_every_error_is_said_in_words_without_secrets(monkeypatch, error, said):
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'hush-hush-hush')
    store = Store('memory://bucket')
    store._system = Failing(error)
    with pytest.raises(StoreError) as raised:
        store.info('memory://bucket/a')
    assert str(raised.value).startswith(said)
    store._system = Failing(FileNotFoundError())
    assert store.info('memory://bucket/a') is None


def test_a_store_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(stores, 'DEADLINE_SECONDS', 0.1)
    store = Store('memory://bucket')
    monkeypatch.setattr(store._system, 'cat_file', lambda *_, **__: time.sleep(5), raising=False)
    began = time.monotonic()
    with pytest.raises(StoreError, match='not complete after 0.1 seconds'):
        store.read('memory://bucket/a')
    assert time.monotonic() - began < 3


def test_a_read_can_be_ended_from_another_thread(monkeypatch):
    store = Store('memory://bucket')
    reading = threading.Event()
    monkeypatch.setattr(store._system, 'cat_file', lambda *_, **__: reading.set() or time.sleep(5), raising=False)
    interruption, raised = Interruption(), []

    def read():
        interruption.bind()
        try:
            store.read('memory://bucket/a')
        except StoreError as error:
            raised.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(5)
    interruption.interrupt()
    thread.join(3)
    assert raised == ['interrupted']


def test_an_object_is_made_only_where_there_is_none():
    url = 'memory://bucket/new'
    store = open_store(url)
    store.put(url, b'first', new=True)
    with pytest.raises(FileExistsError):
        store.put(url, b'second', new=True)
    store._creates = False  # as of a package that cannot say so in one request
    try:
        with pytest.raises(FileExistsError):
            store.put(url, b'second', new=True)
    finally:
        store._creates = True
    assert store.read(url) == b'first'


def test_a_name_that_looks_like_a_pattern_removes_itself_and_nothing_else():
    store = open_store('memory://patterns')
    urls = [f'memory://patterns/{name}' for name in ('run[1]/a', 'run1/a', 'run*/a', 'runs/a', 'b')]
    for url in urls:
        store.put(url, b'a')
    store.remove([urls[0], urls[2], urls[4]])
    assert [each.url for each in store.below('memory://patterns')] == [urls[1], urls[3]]


def test_an_empty_object_has_no_content_where_no_part_of_it_can_be_asked_for(monkeypatch):
    store = open_store('memory://empty')
    store.put('memory://empty/a', b'')

    def refuse(path, start=None, end=None):
        raise OSError(22, 'The requested range is not satisfiable')

    monkeypatch.setattr(store.file_system, 'cat_file', refuse)
    assert store.read('memory://empty/a') == b''
    store.put('memory://empty/a', b'a')
    with pytest.raises(StoreError, match='not satisfiable'):
        store.read('memory://empty/a')
