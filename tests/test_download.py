"""Downloads end in bounded time and size, and say what tells a content from a later one."""

import base64
import hashlib
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ms_segformer import download as module
from ms_segformer.download import DownloadError, download, download_file, without_userinfo


class Handler(BaseHTTPRequestHandler):
    """`/etag`, `/dated`, `/frozen` and `/plain` give `content`, with that validator; others misbehave as named."""

    content = b'content'
    asked = []
    authorized = []

    def do_GET(self):  # noqa: N802
        self.asked.append(self.path)
        self.authorized.append(self.headers['Authorization'])
        getattr(self, self.path.strip('/').replace('-', '_'), self.missing)()

    def answer(self, *headers, code=200, content=None):
        content = self.content if content is None else content
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def plain(self):
        self.answer(('Content-Length', str(len(self.content))))

    def etag(self):
        tag = f'"{hash(self.content)}"'
        known = self.headers['If-None-Match'] == tag
        self.answer(('ETag', tag), code=304 if known else 200, content=b'' if known else None)

    def dated(self):
        known = self.headers['If-Modified-Since'] == 'today'
        self.answer(('Last-Modified', 'today'), code=304 if known else 200, content=b'' if known else None)

    def frozen(self):
        """The date stays, whatever is served."""
        self.answer(('Last-Modified', 'today'))

    def missing(self):
        self.answer(code=404)

    def broken_off(self):
        self.answer(('Content-Length', '100'))

    def chunk_broken_off(self):
        self.answer(('Transfer-Encoding', 'chunked'), content=b'100\r\ncontent')

    def no_http(self):
        self.wfile.write(b'SSH-2.0-OpenSSH_9.2\r\n')

    def raw(self):
        self.wfile.write(b'\x1b[2J\x00 not HTTP \xff' + b'x' * 5000 + b'\r\n')

    def bad_reason(self):
        self.wfile.write(b'HTTP/1.0 500 \x1b[31mred\r\n\r\n')

    def in_a_circle(self):
        self.answer(('Location', '/in-a-circle'), code=302)

    def nothing(self):
        pass

    def elsewhere(self):
        self.answer(('Location', '/plain'), code=302)

    def to_a_file(self):
        self.answer(('Location', 'file:///etc/hostname'), code=302)

    def to_ftp(self):
        self.answer(('Location', f'ftp://127.0.0.1:{self.server.server_port}/a'), code=302)

    def drip_body(self):
        self.answer(content=b'')
        self.drip(b'x')

    def drip_headers(self):
        self.wfile.write(b'HTTP/1.0 200 OK\r\n')
        self.drip(b'X-A: b\r\n')

    def drip(self, what):
        try:
            while not self.server.stopped.wait(0.05):
                self.wfile.write(what)
        except OSError:  # the client has gone
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as http:
        http.stopped = threading.Event()
        Handler.asked, Handler.authorized, Handler.content = [], [], b'content'
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f'http://127.0.0.1:{http.server_port}'
        http.stopped.set()
        http.shutdown()


@pytest.mark.parametrize(
    'path, keys', [('etag', ['etag']), ('dated', ['last_modified']), ('frozen', ['last_modified']), ('plain', [])]
)
def test_a_content_that_has_not_changed_is_known_again(server, path, keys):
    first = download(f'{server}/{path}')
    assert first.content == b'content' and sorted(first.version) == sorted([*keys, 'sha256', 'size'])
    assert first.version.get('sha256', hashlib.sha256(b'content').hexdigest()) == hashlib.sha256(b'content').hexdigest()
    assert download(f'{server}/{path}', first.version) is None
    if path != 'dated':
        Handler.content = b'later'
        later = download(f'{server}/{path}', first.version)
        assert later.content == b'later' and later.version != first.version
    assert Handler.asked == [f'/{path}'] * len(Handler.asked), 'each time one request'


def test_redirections_are_followed_within_http(server):
    assert download(f'{server}/elsewhere').content == b'content'
    for path in ('to-a-file', 'to-ftp'):
        with pytest.raises(DownloadError):
            download(f'{server}/{path}')


@pytest.mark.parametrize('path', ['raw', 'bad-reason', 'in-a-circle'])
def test_what_a_server_says_is_one_short_line_that_a_terminal_only_shows(server, tmp_path, path):
    for fetch in (download, lambda url: download_file(url, tmp_path / 'file', 100)):
        with pytest.raises(DownloadError) as caught:
            fetch(f'{server}/{path}')
        said = str(caught.value)
        assert said.isprintable() and 3 < len(said) <= 300


def test_a_password_is_sent_to_its_host_and_is_not_shown(server):
    secret = server.replace('://', '://user:p%40ss@')
    assert download(f'{secret}/plain').content == b'content'
    assert download(f'{secret}/elsewhere').content == b'content'
    basic = 'Basic ' + base64.b64encode(b'user:p@ss').decode()
    assert Handler.authorized == [basic, basic, None], 'a redirection may lead to another host'
    assert without_userinfo(f'{secret}/plain?a@b') == f'{server}/plain?a@b'
    for other in ('a@b.jpg', 'mailto://a@b', f'{server}/a@b', '//['):
        assert without_userinfo(other) == other


@pytest.mark.parametrize(
    'written, sent',
    [
        ('a b/图.jpg?c d', 'a%20b/%E5%9B%BE.jpg?c%20d'),
        ('a%20b?c=%2F', 'a%20b?c=%2F'),
        ('x?y=[1]', 'x?y=%5B1%5D'),
        (os.fsdecode(b'\xff.png'), '%FF.png'),
    ],
)
def test_urls_are_encoded_where_they_are_not(server, written, sent):
    with pytest.raises(DownloadError, match='404'):
        download(f'{server}/{written}')
    assert Handler.asked == [f'/{sent}']


@pytest.mark.parametrize(
    'url',
    [
        'http://[',
        'http://127.0.0.1:port/',
        'http://127.0.0.1:99999/',
        'http://a:0/',
        'http://a b/c',
        'http://',
        'http://a..b/',
        'http://127.0.0.1/\ud800',
        'http://' + '图' * 99 + '/',
    ],
)
def test_a_url_that_is_none_is_a_download_error(url):
    with pytest.raises(DownloadError):
        download(url)


@pytest.mark.parametrize(
    'path, said',
    [
        ('missing', '404'),
        ('broken-off', '93 bytes are missing'),
        ('chunk-broken-off', 'IncompleteRead'),
        ('no-http', 'SSH-2.0'),
        ('nothing', 'closed connection'),
    ],
)
def test_what_cannot_be_had_is_said(server, path, said):
    with pytest.raises(DownloadError, match=said):
        download(f'{server}/{path}')


def test_a_port_nobody_listens_at_is_said():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        with pytest.raises(DownloadError, match='refused'):
            download(f'http://127.0.0.1:{free.getsockname()[1]}/')


@pytest.mark.parametrize('path', ['drip-body', 'drip-headers'])
def test_a_server_that_drips_is_left_at_the_deadline(server, monkeypatch, path):
    monkeypatch.setattr(module, 'DEADLINE_SECONDS', 0.4)
    with pytest.raises(DownloadError, match='not complete after 0.4 seconds'):
        download(f'{server}/{path}')


def test_the_deadline_holds_while_tls_shakes_hands(monkeypatch):
    monkeypatch.setattr(module, 'DEADLINE_SECONDS', 0.4)
    with socket.create_server(('127.0.0.1', 0)) as silent:
        with pytest.raises(DownloadError, match='not complete after'):
            download(f'https://127.0.0.1:{silent.getsockname()[1]}/a.jpg')


def test_the_deadline_of_one_download_leaves_another_alone(server, monkeypatch):
    monkeypatch.setattr(module, 'DEADLINE_SECONDS', 0.2)
    assert download(f'{server}/plain').content == b'content'
    time.sleep(0.3)
    assert download(f'{server}/plain').content == b'content'
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_a_content_without_end_is_left_at_the_limit(server, monkeypatch):
    monkeypatch.setattr(module, 'MAX_BYTES', 5)
    with pytest.raises(DownloadError, match='larger than'):
        download(f'{server}/plain')


def test_a_file_is_there_whole_and_checked_or_not_at_all(server, tmp_path):
    def check(path):
        assert path.read_bytes() == b'content' and not (tmp_path / 'a' / 'file').exists()

    assert module.download_file(f'{server}/elsewhere', tmp_path / 'a' / 'file', 7, check) == 7
    assert (tmp_path / 'a' / 'file').read_bytes() == b'content'
    for path, limit, said in (
        ('plain', 6, 'larger than'),
        ('broken-off', 99, '93 bytes are missing'),
        ('missing', 99, '404'),
    ):
        with pytest.raises(DownloadError, match=said):
            module.download_file(f'{server}/{path}', tmp_path / 'b' / 'file', limit)
    with pytest.raises(DownloadError, match='unknown url type|no host|unknown'):
        module.download_file('nothing', tmp_path / 'b' / 'file', 9)
    assert not list((tmp_path / 'b').iterdir())
