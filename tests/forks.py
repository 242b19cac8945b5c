"""Python's command line in processes forked from one that has imported what takes seconds.

As a script, this is the process to fork from: it imports the modules that are its arguments, reads lines of JSON with
what `become` takes, forks, answers with the new process's id, and writes the exit code of each into a file.
"""

import atexit
import builtins
import functools
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

# Of other projects, and the slowest ones that ModelScope imports. Whether and when, and under which variables, it and
# this package are imported is the new process's own business, as in a fresh one.
LIBRARIES = ('torch', 'torch.utils.data', 'cv2', 'transformers.modeling_utils', 'pandas', 'pyarrow.dataset', 'aiohttp')
# For commands whose tests are not about imports at all.
COMMANDS = (
    *LIBRARIES,
    'modelscope.pipelines',
    'modelscope.trainers',
    'ms_segformer.pipelines.image_segmentation',
    'ms_segformer.results',
    'ms_segformer.serving',
    'ms_segformer.trainers.evaluation',
    'ms_segformer.verification',
)


@functools.cache
def forks(modules):
    """The process with these modules, one for all tests of a process; it ends when that does."""
    made = Forks(modules)
    atexit.register(made.close)
    return made


class Forks:
    """Starts `python ARGUMENTS` with some modules imported."""

    def __init__(self, modules):
        self._folder = Path(tempfile.mkdtemp(prefix='forks-'))
        self._numbers = count()
        self._process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            env={**os.environ, 'HOME': str(self._folder), 'OMP_NUM_THREADS': '1'},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def start(self, arguments, environment, cwd=None):
        """As `subprocess.Popen` in a session of its own, with a pipe of text for each stream."""
        pipes = [self._folder / f'{next(self._numbers)}' for _ in range(2)]
        for pipe in pipes:
            os.mkfifo(pipe)
        request = {
            'arguments': list(map(str, arguments)),
            'environment': {name: str(value) for name, value in environment.items()},
            'folder': str(cwd or os.getcwd()),
            'out': str(pipes[0]),
            'err': str(pipes[1]),
        }
        self._process.stdin.write(json.dumps(request) + '\n')
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        return Forked(pid, self._folder / f'code{pid}', *(open(pipe, encoding='utf-8') for pipe in pipes))

    def run(self, arguments, environment, cwd=None, timeout=600):
        """As `subprocess.run` with the text of both streams."""
        process = self.start(arguments, environment, cwd)
        try:
            out, err = process.communicate(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def close(self):
        """End the process that is forked from."""
        self._process.stdin.close()
        self._process.wait()
        shutil.rmtree(self._folder)


class Forked:
    """A process, with what is used here of `subprocess.Popen`."""

    def __init__(self, pid, code, stdout, stderr):
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode = None
        self._code = code

    def poll(self):
        if self.returncode is None and self._code.exists():
            self.returncode = int(self._code.read_text())
            self._code.unlink()
        return self.returncode

    def wait(self, timeout=600):
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f'process {self.pid}', timeout)
            time.sleep(0.005)
        return self.returncode

    def communicate(self, timeout=600):
        with ThreadPoolExecutor(2) as readers:
            texts = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                raise
        self.stdout.close()
        self.stderr.close()
        return [text.result() for text in texts]

    def send_signal(self, number):
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended, and how is not written yet
                os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def main(modules):
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # not everything is installed everywhere
    gc.freeze()  # the memory that is shared stays so
    folder = Path(os.environ['HOME'])
    signal.signal(signal.SIGCHLD, lambda *_: note_exit_codes(folder))
    for line in sys.stdin:
        process = os.fork()
        if not process:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            become(**json.loads(line))
            return
        print(process, flush=True)


def note_exit_codes(folder):
    """Write down how processes have ended."""
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not process:
            return
        (folder / 'code').write_text(str(os.waitstatus_to_exitcode(status)))
        (folder / 'code').rename(folder / f'code{process}')


def become(arguments, environment, folder, out, err):
    """Be what `python ARGUMENTS` starts, to its end."""
    os.setsid()
    for descriptor, path, how in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        file = os.open(path, how)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # TMPDIR is asked once
    first = '' if arguments[0] in ('-c', '-m') else str(Path(arguments[0]).parent)
    sys.path[:] = [first, *filter(None, environment.get('PYTHONPATH', '').split(os.pathsep)), *sys.path[1:]]
    sys.modules.pop('sitecustomize', None)
    importlib.invalidate_caches()
    try:
        importlib.import_module('sitecustomize')
    except ModuleNotFoundError:
        pass
    if arguments[0] == '-c':
        sys.argv = ['-c', *arguments[2:]]
        script = types.ModuleType('__main__', None)
        script.__builtins__ = builtins
        sys.modules['__main__'] = script
        exec(compile(arguments[1], '<string>', 'exec'), script.__dict__)
    elif arguments[0] == '-m':
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name='__main__', alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name='__main__')


if __name__ == '__main__':
    main(sys.argv[1:])
