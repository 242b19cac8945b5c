"""The service as a process: its limits, many clients, and its end."""

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from serving_process import running, running_with, started, until

from ms_segformer.cli.main import main

httpx = pytest.importorskip('httpx', reason='httpx is not installed')
pytest.importorskip('fastapi', reason="the extra 'serve' is not installed")

PHOTO = (Path(__file__).parents[2] / 'assets' / 'china.jpg').read_bytes()
JPEG = {'Content-Type': 'image/jpeg'}

# The network takes a while.
SLOW = """
import time
from ms_segformer.pipelines.image_segmentation import SegformerPipeline

segment = SegformerPipeline.segment


def slowly(self, prepared, options):
    for _ in range({tenths}):
        time.sleep(0.1)
    return segment(self, prepared, options)


SegformerPipeline.segment = slowly
"""

# The models take a while to be made ready.
SLOW_START = """
import time
from ms_segformer.serving.models import Models

make_ready = Models.make_ready
Models.make_ready = lambda self: (time.sleep(3), make_ready(self))
"""


def ask(server, **options):
    return httpx.post(f'{server.url}/v1/segment', content=PHOTO, headers=JPEG, timeout=120, **options)


def connect(server):
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def head(length, path='/v1/segment'):
    lines = [
        f'POST {path} HTTP/1.1',
        'Host: localhost',
        'Content-Type: image/jpeg',
        f'Content-Length: {length}',
        '',
        '',
    ]
    return '\r\n'.join(lines).encode()


def read_all(connection):
    """Until the other side closes."""
    content = b''
    while part := connection.recv(65536):
        content += part
    return content


def metric(server, name):
    lines = httpx.get(f'{server.url}/metrics').text.splitlines()
    return sum(float(line.rpartition(' ')[2]) for line in lines if line.startswith(name))


def test_more_than_the_places_are_told_to_come_back_and_are_answered_in_the_end(tmp_path):
    with running_with(tmp_path, SLOW.format(tenths=5), places=2) as server:
        expected = ask(server).json()
        refused = []

        def persist(_):
            while True:
                answer = ask(server)
                if answer.status_code == 200:
                    return answer.json()
                assert answer.status_code == 503 and answer.json()['type'] == 'urn:ms-segformer:busy'
                refused.append(int(answer.headers['retry-after']))
                time.sleep(0.2)

        with ThreadPoolExecutor(5) as clients:
            answers = list(clients.map(persist, range(5)))
        assert all(answer == expected for answer in answers)
        assert refused and all(1 <= seconds <= 60 for seconds in refused)


def test_a_client_that_goes_away_frees_its_place(tmp_path):
    with running_with(tmp_path, SLOW.format(tenths=20), places=1) as server:
        ask(server)
        with connect(server) as connection:
            connection.sendall(head(len(PHOTO)) + PHOTO)
            until(lambda: metric(server, 'segformer_places_in_use') == 1)
        until(lambda: metric(server, 'segformer_places_in_use') == 0, 1)  # the network would take two seconds
        until(lambda: metric(server, 'segformer_requests_total{model="demo",status="499"}') == 1)
        assert ask(server).status_code == 200


def test_a_request_has_its_time_and_windows_end_with_it(tmp_path):
    changes = SLOW.format(tenths=0) + (
        'from ms_segformer.preprocessors.segformer import SegformerPreprocessor\n'
        'window = SegformerPreprocessor.window\n'
        'SegformerPreprocessor.window = lambda *a: (time.sleep(0.2), window(*a))[1]\n'
    )
    with running_with(tmp_path, changes, seconds=1.5) as server:
        windows = {'mode': 'slide', 'full_size': True}
        until(lambda: ask(server, params=windows).status_code == 200)  # two windows, once they are compiled
        large = _large_photo()
        start = time.monotonic()
        answer = httpx.post(f'{server.url}/v1/segment', params=windows, content=large, headers=JPEG, timeout=60)
        assert answer.status_code == 503 and answer.json()['type'] == 'urn:ms-segformer:timeout'
        assert '1.5 s' in answer.json()['detail'] and int(answer.headers['retry-after']) >= 1
        assert ask(server).status_code == 200
        assert time.monotonic() - start < 15  # all the windows would take half a minute


def _large_photo():
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new('RGB', (4000, 3000), (90, 120, 150)).save(buffer, 'JPEG')
    return buffer.getvalue()


def test_slow_heads_and_bodies_are_cut_off(tmp_path):
    with running_with(tmp_path, body_seconds=1.0, header_seconds=1.0) as server:
        with connect(server) as silent, connect(server) as half, connect(server) as body, connect(server) as second:
            half.sendall(b'POST /v1/segment HTTP/1.1\r\nHost: local')
            body.sendall(head(1000) + b'abc')
            second.sendall(b'GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n')
            content = b''
            while b'"ok"}' not in content:
                content += second.recv(65536)
            second.sendall(b'GET /hea')
            start = time.monotonic()
            with pytest.raises(ConnectionError):  # a byte now and then does not extend the time
                for _ in range(100):
                    half.sendall(b'h')
                    time.sleep(0.1)
            assert read_all(silent) == b'' and read_all(second) == b''
            answer = read_all(body)
            assert time.monotonic() - start < 10
        assert answer.startswith(b'HTTP/1.1 408') and b'3 bytes came in 1 s' in answer
        assert ask(server).status_code == 200


def test_what_is_not_http_harms_nothing(server):
    tls, large = b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', b'GET / HTTP/1.1\r\nX: ' + b'a' * 2**18
    for content in (tls, b'GET / HTTP/9.9\r\n\r\n', large, os.urandom(5000)):
        with connect(server) as connection:
            answer = b''
            with suppress(OSError):  # closed with bytes unread
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                answer = read_all(connection)
            assert answer == b'' or (
                answer.startswith(b'HTTP/1.1 400') and b'urn:ms-segformer:broken-request' in answer
            )
    assert httpx.get(f'{server.url}/healthz').status_code == 200


def test_a_client_that_does_not_read_its_answer_does_not_keep_the_service(tmp_path):
    changes = 'from ms_segformer.serving import server\nserver.SENDING_SECONDS = 1.0\n'
    with running_with(tmp_path, changes) as server:
        expected = ask(server, params={'masks': 'none'}).json()
        address = urlsplit(server.url)
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((address.hostname, address.port))
        with deaf:
            deaf.sendall(b'GET /docs/files/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n' * 20)
            other = connect(server)
            with other:
                lines = [
                    'POST /v1/segment HTTP/1.1',
                    'Host: localhost',
                    'Accept: image/jpeg',
                    f'Content-Length: {len(PHOTO)}',
                ]
                other.sendall('\r\n'.join([*lines, '', '']).encode() + PHOTO)
                assert ask(server, params={'masks': 'none'}).json() == expected
                start = time.monotonic()
                code, err = server.stop()
        assert code == 0 and time.monotonic() - start < 20 and 'Traceback' not in err, err


def test_a_body_that_is_too_large_need_not_be_sent(server):
    with connect(server) as connection:
        connection.sendall(head(10**9).replace(b'\r\n\r\n', b'\r\nExpect: 100-continue\r\n\r\n'))
        answer = read_all(connection)
    assert answer.startswith(b'HTTP/1.1 413') and b'100 Continue' not in answer


def test_an_error_in_the_service_is_said_and_the_next_request_served(tmp_path):
    changes = SLOW.format(tenths=0) + (
        'calls = iter(range(100))\n'
        'def fails(self, prepared, options):\n'
        '    if next(calls) == 1:\n'
        "        raise RuntimeError('a secret')\n"
        '    return segment(self, prepared, options)\n'
        'SegformerPipeline.segment = fails\n'
    )
    with running_with(tmp_path, changes) as server:
        answer = ask(server)
        assert answer.status_code == 500 and answer.json()['type'] == 'urn:ms-segformer:internal'
        assert 'secret' not in answer.text
        assert ask(server).status_code == 200
        _, err = server.stop()
    assert 'a secret' in err


def test_nothing_is_written_besides_the_cache(tmp_path):
    """A form of a megabyte and more goes to a temporary file by default."""
    import io

    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)).save(buffer, 'PNG')
    assert len(buffer.getvalue()) > 2 * 2**20
    with running(TMPDIR=str(tmp_path / 'none')) as server:
        answer = httpx.post(
            f'{server.url}/v1/segment', files={'file': ('a.png', buffer.getvalue(), 'image/png')}, timeout=60
        )
        assert answer.status_code == 200
        opened = [os.path.realpath(path) for path in Path(f'/proc/{server.process.pid}/fd').iterdir()]
    assert not [path for path in opened if '(deleted)' in path]
    assert not (tmp_path / 'none').exists()


def test_while_the_models_are_made_ready_it_says_so(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with running_with(tmp_path, SLOW_START, wait=False, port=port) as process:

        def answer(path):
            try:
                return httpx.get(f'http://127.0.0.1:{port}{path}')
            except httpx.TransportError:
                return None

        assert until(lambda: answer('/healthz')).status_code == 200
        for path in ('/readyz', '/v1/models'):
            refused = answer(path)
            assert refused.status_code == 503 and refused.json()['type'] == 'urn:ms-segformer:starting'
            assert refused.headers['retry-after'] == '2'
        refused = httpx.post(f'http://127.0.0.1:{port}/v1/segment', content=PHOTO, headers=JPEG)
        assert refused.status_code == 503
        assert process.stdout.readline().startswith('http://')
        assert answer('/readyz').status_code == 200


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('workers', [1, 2])
def test_what_was_taken_on_is_answered_when_it_is_stopped(tmp_path, number, workers):
    with running_with(tmp_path, SLOW.format(tenths=4), workers=workers) as server:
        expected = ask(server).json()
        stopped = threading.Event()
        outcomes = []

        def client(_):
            while True:
                late = stopped.is_set()  # what began before is answered
                try:
                    answer = ask(server)
                except httpx.TransportError as error:
                    outcomes.append((late, error))
                    return
                outcomes.append((late, answer.status_code))
                if answer.status_code == 503:
                    assert answer.json()['type'] in ('urn:ms-segformer:stopping', 'urn:ms-segformer:busy')
                    return
                assert answer.json() == expected

        with ThreadPoolExecutor(6) as clients:
            running_clients = [clients.submit(client, i) for i in range(6)]
            time.sleep(2)
            stopped.set()
            code, err = server.stop(number)
            for each in running_clients:
                each.result()
        assert code == 0 and 'Traceback' not in err, err
        assert sum(outcome == (False, 200) for outcome in outcomes) >= 6
        assert not [outcome for outcome in outcomes if outcome not in [(False, 200), (False, 503)] and not outcome[0]]


def children(pid):
    """Processes of a service that serve."""
    found = []
    for path in Path('/proc').glob('[0-9]*'):
        try:
            parent = int((path / 'stat').read_text().rpartition(')')[2].split()[1])
            if parent == pid and b'spawn_main' in (path / 'cmdline').read_bytes():
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='finds processes in /proc')
def test_a_worker_that_is_killed_comes_back_and_the_others_go_on(tmp_path):
    """The one that takes its place accepts nothing while it is made ready."""
    with running_with(tmp_path, SLOW_START, workers=2) as server:
        workers = children(server.process.pid)
        assert len(workers) == 2
        expected = ask(server).json()
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: workers[0] not in children(server.process.pid))
        until(lambda: len(set(children(server.process.pid)) - set(workers)) == 1)
        end = time.monotonic() + 4
        while time.monotonic() < end:
            assert ask(server).json() == expected
        until(lambda: metric(server, 'segformer_requests_total{model="demo",status="200"}') >= 6)
        os.kill(workers[1], signal.SIGKILL)

        def answered():
            try:
                return ask(server).status_code == 200
            except httpx.TransportError:  # of the one that was killed
                return False

        until(answered)
        code, err = server.stop()
        assert code == 0 and 'has died (exit code -9)' in err and 'Traceback' not in err
        until(lambda: not children(server.process.pid))


@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='finds processes in /proc')
def test_workers_end_with_the_command():
    with running('--workers', '2') as server:
        workers = children(server.process.pid)
        server.process.kill()
        server.process.wait()
        until(lambda: not [pid for pid in workers if os.path.exists(f'/proc/{pid}/stat') and 'Z' not in _state(pid)])


def _state(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except FileNotFoundError:
        return 'Z'


@pytest.mark.parametrize(
    'words, said',
    [
        (['--model', 'b9'], 'b9'),
        (['--model', '/nowhere'], '/nowhere'),
        (['--model', 'demo', '--model', 'demo'], "two models are called 'demo'"),
        (['--model', '=demo'], 'NAME=DIR_OR_ID'),
        (['--model', '\udcff=demo'], "'\\udcff'"),
        (['--port', '70000'], "'70000' is not a port"),
        (['--host', 'no.such.host.invalid'], 'no.such.host.invalid'),
        (['--host', '192.0.2.1'], 'cannot be listened on'),
        (['--max-body', '1X'], 'bytes'),
        (['--timeout', '0'], 'seconds'),
        (['--workers', '0'], 'workers'),
    ],
)
def test_mistakes_are_said_in_a_line(words, said, capsys):
    try:
        code = main(['serve', '--port', '0', '--device', 'cpu', '-q', *words])
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    assert code in (1, 2) and out == ''
    assert err.startswith('error: ') and len(err.splitlines()) == 1 and said in err, err


@pytest.mark.parametrize('workers', ['1', '2'])
def test_a_model_that_cannot_be_made_ready_ends_it_with_a_line(workers):
    words = ['--port', '0', '--device', 'cpu', '-q', '--precision', 'int8', '--workers', workers]
    with started(['-m', 'ms_segformer', 'serve', *words], {}) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and out == ''
    assert err.startswith('error: ') and len(err.splitlines()) == 1 and 'ms-segformer quantize' in err, err


def test_a_port_that_is_taken_is_said(server):
    port = urlsplit(server.url).port
    with started(['-m', 'ms_segformer', 'serve', '-q', '--port', str(port)], {}) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and str(port) in err and 'name another --port' in err


def test_several_models_by_name(tmp_path):
    with running('--model', 'first=demo', '--model', 'second=demo') as server:
        models = httpx.get(f'{server.url}/v1/models').json()['models']
        assert [(model['name'], model['default']) for model in models] == [('first', True), ('second', False)]
        assert ask(server).json()['model'] == 'first'
        assert ask(server, params={'model': 'second'}).json()['model'] == 'second'
