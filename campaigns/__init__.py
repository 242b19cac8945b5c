"""Campaigns: many cases made on the spot, each of which has to end in a result or in an error of this package's own.

Each module is one command, `python -m campaigns.NAME --seed S --cases N --seconds T`; `python -m campaigns` (or
`make campaign`) runs all of them. They are no part of the ordinary suite. The last tables stand in RESULTS.md.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1] / 'tests'
sys.path[:0] = [str(TESTS), str(TESTS / 'trainers')]  # what the tests make their data with serves here too
