"""Many clients ask a service at once, good ones and hostile ones: every good request is answered like the pipeline.

    python -m campaigns.serving --seed 1 --seconds 600 --clients 32

Clients draw what they do from the seed: images in raw bodies and forms, for JSON, label map and overlay; garbage,
damaged files, files that claim a huge size, empty bodies, bodies that are too large or that come a byte at a time,
options that do not exist, bytes that are no HTTP; some go away in the middle of a body, or while they wait. A request
that is told to come back (503) tries again after the time it was told. A good request counts as a result when its
answer is the pipeline's; a hostile one as a clear error when it is refused with a status of 400 to 499 and a problem
document, or when its connection is closed. Everything else is 'anything else': 500 above all.
"""

import io
import json
import os
import random as python_random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from campaigns.frame import ROOT, Tally, arguments, finish
from ms_segformer import activate, load

PHOTO = ROOT / 'assets' / 'china.jpg'
SIZES = ((160, 120), (120, 160), (200, 150), (160, 160))  # width and height: small, so that there are many
PATIENCE = 300  # seconds of a good request, with all its tries
GOOD = ('JSON', 'label map', 'overlay', 'form', 'classes')
HOSTILE = (
    'garbage',
    'damaged',
    'bomb',
    'empty',
    'too large',
    'no such option',
    'not HTTP',
    'goes away while sending',
    'goes away while waiting',
    'slow',
)
WEIGHTS = [4, 4, 1, 2, 1] + [1, 1, 1, 1, 0.3, 1, 1, 1, 2, 0.5]
Answer = tuple[int, dict[str, str], bytes]


class Wrong(Exception):
    """Not what the campaign expects."""


class Images:
    """Good files, with what the pipeline makes of each."""

    def __init__(self) -> None:
        activate()
        segmenter = load('demo', device='cpu')
        with Image.open(PHOTO) as photo:
            photo = photo.convert('RGB')
        self.files, self.results = [], []
        for number, size in enumerate(SIZES * 2):
            buffer = io.BytesIO()
            left = 30 * number
            photo.crop((left, 10, left + 400, 410)).resize(size).save(buffer, 'JPEG' if number % 2 else 'PNG')
            self.files.append(buffer.getvalue())
            self.results.append(segmenter(buffer.getvalue()))


class Client:
    """One of many; does what its random numbers say until the time is up."""

    def __init__(self, port: int, images: Images, seed: int, tally: Tally, lock: threading.Lock) -> None:
        self.port, self.images, self.tally, self.lock = port, images, tally, lock
        self.random = python_random.Random(seed)
        self.seconds: list[float] = []  # of good requests, from the first try to the answer
        self.single: list[float] = []  # of the try that was answered
        self.told_to_come_back = 0

    def run(self, end: float, tickets: Iterator[int]) -> None:
        while time.monotonic() < end and next(tickets, None) is not None:
            (kind,) = self.random.choices(GOOD + HOSTILE, WEIGHTS)
            try:
                outcome = (self.good if kind in GOOD else self.hostile)(kind)
            except Exception as error:
                outcome = 'anything else'
                print(f'{kind}: {type(error).__name__}: {str(error)[:500]}', flush=True)
            with self.lock:
                self.tally.add(kind, outcome)

    def ask(self, body: bytes, headers: dict[str, str], query: str = '', seconds: float = 120) -> Answer:
        connection = HTTPConnection('127.0.0.1', self.port, timeout=seconds)
        try:
            connection.request('POST', f'/v1/segment{query}', body, headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def good(self, kind: str) -> str:
        number = self.random.randrange(len(self.images.files))
        body, result = self.images.files[number], self.images.results[number]
        accept = {'label map': 'image/png', 'classes': 'image/png', 'overlay': 'image/jpeg'}.get(
            kind, 'application/json'
        )
        headers, query, label = {'Content-Type': 'image/png', 'Accept': accept}, '', result['labels'][0]
        if kind == 'classes':
            query = f'?classes={label}'
        if kind == 'form':
            headers['Content-Type'] = 'multipart/form-data; boundary=frontier'
            head = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            body = head + body + b'\r\n--frontier--\r\n'
        start = time.monotonic()
        while True:
            own = time.monotonic()
            status, found, content = self.ask(body, headers, query)
            if status == 200:
                break
            if status != 503 or 'retry-after' not in found or time.monotonic() - start > PATIENCE:
                raise Wrong(f'{status} after {time.monotonic() - start:.0f} s: {content[:300]!r}')
            self.told_to_come_back += 1
            time.sleep(int(found['retry-after']) * self.random.uniform(0.5, 1))
        self.seconds.append(time.monotonic() - start)
        self.single.append(time.monotonic() - own)
        self.compare(kind, content, result, label)
        return 'results'

    def compare(self, kind: str, content: bytes, result: dict, label: str) -> None:
        seg_map = result['seg_map']
        if kind == 'overlay':
            with Image.open(io.BytesIO(content)) as image:
                if image.height < len(seg_map) or image.width <= seg_map.shape[1]:
                    raise Wrong(f'an overlay of {image.size}')
                image.load()
        elif kind in ('label map', 'classes'):
            expected = seg_map
            if kind == 'classes':
                expected = np.where(seg_map == result.classes.index(label), seg_map, 255)
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), expected)
        else:
            segments = json.loads(content)['segments']
            rows = result.to_dicts()
            for segment, row in zip(segments, rows, strict=True):
                # By the network for any shape in place of that for one shape, scores differ in their last digit.
                if abs(segment['score'] - row['score']) > 1e-5:
                    raise Wrong(f'score {segment["score"]} in place of {row["score"]}')
                if {key: segment[key] for key in row} | {'score': 0} != row | {'score': 0}:
                    raise Wrong(f'{segment} in place of {row}')
                np.testing.assert_array_equal(coco.decode(segment['mask']), seg_map == segment['id'])

    def hostile(self, kind: str) -> str:
        headers = {'Content-Type': 'image/jpeg'}
        file = self.random.choice(self.images.files)
        if kind.startswith('goes away') or kind in ('slow', 'not HTTP'):
            return self.raw(kind, file)
        body, query = file, ''
        if kind == 'garbage':
            body = self.random.randbytes(self.random.randrange(1, 5000))
        elif kind == 'damaged':
            body = file[: self.random.randrange(20, len(file) // 2)]
        elif kind == 'bomb':
            body = bomb(self.random.randrange(6000, 65000), self.random.randrange(6000, 65000))
        elif kind == 'empty':
            body = b''
        elif kind == 'too large':
            body = bytes(33 * 2**20)
        elif kind == 'no such option':
            query = self.random.choice(['?nix=1', '?min_share=7', '?classes=nobody', '?model=%00', '?mode=%FF'])
        try:
            status, found, content = self.ask(body, headers, query)
        except (ConnectionError, HTTPException):
            if kind == 'too large':  # closed while it was still sending
                return 'clear errors'
            raise
        if status == 503 and 'retry-after' in found:
            self.told_to_come_back += 1
            return 'clear errors'
        if not 400 <= status < 500 or not json.loads(content)['detail']:
            raise Wrong(f'{status}: {content[:300]!r}')
        return 'clear errors'

    def raw(self, kind: str, file: bytes) -> str:
        lines = ['POST /v1/segment HTTP/1.1', 'Host: localhost', f'Content-Length: {len(file)}', '', '']
        head = '\r\n'.join(lines)
        with socket.create_connection(('127.0.0.1', self.port), timeout=120) as connection:
            if kind == 'not HTTP':
                connection.sendall(self.random.randbytes(300))
                connection.shutdown(socket.SHUT_WR)
            elif kind == 'goes away while sending':
                connection.sendall(head.encode() + file[: len(file) // 2])
                return 'clear errors'
            elif kind == 'goes away while waiting':
                connection.sendall(head.encode() + file)
                time.sleep(self.random.uniform(0, 0.5))
                return 'clear errors'
            else:
                connection.sendall(head.encode())
                try:
                    for byte in file[:100]:
                        connection.sendall(bytes([byte]))
                        time.sleep(1)
                except ConnectionError:
                    return 'clear errors'
            content = b''
            try:
                while part := connection.recv(65536):
                    content += part
            except ConnectionError:
                pass
        if content and not content.startswith((b'HTTP/1.1 4', b'HTTP/1.1 503')):
            raise Wrong(repr(content[:300]))
        return 'clear errors'


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be large."""
    chunks = [(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)), (b'IDAT', zlib.compress(bytes(2**20)))]
    packed = [struct.pack('>I', len(b)) + k + b + struct.pack('>I', zlib.crc32(k + b)) for k, b in chunks]
    return b'\x89PNG\r\n\x1a\n' + b''.join(packed)


def resident(pid: int, field: str = 'VmRSS') -> int:
    """MiB of a process."""
    lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(f'{field}:'))


def percentiles(seconds: list[float]) -> str:
    """Of sorted times, in words."""
    return f'{statistics.median(seconds):.2f} s (median) and {seconds[int(0.99 * len(seconds))]:.2f} s (99 %)'


def main() -> int:
    parser = arguments(__doc__, cases=10**9)
    parser.add_argument('--clients', type=int, default=32)
    args = parser.parse_args()
    if args.seconds == float('inf') and args.cases == 10**9:
        args.seconds = 600.0
    images, tally, lock = Images(), Tally(), threading.Lock()
    command = [sys.executable, '-m', 'ms_segformer', 'serve', '--port', '0', '--device', 'cpu']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ))
    started = time.monotonic()
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[0].rpartition(':')[2])
        end = time.monotonic() + min(args.seconds, 10**6)
        tickets = iter(range(args.cases))  # one thread at a time takes the next
        clients = [Client(port, images, args.seed * 1000 + i, tally, lock) for i in range(args.clients)]
        threads = [threading.Thread(target=each.run, args=(end, tickets)) for each in clients]
        for thread in threads:
            thread.start()
        memory = []
        while any(thread.is_alive() for thread in threads):
            memory.append(resident(process.pid))
            threads[0].join(1)
            for thread in threads:
                thread.join(0.02)
        if process.poll() is not None:
            tally.add('the service has ended', 'anything else')
        memory.append(resident(process.pid))
        peak = resident(process.pid, 'VmHWM')
        process.send_signal(signal.SIGTERM)
        if process.wait(60) != 0:
            tally.add('exit code', 'anything else')
    finally:
        process.kill()
    whole = sorted(seconds for each in clients for seconds in each.seconds)
    single = sorted(seconds for each in clients for seconds in each.single)
    code = finish(f'{args.clients} clients of a service', tally, args, time.monotonic() - started)
    if whole:
        rate, back = len(whole) / (time.monotonic() - started), sum(each.told_to_come_back for each in clients)
        after = ', '.join(f'{memory[len(memory) * part // 10]} MiB after {part}0 %' for part in (1, 5, 9))
        print(
            f'\nGood requests: {len(whole)}, {rate:.1f} a second; answered within {percentiles(single)}; with the '
            f'tries before {percentiles(whole)}; told to come back {back} times.\n\nMemory of the service: {after} of '
            f'the time, {memory[-1]} at the end, {peak} at its peak.'
        )
    return code


if __name__ == '__main__':
    sys.exit(main())
