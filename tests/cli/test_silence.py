"""Nothing leaves the machine and nothing is installed: every command with every engine, watched from the first line.

One process runs them all under an audit hook, which PYTHONPATH also puts into every process it starts. Native code does
not pass the hook; what ONNX Runtime and OpenVINO would write for what they send is found by the files it leaves.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hub.coco_stuff import make_pairs

from ms_segformer.engines.cache import cache_dir

ROOT = Path(__file__).parents[2]

# Notes, in a child process and its children: (command, event, what), one JSON list a line.
WATCH = """
import json, os, sys

EVENTS = {'socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto', 'socket.bind',
          'subprocess.Popen', 'os.fork', 'os.forkpty', 'os.posix_spawn', 'os.system', 'os.exec'}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def note(event, what):
    line = json.dumps([os.environ.get('COMMAND', ''), event, what]) + '\\n'
    descriptor = os.open(os.environ['NOTED'], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)

def watch(event, args):
    if event in EVENTS:
        note(event, repr(args[1] if event in ('socket.connect', 'socket.bind', 'socket.sendto') else args[:2]))
    elif event == 'import' and args[0].split('.')[0] in ('pip', 'ensurepip'):
        note(event, args[0])
    elif event == 'open' and isinstance(args[2], int) and args[2] & WRITING and isinstance(args[0], (str, bytes)):
        path = os.path.abspath(os.fsdecode(args[0]))
        if not (path + os.sep).startswith((os.environ['WORK'] + os.sep, '/dev/null')):  # itself: a file without a name
            note(event, path)

sys.addaudithook(watch)
"""

# Runs commands, given as JSON, in one process.
COMMANDS = """
import json, os, sys

os.environ['COMMAND'] = 'import'
import ms_segformer
import modelscope.pipelines, modelscope.trainers
from ms_segformer.cli.main import main

for words in json.loads(sys.argv[1]):
    os.environ['COMMAND'] = ' '.join(words)
    code = main(words)
    assert code == 0, (words, code)
"""

# What is noted although all is well, by name: (start of the command, event, part of what is noted).
ALLOWED = [
    ('', 'socket.bind', "('::1', 0)"),  # urllib3, on import, asks whether the machine has IPv6
    ('', 'subprocess.Popen', "['/sbin/ldconfig', '-p']"),  # on import torch's builds for CUDA look for libdl ...
    ('', 'os.posix_spawn', "['/sbin/ldconfig', '-p']"),  # ... and Python 3.13 starts it so
    ('train', 'os.fork', '()'),  # the loading process that `workers_per_gpu=1` asks for ...
    ('train', 'socket.bind', 'pymp-'),  # ... and torch's way to it: a UNIX socket in TMPDIR
    ('train', 'socket.connect', 'pymp-'),
    ('info', 'subprocess.Popen', "('uname', ['uname', '-p'])"),  # Python's own `platform`
]
# torch.compile starts the C++ compiler, tries in processes of Python which instructions the processor has, has openssl
# make a digest of the preprocessed header, and keeps what it compiled in TMPDIR.
COMPILER = [('predict', 'subprocess.Popen', part) for part in ("'g++'", 'cdll.LoadLibrary', "'openssl', 'sha")]


@pytest.fixture
def watched(tmp_path):
    """Runs Python under the hook with a fresh home and TMPDIR; returns what was noted, and the files in the two."""
    for name in ('site', 'home', 'tmp'):
        (tmp_path / name).mkdir()
    (tmp_path / 'site' / 'sitecustomize.py').write_text(WATCH)
    noted = tmp_path / 'noted.jsonl'

    def run(*arguments):
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(('MODELSCOPE_', 'MS_SEGFORMER_', 'ORT_', 'XDG_')) and name != 'CI'
        }
        environment.update(
            HOME=str(tmp_path / 'home'),
            TMPDIR=str(tmp_path / 'tmp'),
            NOTED=str(noted),
            WORK=str(tmp_path),
            OMP_NUM_THREADS='1',
            PYTHONDONTWRITEBYTECODE='1',
            PYTHONPATH=os.pathsep.join(filter(None, [str(tmp_path / 'site'), str(ROOT), os.environ.get('PYTHONPATH')])),
        )
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=1200,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        lines = noted.read_text().splitlines() if noted.exists() else []
        files = [
            str(path.relative_to(tmp_path))
            for name in ('home', 'tmp')
            for path in (tmp_path / name).rglob('*')
            if path.is_file()
        ]
        return [tuple(json.loads(line)) for line in lines], files

    return run


def not_allowed(noted, allowed):
    return [
        (command, event, what)
        for command, event, what in noted
        if not any(command.startswith(start) and event == known and part in what for start, known, part in allowed)
    ]


def test_the_hook_sees_children_lookups_and_files(watched, tmp_path):
    """Without this the others could not fail."""
    noted, files = watched(
        '-c',
        """
        import os, subprocess, sys, tempfile
        child = 'import pip, socket; socket.getaddrinfo("127.0.0.1", 80); open("../elsewhere.txt", "w").close()'
        subprocess.run([sys.executable, "-c", child], check=True)
        os.close(tempfile.mkstemp()[0])
    """.replace('\n        ', '\n'),
    )
    (tmp_path.parent / 'elsewhere.txt').unlink()
    assert {event for _, event, _ in noted} >= {'subprocess.Popen', 'socket.getaddrinfo', 'import', 'open'}
    assert len(files) == 1 and files[0].startswith('tmp/')


# Old releases of transformers, which old releases of ModelScope import, note the version of their cache.
OF_TRANSFORMERS = ['home/.cache/huggingface/hub/version.txt']


def commands(tmp_path, model, engines):
    """Command lines; models are named by relative paths, which look like the hub's ids."""
    make_pairs(tmp_path / 'pairs', count=2)
    shutil.copytree(model, tmp_path / 'tiny' / 'model')
    photo = tmp_path / 'photo.jpg'
    shutil.copy(tmp_path / 'pairs' / 'val2017' / '000000000000.jpg', photo)
    small = {
        'type': 'MMMultiScaleFlipAug',
        'img_scale': [64, 48],
        'flip': False,
        'transforms': [
            {'type': 'MMResize'},
            {'type': 'MMNormalize', 'mean': [123.7, 116.3, 103.5], 'std': [58.4, 57.1, 57.4]},
            {'type': 'ImageToTensor', 'keys': ['img']},
            {'type': 'Collect', 'keys': ['img']},
        ],
    }
    yield [
        'train',
        'tiny/model',
        '--data',
        'pairs',
        '--work-dir',
        'run',
        '--epochs',
        '1',
        '--device',
        'cpu',
        '--batch-size',
        '2',
        '--options',
        'train.dataloader.workers_per_gpu=1',
        'evaluation.dataloader.workers_per_gpu=0',
        f'dataset.val.pipeline={json.dumps([small])}',
    ]
    yield ['predict', str(photo), '--model', 'demo', '-o', 'demo', '--device', 'cpu']
    for engine in set(engines) - {'nncf'}:
        yield ['predict', str(photo), '--model', 'run/output', '-o', f'out-{engine}', '--engine', engine]
        yield ['eval', '--model', 'run/output', '--data', 'pairs', '--engine', engine, '--device', 'cpu']
    for kind in {'openvino', 'onnx'} & {'onnx' if engine == 'onnxruntime' else engine for engine in engines}:
        yield ['export', 'run/output', '-o', 'exported', '--format', kind]
    if {'openvino', 'nncf'} <= set(engines):
        yield ['quantize', 'run/output', '--images', 'pairs/train2017', '-o', 'int8']
        yield ['predict', str(photo), '--model', 'int8', '-o', 'out-int8', '--precision', 'int8', '--device', 'cpu']
    yield ['info', 'run/output']


def test_every_command_is_silent(watched, tmp_path, tiny_model_dir):
    engines = ['torch', *filter(find_spec, ('openvino', 'onnxruntime', 'nncf'))]
    noted, files = watched('-c', COMMANDS, json.dumps(list(commands(tmp_path, tiny_model_dir, engines))))
    assert not_allowed(noted, ALLOWED) == []
    folder = Path('home', '.cache', 'ms-segformer', cache_dir().name)
    known = OF_TRANSFORMERS if find_spec('modelscope_hub') is None else []
    assert [file for file in files if Path(file).parent != folder and file not in known] == []
    assert files or engines == ['torch'], 'compiled networks are the one thing that is kept'


@pytest.mark.skipif(
    'MS_SEGFORMER_SLOW_TESTS' not in os.environ, reason='compiles for minutes; MS_SEGFORMER_SLOW_TESTS=1 runs it'
)
def test_torch_compile_starts_a_compiler_and_nothing_else(watched, tmp_path, tiny_model_dir):
    photo = tmp_path / 'photo.jpg'
    shutil.copy(ROOT / 'assets' / 'china.jpg', photo)
    words = ['predict', str(photo), '--model', str(tiny_model_dir), '-o', 'out', '--engine', 'torch-compile']
    noted, files = watched('-c', COMMANDS, json.dumps([words]))
    assert not_allowed(noted, ALLOWED + COMPILER) == []
    assert any("'g++'" in what for _, _, what in noted)
    assert [file for file in files if not file.startswith('tmp/torchinductor_')] == []


@pytest.mark.skipif(not find_spec('openvino') or not find_spec('onnxruntime'), reason='needs OpenVINO, ONNX Runtime')
def test_what_the_user_does_with_the_imported_runtimes_stays_silent_too(watched, tiny_model_dir):
    """Switches that are undone after the import: a session, a conversion, the user's own import of the telemetry."""
    noted, files = watched(
        '-c',
        f"""
import os
before = dict(os.environ)
from ms_segformer.engines.silent_import import import_onnxruntime, import_openvino
openvino, onnxruntime = import_openvino(), import_onnxruntime()
assert dict(os.environ) == before
import openvino_telemetry
from modelscope.models import Model
from ms_segformer.engines.onnx_graph import write_onnx
write_onnx(Model.from_pretrained({str(tiny_model_dir)!r}), 'network.onnx', shape=(1, 3, 64, 64), dynamic=False)
converted = openvino.convert_model('network.onnx')
openvino.save_model(converted, 'network.xml')
openvino.Core().compile_model(converted, 'CPU')
onnxruntime.InferenceSession('network.onnx', providers=['CPUExecutionProvider'])
""",
    )
    assert not_allowed(noted, ALLOWED) == [] and files == []
