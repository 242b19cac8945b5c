"""Runs `ms-segformer` in processes forked from one that has imported everything, which saves each of them seconds."""

import dataclasses
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import ms_segformer.exporters.segformer_exporter
import ms_segformer.pipelines.image_segmentation
import ms_segformer.results
import ms_segformer.trainers.easycv_trainer  # noqa: F401
from ms_segformer.cli.main import main

TRACES = ('Traceback', 'Logging error', 'Exception ignored', 'Segmentation fault')


@dataclasses.dataclass
class Ended:
    """A command that has ended: its exit code, and what it wrote to each stream."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.strip()]


def start(
    arguments: list[str],
    folder: Path,
    log: Path,
    environment: dict[str, str] | None = None,
    before: Callable[[], None] = lambda: None,
) -> int:
    """Start a command in a folder; returns its process.

    Args:
        log: what it writes goes to this path with `.out` and `.err`.
        environment: variables beside this process's.
        before: called in the new process first.
    """
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        for descriptor, suffix in ((1, '.out'), (2, '.err')):
            os.dup2(os.open(f'{log}{suffix}', os.O_CREAT | os.O_TRUNC | os.O_WRONLY), descriptor)
        os.environ.update(environment or {})
        os.chdir(folder)
        torch.set_num_threads(1)
        before()
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def finish(process: int, log: Path) -> Ended:
    """Wait for a command."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return Ended(code, *(Path(f'{log}{suffix}').read_text(errors='replace') for suffix in ('.out', '.err')))


def run(
    arguments: list[str],
    folder: Path,
    log: Path,
    environment: dict[str, str] | None = None,
    before: Callable[[], None] = lambda: None,
) -> Ended:
    """Run a command to its end."""
    return finish(start(arguments, folder, log, environment, before), log)


def tree(folder: Path) -> dict[str, bytes]:
    """Content of every file, hidden ones too, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob('*'))
        if path.is_file()
    }
