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


def one_cannot_start(number):
    if number:
        os._exit(3)
    return str


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
    with pytest.raises(ProcessError, match='3 processes died one after the other .*exit code 3'):
        list(work_in_processes(dies_at_start, range(4), 2))


def test_a_place_whose_processes_all_die_is_given_up_while_others_work():
    assert list(work_in_processes(one_cannot_start, range(300), 2)) == [str(value) for value in range(300)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason='Python 3.10 imports nothing beforehand')
def test_modules_of_the_current_folder_are_not_imported_beforehand(tmp_path):
    code = (
        'import multiprocessing.forkserver as server, os, time\n'
        'from ms_segformer.processes import prepare_processes\n'
        "prepare_processes(['colorsys'])\n"
        'pid = server._forkserver._forkserver_pid\n'
        "print(pid, 'PYTHONSAFEPATH' in os.environ, flush=True)\n"
        'time.sleep(2)\n'
    )
    (tmp_path / 'colorsys.py').write_text("open('imported', 'w')")
    (tmp_path / 'random.py').write_text("open('imported', 'w')")
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, '-P', '-c', code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    pid, left_behind = done.stdout.split()
    assert left_behind == 'False' and not done.stderr and not (tmp_path / 'imported').exists()
    until(lambda: not alive(int(pid)), 10)  # it ends with the command


def test_processes_start_where_none_can_be_forked_from(tmp_path):
    """Such as where the path of the temporary folder is too long for a socket."""
    folder = tmp_path / ('long' * 30)
    folder.mkdir()
    code = (
        'import test_processes\n'
        'from ms_segformer.processes import prepare_processes, work_in_processes\n'
        "if __name__ == '__main__':\n"
        "    prepare_processes(['colorsys'])\n"
        '    print(list(work_in_processes(test_processes.one_cannot_start, [1, 2], 1)))\n'
    )
    (tmp_path / 'script.py').write_text(code)
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(HERE), *sys.path]), 'TMPDIR': str(folder)}
    done = subprocess.run(
        [sys.executable, str(tmp_path / 'script.py')], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "['1', '2']" and not done.stderr, done.stderr


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


def alive(pid):
    """The session of a process; None where there is none, or a dead one."""
    try:
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[3]) if fields[0] != 'Z' else None


def of_session(session):
    """Processes of a session that are not dead."""
    return [int(path.name) for path in Path('/proc').glob('[0-9]*') if alive(path.name) == session]
