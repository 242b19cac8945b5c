"""(k) The service: requests a second of 8 clients, beside the images a second of the pipeline in one process.

python -m benchmarks.serving --model DIR
"""

import http.client
import io
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
from PIL import Image

from .measure import interleave, parser, quiet, rate_table, report
from .subjects import photograph

CLIENTS = 8
IMAGES = 40  # a turn
SIZE = 640, 480
FORMS = {'RLE in JSON': 'application/json', 'label map as PNG': 'image/png', 'overlay as JPEG': 'image/jpeg'}


def main():
    p = parser(__doc__.splitlines()[0], rounds=9)
    p.add_argument('--precision', default='float32')
    p.add_argument('--workers', type=int, default=1, help='of the service')
    args = p.parse_args()
    quiet()
    from ms_segformer import load

    model = args.model or 'demo'
    files = pictures(args.image or photograph(width=800))
    segmenter = load(model, device='cpu', precision=args.precision)
    with service(model, args) as (port, pid):
        turns = {'pipeline': lambda: segment(segmenter, files)}
        turns |= {name: lambda form=form: ask(port, files, form) for name, form in FORMS.items()}
        seconds = interleave(turns, args)
        kilobytes = peak(pid)
    rows = rate_table(seconds, IMAGES, 'pipeline', 'images')
    notes = (
        f'{CLIENTS} clients in the process of the benchmark, {IMAGES} JPEGs of {SIZE[0]}×{SIZE[1]} a turn, '
        f'{args.precision}, {args.workers} worker(s); the pipeline takes them one after another, and reads ahead. Peak '
        f'memory of the process that was started: {kilobytes / 1024:.0f} MiB.'
    )
    report(f'The service with {CLIENTS} clients, {Path(model).name}', rows, args, 'serving', notes)


def pictures(path):
    """JPEG files of the size, each cut elsewhere from a photograph."""
    with Image.open(path) as image:
        image = image.convert('RGB')
    image = image.resize((SIZE[0] + 160, SIZE[1] + 120))
    random = np.random.default_rng(0)
    files = []
    for _ in range(IMAGES):
        left, top = int(random.integers(160)), int(random.integers(120))
        buffer = io.BytesIO()
        image.crop((left, top, left + SIZE[0], top + SIZE[1])).save(buffer, 'JPEG', quality=90)
        files.append(buffer.getvalue())
    return files


def segment(segmenter, files):
    for result in segmenter(iter(files), with_masks=False):
        assert result['labels']


def ask(port, files, accept):
    """All files by the clients, each over one connection."""
    waiting, failed = SimpleQueue(), []
    for content in files:
        waiting.put(content)

    def client():
        connection = http.client.HTTPConnection('127.0.0.1', port)
        while True:
            try:
                content = waiting.get_nowait()
            except Empty:
                return connection.close()
            connection.request('POST', '/v1/segment', content, {'Content-Type': 'image/jpeg', 'Accept': accept})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or not body:
                failed.append(body[:300])

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed[0]


@contextmanager
def service(model, args):
    """A service in a process of its own; gives its port and the process's id."""
    words = ['--model', model, '--port', '0', '--device', 'cpu', '--precision', args.precision]
    command = [sys.executable, '-m', 'ms_segformer', 'serve', *words, '--workers', str(args.workers)]
    environment = {**os.environ, 'OMP_NUM_THREADS': str(os.cpu_count())}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        address = process.stdout.readline().split()[0]
        yield int(address.rpartition(':')[2]), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def peak(pid):
    """Of a process, KiB."""
    text = Path(f'/proc/{pid}/status').read_text()
    return int(next(line for line in text.splitlines() if line.startswith('VmHWM')).split()[1])


if __name__ == '__main__':
    main()
