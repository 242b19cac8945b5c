"""All campaigns, one after another, within a time; their tables, and one over all of them.

    python -m campaigns --seed 1 --seconds 600
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from campaigns.frame import ROOT, markdown

# Shares of the time. Those whose single cases take long come first: what they leave or overdraw, the others share.
SHARES = {'disk_full': 12, 'concurrency': 12, 'kill_predict': 6, 'kill_training': 8, 'memory': 12, 'kernel_fuzz': 6,
          'checkpoint_fuzz': 12, 'configuration_fuzz': 12, 'label_fuzz': 8, 'image_fuzz': 14}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=600, help='for all of them together; default: 600')
    args = parser.parse_args()
    end, left, rows, failed = time.monotonic() + args.seconds, dict(SHARES), [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in SHARES:
            seconds = (end - time.monotonic()) * left[name] / sum(left.values())  # what one leaves, the next ones get
            del left[name]
            counts = run(name, args.seed, seconds, Path(folder) / name)
            rows.append((name, *(counts or (0, 0, 1))))
            failed += [name] if counts is None else []
    total = [sum(row[column] for row in rows) for column in (1, 2, 3)]
    print(f'\nAll campaigns, seed {args.seed}, {args.seconds:g} s\n\n{markdown("campaign", [*rows, ("all", *total)])}')
    if failed:
        print(f'\nWithout a table: {", ".join(failed)}')
    return 1 if total[2] else 0


def run(name: str, seed: int, seconds: float, record: Path) -> list[int] | None:
    """Run a campaign in a process of its own; returns its counts, None when it had none."""
    print(f'\n## {name}\n', flush=True)
    log = record.with_suffix('.log')
    with open(log, 'w') as errors:
        code = subprocess.run([sys.executable, '-m', f'campaigns.{name}', '--seed', str(seed), '--seconds',
                               f'{max(1.0, seconds):.0f}', '--record', str(record)], cwd=ROOT, check=False,
                              stderr=errors).returncode
    if code:
        print(f'exit code {code}\n{log.read_text()[-5000:]}')
    return json.loads(record.read_text()) if record.exists() else None


if __name__ == '__main__':
    sys.exit(main())
