"""`modelscope segformer …`: the `ms-segformer` command as a sub-command of ModelScope's own."""

import argparse
from typing import NoReturn


class SegformerCommand:
    """What the entry point group `modelscope_hub.cli_plugins` asks for: `name`, `register` and `execute`."""

    name = 'segformer'

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    @staticmethod
    def register(subparsers: 'argparse._SubParsersAction') -> None:
        """Add the sub-command to ModelScope's parser; its own options are read by `ms-segformer`."""
        parser = subparsers.add_parser('segformer', add_help=False, help='SegFormer models: predict, train, export, …')
        parser.add_argument('arguments', nargs=argparse.REMAINDER)
        parser.set_defaults(_command=SegformerCommand)

    def execute(self) -> NoReturn:
        """Run `ms-segformer` with the arguments; its exit code becomes ModelScope's."""
        from .main import main

        raise SystemExit(main(self.args.arguments))
