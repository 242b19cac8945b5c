"""A virtual environment of its own that sees the packages of the one the tests run in."""

import subprocess
import sys
import sysconfig
from pathlib import Path


def environment_beside(folder):
    """Make a virtual environment and return its interpreter; what is written to its site-packages stays in it."""
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(folder)], check=True)
    python = Path(folder) / 'bin' / 'python'
    site = subprocess.run(
        [str(python), '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    packages = sysconfig.get_path('purelib')
    (Path(site) / 'beside.pth').write_text(f'import site; site.addsitedir({packages!r})\n')
    return str(python)
