"""`ms-segformer serve`: an HTTP service and a page."""

import argparse
import importlib.util
import os
import sys
from argparse import Namespace
from contextlib import suppress

from ..errors import ArgumentError
from ..metainfo import DEMO, DEMO_NOTE
from ..serving.options import MAX_BODY, MAX_PIXELS, PLACES, SECONDS, ServeOptions
from .arguments import add_engine_arguments, byte_count, number_of_processes, port_number, positive_int, seconds

HELP = 'serve models over HTTP, with a page to look at results: http://127.0.0.1:8000'
NEEDED = ('fastapi', 'fastapi_offline', 'uvicorn', 'prometheus_client', 'python_multipart')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--model',
        action='append',
        dest='models',
        metavar='DIR_OR_ID',
        help='model directory, hub id, b0 to b5, or demo; more than once for several, the first answers where a '
        'request names none; NAME=DIR_OR_ID says what a request calls it (default: demo)',
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; 0.0.0.0 serves other machines too, without encryption or passwords (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--port', type=port_number, default='8000', help='to listen on; 0 takes a free one (default: %(default)s)'
    )
    parser.add_argument(
        '--workers',
        type=number_of_processes,
        default='1',
        metavar='N',
        help='processes that share the port, the threads and the work; one that dies is replaced (default: '
        '%(default)s)',
    )
    add_engine_arguments(parser)
    parser.add_argument(
        '--places',
        type=positive_int,
        default=str(PLACES),
        metavar='N',
        help='requests that a worker takes on at a time; more are told to come back (default: %(default)s)',
    )
    parser.add_argument(
        '--max-body',
        type=byte_count,
        default=f'{MAX_BODY // 2**20}M',
        metavar='BYTES',
        help='of a request (default: %(default)s)',
    )
    parser.add_argument(
        '--max-pixels',
        type=positive_int,
        default=str(MAX_PIXELS),
        metavar='N',
        help='refuse images with more pixels before they are decoded (default: %(default)s)',
    )
    parser.add_argument(
        '--timeout',
        type=seconds,
        default=f'{SECONDS:g}',
        metavar='SECONDS',
        help='that a request may take from its last byte to its answer (default: %(default)s)',
    )
    parser.add_argument('-q', '--quiet', action='store_true', help='say errors and warnings only')


def run(args: Namespace) -> int:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ArgumentError(f"{', '.join(missing)} not installed: pip install 'ms-segformer[serve]'")
    from ..config.reader import read_configuration  # imported late: takes 30 ms, and --help is to be fast
    from ..integrations.modelscope.hub import model_directory

    models = tuple(_named(text) for text in args.models or [DEMO])
    options = ServeOptions(
        models=models,
        host=args.host,
        port=args.port,
        workers=args.workers,
        device={None: 'gpu', 'gpu': 'gpu:0'}.get(args.device, args.device),
        engine=args.engine,
        precision=args.precision,
        places=args.places,
        max_body=args.max_body,
        max_pixels=args.max_pixels,
        seconds=args.timeout,
        verbose=args.verbose,
    )
    for _, model in models:  # a mistake is said before the seconds that the imports take
        read_configuration(model_directory(model))
    if not args.quiet and any(model == DEMO for _, model in models):
        print(f'note: {DEMO_NOTE}', file=sys.stderr)
    from ..serving.server import serve  # after the mistakes: it takes seconds

    def ready(address: str) -> None:
        if not args.quiet:
            names = ', '.join(name for name, _ in models)
            with suppress(BrokenPipeError):  # nobody reads it, which is no reason to end
                print(f'{address}  {names}; the API: {address}/docs; Ctrl-C ends it', flush=True)

    serve(options, ready)
    return 0


def _named(text: str) -> tuple[str, str]:
    """(name in the API, model) of what was given with `--model`."""
    name, equals, model = text.partition('=')
    if equals and not os.path.exists(text):
        if not name or not model:
            raise ArgumentError(f'--model {text}: expected NAME=DIR_OR_ID')
        return name, model
    return (os.path.basename(os.path.abspath(text)) if os.path.isdir(text) else text), text
