"""The source distribution holds what `make test` needs: every file of the project that git knows."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUPTOOLS_ADDS = {'LICENSE', 'README.md', 'pyproject.toml', 'setup.cfg', 'setup.py'}
LEFT_OUT = {'.git-blame-ignore-revs', '.github', '.gitignore'}


def test_the_source_distribution_holds_every_tracked_file():
    included, grafted = set(SETUPTOOLS_ADDS), set()
    for line in (ROOT / 'MANIFEST.in').read_text().splitlines():
        command, *names = line.split()
        if command == 'include':
            included.update(names)
        elif command == 'graft':
            grafted.update(names)
    missing = [
        name
        for name in tracked_files()
        if name not in included and Path(name).parts[0] not in grafted and Path(name).parts[0] not in LEFT_OUT
    ]
    assert not missing, f'MANIFEST.in leaves out {missing}'


def tracked_files() -> list[str]:
    if not (ROOT / '.git').exists():
        pytest.skip('needs a git checkout: this is a copy without .git')
    try:
        listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f'git does not list the files: {error}')
    return listed.stdout.split('\0')[:-1]
