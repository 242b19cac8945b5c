"""All campaigns, one after another, within a time; their tables, and one over all of them.

    python -m campaigns --seed 1 --seconds 600

Each ends between two cases when its share is over, and has at least one case. What is still running `GRACE` seconds
after the whole time is ended, and counts as a fault.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from campaigns.frame import ROOT, markdown

# Shares of the time. Those of quick cases come first, and keep to theirs; one case of the others may take a minute, so
# they overdraw only what is left for each other.
SHARES = {
    'kernel_fuzz': 4,
    'checkpoint_fuzz': 8,
    'configuration_fuzz': 8,
    'label_fuzz': 6,
    'image_fuzz': 12,
    'kill_predict': 9,
    'kill_training': 13,
    'disk_full': 12,
    'concurrency': 15,
    'memory': 13,
    'serving': 12,
}
STARTING = 8  # seconds that the start of each takes, beside its share
GRACE = 600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=600, help='for all of them together; default: 600')
    args = parser.parse_args()
    end, left, rows, failed = time.monotonic() + args.seconds, dict(SHARES), [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in SHARES:
            time_left = end - time.monotonic() - STARTING * len(left)
            seconds = time_left * left[name] / sum(left.values())  # what one leaves, the next ones get
            del left[name]
            counts = run(name, args.seed, seconds, end + GRACE, Path(folder) / name)
            rows.append((name, *(counts or (0, 0, 1))))
            failed += [name] if counts is None else []
    total = [sum(row[column] for row in rows) for column in (1, 2, 3)]
    print(f'\nAll campaigns, seed {args.seed}, {args.seconds:g} s\n\n{markdown("campaign", [*rows, ("all", *total)])}')
    if failed:
        print(f'\nWithout a table: {", ".join(failed)}')
    return 1 if total[2] else 0


def run(name: str, seed: int, seconds: float, deadline: float, record: Path) -> list[int] | None:
    """Run a campaign in a process of its own; returns its counts, None when it had none."""
    print(f'\n## {name}, {seconds:.0f} s\n', flush=True)
    log, files = record.with_suffix('.log'), record.with_suffix('.files')
    files.mkdir()  # goes away with what an ended campaign leaves there
    with open(log, 'w') as errors:
        process = subprocess.Popen(
            [
                sys.executable,
                '-m',
                f'campaigns.{name}',
                '--seed',
                str(seed),
                '--seconds',
                f'{max(1.0, seconds):.0f}',
                '--record',
                str(record),
            ],
            cwd=ROOT,
            stderr=errors,
            env={**os.environ, 'TMPDIR': str(files)},
            start_new_session=True,
        )
        try:
            code = process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = 'none: it was ended'
        finally:
            if process.poll() is None:  # with what it has started
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code:
        print(f'exit code {code}\n{log.read_text()[-5000:]}')
    return json.loads(record.read_text()) if record.exists() else None


if __name__ == '__main__':
    sys.exit(main())
