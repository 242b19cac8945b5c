"""The `ms-segformer` command: `main`, and a module a sub-command, each with `HELP`, `add_arguments` and `run`.

What takes time to import (torch, ModelScope, and our packages that bring them) is imported inside the functions that
need it, so that `--help`, a mistyped option and a missing file are answered at once.
"""
