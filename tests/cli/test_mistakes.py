"""What is typed wrongly: exit code, the one line that is said, and that it is said before torch is imported."""

import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from ms_segformer import metainfo
from ms_segformer.cli.arguments import output_file, output_folder

ROOT = Path(__file__).parents[2]
PUBLISHED = 'damo/cv_segformer-b0_image_semantic-segmentation_coco-stuff164k'
DEVICE = 'is no device; accepted: cpu, gpu, cuda, or cuda:N for the GPU N'
ENGINES = ', '.join(('auto', *metainfo.ENGINES))
UNWRITABLE = 'cannot be written: no file can be made in /proc (No such file or directory); name another place'
SIDE = 'is not a whole number of at least 29 pixels, the least that the network takes'
# Runs command lines, given as JSON, in one process; prints of each: exit code, errors, whether torch is imported.
RUN = """
import contextlib, io, json, sys
from ms_segformer.cli.main import main

results = []
for words in json.loads(sys.argv[1]):
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed):
        try:
            code = main(words)
        except SystemExit as done:
            code = done.code
    results.append([code, printed.getvalue(), 'torch' in sys.modules])
print(json.dumps(results))
"""

PREDICT = ['predict', 'photo.jpg', '--model', 'demo']
EVAL = ['eval', '--model', 'demo', '--data', '.']
USAGE = {  # command line: what is said
    (*PREDICT, '--device', 'tpu'): f"--device: 'tpu' {DEVICE}",
    (*PREDICT, '--device', 'cuda:'): f"--device: 'cuda:' {DEVICE}",
    (*PREDICT, '--device', 'xpu'): f"--device: 'xpu' {DEVICE}",
    (*PREDICT, '--device', 'cuda:99999999999999999999'): f"--device: 'cuda:99999999999999999999' {DEVICE}",
    (*EVAL, '--device', 'tpu'): f"--device: 'tpu' {DEVICE}",
    ('train', 'demo', '--device', 'tpu'): f"--device: 'tpu' {DEVICE}",
    (*PREDICT, '--engine', 'torhc'): f"--engine: 'torhc' is not one of {ENGINES}; did you mean torch?",
    (*EVAL, '--engine', 'tensorrt'): f"--engine: 'tensorrt' is not one of {ENGINES}",
    (*PREDICT, '--precision', 'half'): "--precision: 'half' is not one of float32, bf16, fp16, int8",
    (*PREDICT, '--mode', 'tile'): "--mode: 'tile' is not one of whole, slide",
    (*PREDICT, '--save', 'label'): "--save: 'label' is not one of labels, overlay, json; did you mean labels?",
    (*PREDICT, '--max-pixels', '0'): "--max-pixels: '0' is not a whole number of at least 1",
    (*PREDICT, '--min-share', '200'): "--min-share: '200' is not a share in percent, 0 to 100",
    (*PREDICT, '--min-share', 'few'): "--min-share: 'few' is not a share in percent, 0 to 100",
    (*PREDICT, '--batch-size', '0'): "--batch-size: '0' is not a whole number of at least 1",
    (*PREDICT, '--batch-size', 'two'): "--batch-size: 'two' is not a whole number of at least 1",
    (*PREDICT, '--batch-size', '9' * 5000): f"--batch-size: '{'9' * 20}…' is not a whole number of at least 1",
    (*PREDICT, '--max-pixels', '9' * 20): f"--max-pixels: '{'9' * 20}' is not a whole number of at least 1",
    (*PREDICT, '-o', ''): '-o/--output: an empty text is no folder; name a folder to write to',
    (*PREDICT, '-o', 'a-file'): '-o/--output: a-file is not a folder; name a folder to write to',
    (*PREDICT, '-o', 'a-file/sub/folder'): '-o/--output: a-file is not a folder; name a folder to write to',
    (*PREDICT, '-o', 'a-link'): '-o/--output: a-link is not a folder; name a folder to write to',
    (*PREDICT, '-o', '/proc/x'): f'-o/--output: /proc/x {UNWRITABLE}',
    (*PREDICT, '-o', '/proc/x/y/'): f'-o/--output: /proc/x/y/ {UNWRITABLE}',
    (*EVAL, '--json', '/proc/x'): f'--json: /proc/x {UNWRITABLE}',
    ('verify', 'demo', '-o', '/proc/x'): f'-o/--output: /proc/x {UNWRITABLE}',
    ('check-data', '.', '--picture', '/proc/x/y.png'): f'--picture: /proc/x/y.png {UNWRITABLE}',
    (*EVAL, '--limit', '0'): "--limit: '0' is not a whole number of at least 1",
    (*EVAL, '--batch-size', '-2'): "--batch-size: '-2' is not a whole number of at least 1",
    (*EVAL, '--workers', '-1'): "--workers: '-1' is not a whole number of at least 0",
    (*EVAL, '--workers', '100000'): "--workers: '100000' is not a number of processes, 256 at most",
    ('verify', 'demo', '--processes', '257'): "--processes: '257' is not a number of processes, 256 at most",
    ('check-data', '.', '-j', '9' * 9): "-j/--jobs: '999999999' is not a number of processes, 256 at most",
    (*EVAL, '--mode', 'slide', '--crop-size', '8', '8'): f"--crop-size: '8' {SIDE}",
    (*EVAL, '--mode', 'slide', '--stride', '0', '0'): "--stride: '0' is not a whole number of at least 1",
    (*EVAL, '--scales', '1', '0'): "--scales: '0' is not a factor above 0, 10 at most",
    (*EVAL, '--scales', 'nan'): "--scales: 'nan' is not a factor above 0, 10 at most",
    (*EVAL, '--scales', '1000'): "--scales: '1000' is not a factor above 0, 10 at most",
    (
        *EVAL,
        '--json',
        'none/values.json',
    ): '--json: none/values.json cannot be written: there is no folder none; make it first',
    (*EVAL, '--json', '.'): '--json: . is a folder; name a file',
    (
        *EVAL,
        '--confusion',
        'none/classes.png',
    ): '--confusion: none/classes.png cannot be written: there is no folder none; make it first',
    ('export', 'demo', '--opset', '99'): "--opset: '99' is not an operator set from 16 to 23",
    ('export', 'demo', '--opset', '7'): "--opset: '7' is not an operator set from 16 to 23",
    ('export', 'demo', '--format', 'onxx'): "--format: 'onxx' is not one of onnx, openvino; did you mean onnx?",
    ('export', 'demo', '--gives', 'clases'): "--gives: 'clases' is not one of logits, classes; did you mean classes?",
    ('export', 'demo', '--size', '8', '8'): f"--size: '8' {SIDE}",
    ('export', 'demo', '-o', 'a-file'): '-o/--output: a-file is not a folder; name a folder to write to',
    ('train', 'demo', '--epochs', '9' * 14): "--epochs: '99999999999999' is not a number of epochs, 1,000,000 at most",
    ('check-data', '.', '--ignore-index', '256'): "--ignore-index: '256' is not a value of a label map, 0 to 255",
    ('check-data', '.', '--ignore-index', '-5'): "--ignore-index: '-5' is not a value of a label map, 0 to 255",
    ('fetch', 'b0', '--to', 'a-file'): '--to: a-file is not a folder; name a folder to write to',
    ('predict', 'photo.jpg'): 'the following arguments are required: --model',
}
REFUSED = {
    ('predict', 'nope.jpg', '--model', 'demo'): 'nope.jpg: no such file',
    ('predict', '', '--model', 'demo'): "'': an empty text names no image",
    ('predict', 'nope*.jpg', '--model', 'demo'): 'nope*.jpg: nothing matches this pattern',
    ('predict', 'empty', '--model', 'demo'): 'empty: no images in this folder (videos are named, or matched: "*.mp4")',
    ('predict', 'photo.jpg', '--model', 'b9'): f'b9: no such directory, and neither a hub id such as {PUBLISHED} nor '
    'one of b0, b1, b2, b3, b4, b5, demo',
    ('predict', 'photo.jpg', '--model', ''): f"'': no such directory, and neither a hub id such as {PUBLISHED} nor "
    'one of b0, b1, b2, b3, b4, b5, demo',
    (
        'predict',
        'photo.jpg',
        '--model',
        'a-folder/weights.pt',
    ): 'a-folder/weights.pt is a file; name a model directory: a folder with a configuration.json and weights',
    (
        'export',
        'demo',
        '--batch',
        '2',
    ): '--batch goes with --size or --image-size only: add that, or leave --batch out',
    (
        'export',
        'demo',
        '--fp16',
        '--opset',
        '16',
    ): '--fp16 goes with --opset 17 or later only; leave --opset out',
    (
        'export',
        'demo',
        '--format',
        'openvino',
        '--gives',
        'classes',
    ): '--gives classes goes with --format onnx only: add that, or leave --gives classes out',
    (
        'export',
        'demo',
        '--image-size',
        '480',
        '640',
    ): '--image-size goes with --gives classes only: add that, or leave --image-size out',
    (
        'export',
        'demo',
        '--gives',
        'classes',
        '--size',
        '64',
        '64',
        '--image-size',
        '480',
        '640',
    ): '--size and --image-size: the first follows from the second; leave one of them out',
    (
        'export',
        'demo',
        '--format',
        'openvino',
        '--opset',
        '18',
    ): '--opset goes with --format onnx only: add that, or leave --opset out',
    (
        'predict',
        'photo.jpg',
        '--model',
        '.',
    ): 'configuration.json: no such file; a model directory needs its configuration.json',
    ('eval', '--model', 'demo', '--data', 'nowhere'): 'nowhere: no such file or folder',
    (
        *EVAL,
        '--mode',
        'whole',
        '--crop-size',
        '64',
        '64',
    ): '--crop-size without --mode slide, which alone has windows: add it, or leave --crop-size out',
    (
        *EVAL,
        '--stride',
        '9',
        '9',
    ): '--stride without --mode slide, which alone has windows: add it, or leave --stride out',
    (
        *EVAL,
        '--mode',
        'slide',
        '--crop-size',
        '64',
        '64',
    ): "--mode slide needs --crop-size H W and --stride H W: the model's test_cfg has none",
    (
        *EVAL,
        '--mode',
        'slide',
        '--crop-size',
        '32',
        '32',
        '--stride',
        '33',
        '9',
    ): 'windows of 32×32 pixels (crop size) with a stride of 33×9, which would leave gaps; accepted: a stride of at '
    'most the window',
    (
        *EVAL,
        '--mode',
        'slide',
        '--crop-size',
        '512',
        '512',
        '--stride',
        '1',
        '1',
    ): 'windows of 512×512 pixels (crop size) with a stride of 1×1, for which each pixel would be computed up to '
    '262,144 times; accepted: a stride of at least 1/8 of the window',
    (
        *EVAL,
        '--mode',
        'slide',
        '--crop-size',
        '9999',
        '9999',
        '--stride',
        '9999',
        '9999',
    ): 'windows of 9999×9999 pixels (crop size); accepted: sides of at least 29, and 16,777,216 pixels at most',
}


UNREACHABLE = [  # without a network; `info` asks for none
    ['predict', 'photo.jpg', '--model', 'damo/nope'],
    ['eval', '--model', 'damo/nope', '--data', '.'],
    ['export', 'damo/nope'],
    ['train', 'damo/nope', '--data', '.'],
    ['fetch', 'damo/nope'],
    ['fetch', 'damo/nope', '--to', 'here'],
]


@pytest.fixture(scope='module')
def said(tmp_path_factory):
    """What is said of a command line: (exit code, errors, whether torch was imported); there is no network."""
    folder, home = tmp_path_factory.mktemp('mistakes'), tmp_path_factory.mktemp('home')
    for name in ('a-file', 'photo.jpg'):
        (folder / name).write_bytes(b'something')
    (folder / 'empty').mkdir()
    (folder / 'a-folder').mkdir()
    (folder / 'a-folder' / 'weights.pt').write_bytes(b'something')
    (folder / 'a-link').symlink_to('nowhere')
    with socket.socket() as nobody_listens:
        nobody_listens.bind(('127.0.0.1', 0))
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith('_proxy')}
        environment |= {
            'HOME': str(home),
            'MODELSCOPE_CACHE': str(home),
            'PYTHONPATH': str(ROOT),
            'MODELSCOPE_ENDPOINT': f'http://127.0.0.1:{nobody_listens.getsockname()[1]}',
        }
        lines = [*map(list, USAGE), *map(list, REFUSED), *UNREACHABLE]
        done = subprocess.run(
            [sys.executable, '-c', RUN, json.dumps(lines)],
            cwd=folder,
            env=environment,
            text=True,
            capture_output=True,
            check=True,
        )
    assert sorted(os.listdir(folder)) == ['a-file', 'a-folder', 'a-link', 'empty', 'photo.jpg']
    results = dict(zip(map(tuple, lines), json.loads(done.stdout.splitlines()[-1]), strict=True))
    return lambda words: tuple(results[tuple(words)])


@pytest.mark.parametrize('words', USAGE, ids=' '.join)
def test_a_wrong_command_line(said, words):
    assert said(words) == (2, f'error: {USAGE[words]} (see ms-segformer {words[0]} --help)\n', False)


@pytest.mark.parametrize('words', REFUSED, ids=' '.join)
def test_what_cannot_be_done_is_known_before_the_model_is_loaded(said, words):
    code, printed, torch = said(words)
    assert (code, printed.splitlines()[-1], torch) == (1, f'error: {REFUSED[words]}', False)


@pytest.mark.parametrize('words', UNREACHABLE, ids=' '.join)
def test_a_model_that_is_not_here_is_not_waited_for(said, words):
    if not find_spec('modelscope_hub'):
        pytest.skip('ModelScope without a hub client of its own brings torch, and does not read MODELSCOPE_ENDPOINT')
    code, printed, torch = said(words)
    assert (code, printed.count('\n'), torch) == (1, 1, False)
    assert printed.startswith(
        'error: damo/nope (revision master) is not in the cache of this machine, and the hub http://127.0.0.1:'
    )


@pytest.mark.parametrize('place', ['/dev/stdout', '/dev/null', '-', 'new.json', 'old.json', 'link.json', 'pipe'])
def test_where_a_file_can_be_written(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('old.json').write_text('old')
    Path('link.json').symlink_to('old.json')
    os.mkfifo('pipe')
    before = sorted(os.listdir())
    assert output_file(place) == place
    assert sorted(os.listdir()) == before and Path('old.json').read_text() == 'old'


def test_a_full_disk_is_for_the_command_to_say(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(tempfile, 'TemporaryFile', full)
    assert output_folder(str(tmp_path / 'out')) == str(tmp_path / 'out')
