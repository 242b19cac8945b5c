"""What the campaigns have in common: arguments, cases in child processes under limits, the table at the end.

A campaign says how its cases are made, and which exceptions are clear errors:

    CAMPAIGN = Campaign('images', prepare, make, errors=(ImageError,))

    if __name__ == '__main__':
        sys.exit(main(CAMPAIGN))

`prepare(folder)` runs once: it may write files there, and returns what the cases have in common. `make(random, common)`
makes one case, `(kind, run)`, drawing from a `numpy.random.Generator` that depends on the seed and the number of the
case alone.
`run()` is what is judged. It returns None, or words for what came out ('as it was'); both count as a result. It raises
one of the campaign's errors, in one line: a clear error. Everything else is 'anything else': another exception, an end
of the process, more time or memory than the limits, code run, a socket, a module imported that no case should need.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import faulthandler
import gc
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
TINY_MODEL = ROOT / 'tests' / 'data' / 'tiny_model'
COLUMNS = ('results', 'clear errors', 'anything else')
EXITED = 70  # exit code of a child process after a fault of the campaign itself
PATIENCE = 6  # a machine may be that busy with other things
LONGEST_MESSAGE = 8000  # characters of a clear error
HEADROOM = 4096  # MiB of addresses beyond those in use: what asks for more gets a MemoryError, and the machine lives
FORBIDDEN = (
    'os.system',
    'os.exec',
    'os.posix_spawn',
    'os.fork',
    'subprocess.Popen',
    'pickle.find_class',
    'socket.connect',
    'socket.bind',
    'socket.getaddrinfo',
    'socket.sendto',
    'webbrowser.open',
)

SOURCES = (f'{ROOT / "ms_segformer"}/', '<frozen', f'{Path(os.__file__).parent}/', f'{Path(np.__file__).parents[1]}/')

Run = Callable[[], str | None]


@dataclasses.dataclass(frozen=True)
class Campaign:
    """How cases are made and judged; the module's docstring says what the functions do.

    Attributes:
        name: a word or two for the table.
        prepare: called once with an empty folder, before any case; returns what the cases have in common.
        make: called with a generator and that; returns the kind of the case and what runs it.
        errors: exceptions that are clear errors when their message is one line.
        cases: how many there are by default.
        seconds: of the processor's time that a case may take, and six times that on the clock.
        mebibytes: a case may add to the memory of its process.
        batch: cases that one process runs.
        watched: whether code, sockets, processes and imports count; False where a case needs them.
        headroom: whether the address space is bounded as well; False where a case reserves much and uses little.
    """

    name: str
    prepare: Callable[[Path], Any]
    make: Callable[[np.random.Generator, Any], tuple[str, Run]]
    errors: tuple[type[Exception], ...]
    cases: int = 1000
    seconds: float = 10
    mebibytes: int = 1024
    batch: int = 200
    watched: bool = True
    headroom: bool = True


@dataclasses.dataclass
class Tally:
    """What came out: counts by (kind, outcome), where an outcome is one of `COLUMNS`, and the words of results."""

    outcomes: Counter = dataclasses.field(default_factory=Counter)
    words: Counter = dataclasses.field(default_factory=Counter)

    def add(self, kind: str, outcome: str, word: str | None = None) -> None:
        self.outcomes[kind, outcome] += 1
        if word:
            self.words[word] += 1

    def total(self, outcome: str | None = None) -> int:
        return sum(count for (_, found), count in self.outcomes.items() if outcome in (None, found))

    def table(self) -> str:
        """Markdown, a row for each kind of case and one for all of them."""
        rows = [
            (kind, *(self.outcomes[kind, column] for column in COLUMNS))
            for kind in sorted({kind for kind, _ in self.outcomes})
        ]
        rows.append(('all', *(self.total(column) for column in COLUMNS)))
        text = markdown('kind', rows)
        if self.words:
            text += '\n\nOf the results ' + ', '.join(f'{count} {word}' for word, count in self.words.most_common())
        return text


def markdown(first: str, rows: list[tuple]) -> str:
    """A table of (name, results, clear errors, anything else), with their sum as 'tried'."""
    lines = [(first, 'tried', *COLUMNS), ('-',) * 5, *((name, sum(counts), *counts) for name, *counts in rows)]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


def arguments(description: str, cases: int) -> argparse.ArgumentParser:
    """The options that every campaign takes."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--cases', type=int, default=cases, help=f'default: {cases}')
    parser.add_argument('--seconds', type=float, default=float('inf'), help='no new case after this time')
    parser.add_argument('--first', type=int, default=0, help='number of the first case, to see one again')
    parser.add_argument('--record', type=Path, help=argparse.SUPPRESS)  # for `python -m campaigns`
    return parser


def main(campaign: Campaign, argv: list[str] | None = None) -> int:
    """Run a campaign from the command line; returns 1 when there was anything but results and clear errors."""
    args = arguments(campaign.name, campaign.cases).parse_args(argv)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='ms-segformer-campaign-') as folder:
        tally = run(campaign, Path(folder), args.seed, args.first, args.cases, args.seconds)
    return finish(campaign.name, tally, args, time.monotonic() - started)


def finish(name: str, tally: Tally, args: argparse.Namespace, seconds: float) -> int:
    """Print the table; write the counts where `python -m campaigns` reads them; returns the exit code."""
    print(f'{name}, seed {args.seed}, {tally.total()} cases in {seconds:.0f} s\n\n{tally.table()}', flush=True)
    if args.record:
        args.record.write_text(json.dumps([tally.total(column) for column in COLUMNS]))
    return 1 if tally.total('anything else') or not tally.total() else 0


def run(campaign: Campaign, folder: Path, seed: int, first: int, cases: int, seconds: float) -> Tally:
    """Run cases `first` to `first + cases` in processes forked from this one; one that dies costs the case it was at.

    Args:
        folder: where files may be made.
        seconds: no new case after this time, of which `prepare` takes its part.
    """
    tally, number, end = Tally(), first, time.monotonic() + seconds
    common = campaign.prepare(folder)
    while number < first + cases and (number == first or time.monotonic() < end):  # at least one
        stop = min(number + campaign.batch, first + cases)
        number = _batch(campaign, common, seed, number, stop, end, tally)
    return tally


def _batch(campaign: Campaign, common: Any, seed: int, start: int, stop: int, end: float, tally: Tally) -> int:
    """Run cases in one child process; returns the number of the next case."""
    receiving, sending = os.pipe()
    sys.stdout.flush()
    process = os.fork()
    if not process:
        code = EXITED
        try:
            os.close(receiving)
            with open(sending, 'w') as pipe:
                _work(
                    campaign,
                    common,
                    seed,
                    range(start, stop),
                    end,
                    lambda *line: print(json.dumps(line), file=pipe, flush=True),
                )
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(sending)
    number, running = start, None
    with open(receiving) as pipe:
        for line in pipe:
            what, *found = json.loads(line)
            if what == 'case':
                running = found[0]
            else:
                _count(tally, running, number, *found)
                number, running = number + 1, None
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if running is not None:
        _count(
            tally,
            running,
            number,
            'anything else',
            f'the process ended with {code}; its last words stand above (a case may take {campaign.seconds:g} s)',
        )
        return number + 1
    if code:
        raise RuntimeError(f'case {number} could not be made; the reason stands above')
    return number


def _count(tally: Tally, kind: str, number: int, outcome: str, word: str | None) -> None:
    tally.add(kind, outcome, word if outcome == 'results' else None)
    if outcome == 'anything else':
        print(f'case {number} ({kind}): {word}', flush=True)


def _work(campaign: Campaign, common: Any, seed: int, numbers: range, end: float, tell: Callable[..., None]) -> None:
    """Run cases in this process, telling of each before and after."""
    warnings.simplefilter('ignore')
    faulthandler.enable()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    faulthandler.register(signal.SIGPROF, chain=True)  # says where it is, then the process ends
    noted = []
    gc.collect()
    gc.freeze()  # what was there before is not looked through again for every case
    if campaign.watched:
        logging.disable()
        noted = watch()
    for number in numbers:
        if time.monotonic() > end and number > numbers.start:
            return
        kind, case = campaign.make(np.random.default_rng([seed, number]), common)
        tell('case', kind)
        tell('outcome', *_judge(campaign, case, noted))


def _judge(campaign: Campaign, case: Run, noted: list[str]) -> tuple[str, str | None]:
    """Run a case under the limits; returns its outcome and words for it."""
    if campaign.headroom:
        resource.setrlimit(resource.RLIMIT_AS, ((memory('VmSize') + HEADROOM) << 20, resource.RLIM_INFINITY))
    _give_back()
    _forget_peak()
    before = memory('VmRSS')
    noted.clear()
    faulthandler.dump_traceback_later(PATIENCE * campaign.seconds, exit=True)
    signal.setitimer(signal.ITIMER_PROF, campaign.seconds)
    try:
        outcome = 'results', case()
    except campaign.errors as error:
        outcome = _clear(error)
    except Exception as error:
        traceback.print_exc()
        outcome = 'anything else', f'{type(error).__name__}: {str(error)[:300]}'
    signal.setitimer(signal.ITIMER_PROF, 0)
    faulthandler.cancel_dump_traceback_later()
    seen, grown = list(noted), memory('VmHWM') - before
    if campaign.headroom:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if seen:
        return 'anything else', f'ran or opened: {seen[:3]}'
    if grown > campaign.mebibytes:
        gc.collect()
        return 'anything else', f'{grown} MiB more memory (then: {outcome[1] or outcome[0]})'
    return outcome


def _clear(error: Exception) -> tuple[str, str]:
    text = str(error)
    clear = text.strip() and '\n' not in text and len(text) <= LONGEST_MESSAGE
    if clear:
        return 'clear errors', text
    return 'anything else', f'{type(error).__name__}, not one line: {text[:300]!r}'


def watch() -> list[str]:
    """Note from now on, in a list that is returned, what no case should do; an audit hook stays for the process.

    Those are code that is run but for modules being imported, other programs, sockets, and imports of
    modules whose package is not loaded yet.
    """
    noted: list[str] = []

    def hook(event: str, args: tuple) -> None:
        if event in FORBIDDEN:
            noted.append(f'{event} {args[0]!r}'[:200])
        elif event == 'import' and args[0].partition('.')[0] not in sys.modules:
            noted.append(f'import {args[0]}')
        elif event == 'exec' and not args[0].co_filename.startswith(SOURCES):
            noted.append(f'exec {args[0].co_filename}')

    sys.addaudithook(hook)
    return noted


def _give_back() -> None:
    """Return to the system what is free in this process: a case could take that, and nobody would see it grow."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _forget_peak() -> None:
    """Let the peak of this process's memory begin at what it is now (Linux)."""
    try:
        with open('/proc/self/clear_refs', 'w') as file:
            file.write('5')
    except OSError:  # then the peak is that of the process, which may only be larger
        pass


def memory(field: str) -> int:
    """A line of /proc/self/status in MiB."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith(f'{field}:'))
