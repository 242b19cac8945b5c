"""Campaigns: many cases made on the spot, each of which has to end in a result or in an error of this package's own.

Each module is one command, `python -m campaigns.NAME --seed S --cases N --seconds T`; `python -m campaigns` (or
`make campaign`) runs all of them. They are no part of the ordinary suite. The last tables stand in RESULTS.md.
"""
