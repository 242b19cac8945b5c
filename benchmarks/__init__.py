"""Comparisons against what a user could pick instead; one command each, see README.md in this folder."""
