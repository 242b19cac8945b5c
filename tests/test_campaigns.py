"""The campaigns' frame counts what it should, and every campaign runs."""

import gc
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from forks import COMMANDS, forks

from campaigns import __main__ as campaigns
from campaigns import frame
from ms_segformer.trainers.memory import keep_freed_memory

ROOT = Path(__file__).parents[1]


class ClearError(ValueError):
    pass


def fail(error):
    raise error


def loop():
    while True:
        pass


FAULTS = {
    'another exception': (lambda: fail(KeyError('x')), 'KeyError'),
    'an error of many lines': (lambda: fail(ClearError('one\ntwo')), 'not one line'),
    'an error without words': (lambda: fail(ClearError('')), 'not one line'),
    'a crash': (lambda: os.abort(), 'ended with -6'),
    'an end': (lambda: os._exit(0), 'ended with 0'),
    'a hang': (lambda: time.sleep(60), 'ended with 1; .* may take 0.3 s'),
    'a loop': (loop, 'ended with -27; .* may take 0.3 s'),
    'memory': (lambda: [np.ones(600 << 20, np.uint8)] and None, 'MiB more memory'),
    'a socket': (lambda: socket.socket(socket.AF_UNIX).connect_ex('/nowhere') and None, 'socket.connect'),
    'code': (lambda: exec('1'), 'exec <string>'),
    'a program': (lambda: subprocess.run(['true'], check=True) and None, 'subprocess.Popen'),
    'an import': (lambda: __import__('not_there'), 'import not_there'),
}


def run(case, tmp_path, capfd, **limits):
    campaign = frame.Campaign(
        'test', lambda folder: folder, lambda random, common: ('a kind', case), (ClearError,), batch=2, **limits
    )
    tally = frame.run(campaign, tmp_path, seed=1, first=0, cases=3, seconds=60)
    return tally, capfd.readouterr().out


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_is_counted_and_named_and_the_next_case_runs(fault, tmp_path, capfd):
    case, words = FAULTS[fault]
    tally, out = run(case, tmp_path, capfd, seconds=0.3 if fault in ('a hang', 'a loop') else 60, mebibytes=100)
    assert tally.outcomes == {('a kind', 'anything else'): 3}
    assert len(re.findall(f'^case [012] .a kind.: .*{words}', out, re.MULTILINE)) == 3


def test_memory_is_seen_where_garbage_of_before_made_room_for_it(tmp_path, capfd):
    def litter():
        cycle = [np.ones(400 << 20, np.uint8)]
        cycle.append(cycle)

    def case():
        gc.collect()
        return [np.ones(300 << 20, np.uint8)] and None

    gc.disable()
    try:
        litter()
        assert run(case, tmp_path, capfd, mebibytes=100)[0].outcomes == {('a kind', 'anything else'): 3}
    finally:
        gc.enable()
        gc.collect()


def test_memory_is_seen_that_was_freed_and_kept_before(tmp_path, capfd):
    def case():
        assert keep_freed_memory()  # as a training does
        return [np.ones(600 << 20, np.uint8)] and None

    assert run(case, tmp_path, capfd, mebibytes=100)[0].outcomes == {('a kind', 'anything else'): 3}


def test_results_and_clear_errors_are_counted_apart(tmp_path, capfd):
    assert run(lambda: None, tmp_path, capfd)[0].outcomes == {('a kind', 'results'): 3}
    tally, _ = run(lambda: fail(ClearError('that is wrong')), tmp_path, capfd)
    assert tally.outcomes == {('a kind', 'clear errors'): 3}


def test_a_case_depends_on_the_seed_and_its_number_alone(tmp_path, capfd):
    drawn = tmp_path / 'drawn'

    def make(random, common):
        with open(drawn, 'a') as file:
            print(random.integers(2**40), file=file)
        return 'a kind', lambda: None

    found = []
    for first, cases, batch in ((0, 6, 4), (3, 3, 1)):
        drawn.write_text('')
        frame.run(frame.Campaign('test', lambda folder: None, make, (), batch=batch), tmp_path, 1, first, cases, 60)
        found.append(drawn.read_text().split())
    assert len(set(found[0])) == 6 and found[0][3:] == found[1]


CASES = {
    'checkpoint_fuzz': 5,
    'image_fuzz': 20,
    'label_fuzz': 20,
    'disk_full': 1,
    'concurrency': 1,
    'memory': 1,
    'configuration_fuzz': 20,
    'kernel_fuzz': 5,
    'kill_predict': 1,
    'kill_training': 1,
    'serving': 30,
}


@pytest.mark.parametrize('name', CASES)
def test_each_campaign_runs(name):
    cases = CASES[name]
    words = ['-m', f'campaigns.{name}', '--seed', '1', '--cases', cases]
    done = forks(COMMANDS).run(words, os.environ, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf'^\| all \| {cases} \| \d+ \| \d+ \| 0 \|$', done.stdout, re.MULTILINE)


def test_one_table_over_all_of_them(monkeypatch, capfd):
    monkeypatch.setattr(campaigns, 'SHARES', {'kernel_fuzz': 1, 'not_there': 1})
    monkeypatch.setattr(sys, 'argv', ['campaigns', '--seconds', '2'])
    assert campaigns.main() == 1
    out = capfd.readouterr().out
    assert re.search(r'^\| kernel_fuzz \| [1-9]\d* \| \d+ \| \d+ \| 0 \|$', out, re.MULTILINE)
    assert '| not_there | 1 | 0 | 0 | 1 |' in out and 'Without a table: not_there' in out
    done = subprocess.run([sys.executable, '-m', 'campaigns', '--help'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and '--seconds' in done.stdout


def test_what_does_not_end_is_ended(monkeypatch, capfd):
    monkeypatch.setattr(campaigns, 'SHARES', {'kernel_fuzz': 1})
    monkeypatch.setattr(campaigns, 'GRACE', -60)
    monkeypatch.setattr(sys, 'argv', ['campaigns', '--seconds', '60'])
    began = time.monotonic()
    assert campaigns.main() == 1
    assert time.monotonic() - began < 20
    assert 'Without a table: kernel_fuzz' in capfd.readouterr().out


def test_the_quick_campaigns_get_their_shares_whatever_the_slow_ones_overdraw(monkeypatch, capfd):
    clock, given = [0.0], {}

    def run(name, seed, seconds, *_):
        given[name] = seconds
        clock[0] += max(seconds, 0) + (3 if name.endswith('_fuzz') else 60)
        return [1, 0, 0]

    monkeypatch.setattr(campaigns, 'run', run)
    monkeypatch.setattr(campaigns.time, 'monotonic', lambda: clock[0])
    monkeypatch.setattr(sys, 'argv', ['campaigns', '--seconds', '600'])
    assert campaigns.main() == 0
    assert list(given) == list(campaigns.SHARES)
    for name, seconds in given.items():
        if name.endswith('_fuzz'):
            assert seconds > 0.8 * 600 * campaigns.SHARES[name] / sum(campaigns.SHARES.values())
    assert clock[0] < 600 + 2 * 60


def test_what_all_of_them_run_is_all_of_them():
    assert set(campaigns.SHARES) == set(CASES)
