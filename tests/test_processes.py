"""Work that several processes share out."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from serving_process import until

from ms_segformer.processes import Died, ProcessError, work_in_processes

HERE = Path(__file__).parent


def doubling(folder, number):
    """Doubles numbers; what 'kill' stands before kills its process, 'once' only if it has not been here before."""

    def work(item):
        kind, value = item
        marker = Path(folder, f'{value}')
        again = marker.exists()
        marker.touch()
        time.sleep(0.02 * (value % 3))
        if kind == 'kill' or (kind == 'kill once' and not again):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == 'fail':
            raise ValueError(f'{value} is not even\nand so on')
        return 2 * value, number

    return work


def dies_at_start(number):
    os._exit(3)


def fails_at_start(number):
    raise FileNotFoundError('model: no such folder')


def slow(number):
    """Works on each item for a second."""
    return time.sleep


@pytest.mark.parametrize('processes', [1, 3])
def test_what_becomes_of_items_comes_in_their_order(tmp_path, processes):
    found = list(work_in_processes(partial(doubling, tmp_path), [('', value) for value in range(40)], processes))
    assert [value for value, _ in found] == [2 * value for value in range(40)]
    assert {number for _, number in found} == set(range(processes))


def test_an_item_whose_process_dies_is_tried_once_more_and_takes_no_other_with_it(tmp_path):
    kinds = {3: 'kill once', 7: 'kill', 8: 'kill once', 19: 'kill'}
    items = [(kinds.get(value, ''), value) for value in range(20)]
    found = list(work_in_processes(partial(doubling, tmp_path), items, 2))
    assert [value for value, each in enumerate(found) if isinstance(each, Died)] == [7, 19]
    assert found[7].code == -signal.SIGKILL and str(found[7]).startswith(
        'the process that worked on it died 2 times (signal 9)'
    )
    assert [each[0] for value, each in enumerate(found) if value not in (7, 19)] == [
        2 * value for value in range(20) if value not in (7, 19)
    ]


def test_an_error_of_the_work_itself_is_raised_in_a_line(tmp_path):
    items = [('fail' if value == 5 else '', value) for value in range(9)]
    with pytest.raises(ProcessError, match='^ValueError: 5 is not even and so on$'):
        list(work_in_processes(partial(doubling, tmp_path), items, 2))


def test_what_cannot_start_is_an_error():
    with pytest.raises(ProcessError, match='^model: no such folder$'):
        list(work_in_processes(fails_at_start, range(4), 2))
    with pytest.raises(ProcessError, match='3 processes died one after the other .*exit code 3.*fewer --processes'):
        list(work_in_processes(dies_at_start, range(4), 2))


def test_items_are_taken_as_they_are_needed(tmp_path):
    taken = []

    def items():
        for value in range(10_000):
            taken.append(value)
            yield '', value

    work = work_in_processes(partial(doubling, tmp_path), items(), 2)
    for value, (double, _) in enumerate(islice(work, 30)):
        assert double == 2 * value and len(taken) <= value + 1 + 8 * 2
    work.close()


def test_nothing_to_do_is_no_error(tmp_path):
    assert list(work_in_processes(partial(doubling, tmp_path), [], 2)) == []


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from ms_segformer.processes import work_in_processes
import test_processes

if __name__ == '__main__':
    print('started', flush=True)
    for _ in work_in_processes(test_processes.slow, [0] * 4 + [1000] * 4, 2):
        print('one', flush=True)
"""


def started(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT.format(tests=str(HERE)))
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for line in ['started', *['one'] * 4]:
        assert process.stdout.readline().strip() == line
    return process


@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='finds processes in /proc')
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_the_one_that_has_started_it(tmp_path, number):
    process = started(tmp_path)
    session = [pid for pid in of_session(process.pid) if pid != process.pid]
    assert len(session) >= 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    until(lambda: not of_session(process.pid), 60)
    assert err.count('Traceback') == (1 if number == signal.SIGINT else 0), err


def of_session(session):
    """Processes of a session that are not dead."""
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = path.read_text().rpartition(')')[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != 'Z':
            found.append(int(path.parent.name))
    return found
