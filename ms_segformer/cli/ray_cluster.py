"""What `predict --ray` and `eval --ray` share: the options, and the cluster they connect to or start."""

import argparse
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError, one_line

LOCAL = 'local'
OBJECT_STORE = 256 << 20  # bytes of the store of a Ray that is started here; images do not go through it
SECONDS_TO_ANSWER = 10


def add_ray_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--ray`; `what` is what it does there."""
    parser.add_argument(
        '--ray',
        metavar='ADDRESS',
        help=f'{what} on a Ray cluster (auto, HOST:PORT or ray://HOST:PORT), whose nodes all have this package and '
        'reach model and images; local: on a Ray of its own on this machine, which ends with the command. --processes '
        'is how many it uses at most, each with a CPU, and a GPU where there are some; default: all',
    )


@dataclass(frozen=True)
class Actors:
    """What each actor gets, and how many of them there are.

    Attributes:
        num_cpus, num_gpus: of an actor, as Ray counts them.
        concurrency: (least, most) actors.
    """

    num_cpus: float
    num_gpus: float
    concurrency: tuple[int, int]

    @property
    def device(self) -> str:
        """Of an actor's network, as `load` names it; Ray shows it its own GPU only."""
        return 'gpu:0' if self.num_gpus else 'cpu'


def check_ray_arguments(args: Namespace) -> None:
    """Refuse what makes no sense with `--ray`.

    Raises:
        ArgumentError: of the options.
        RayError: Ray is not installed.
    """
    if args.ray is None:
        return
    if not args.ray:
        raise ArgumentError('--ray names no cluster; expected local, auto, HOST:PORT or ray://HOST:PORT')
    if args.device and ':' in args.device:
        raise ArgumentError(f'--device {args.device}: with --ray each actor gets its GPU from Ray; give --device gpu')
    from ..pipelines.ray import require_ray

    require_ray()


@contextmanager
def cluster(args: Namespace) -> Iterator[Actors]:
    """Connect to the cluster of the command line, or start one here, while the block runs.

    Raises:
        RayError: it cannot be reached, or has no GPU where one is asked for.
    """
    if args.ray == LOCAL:
        _be_private()
    if not args.verbose and 'ray' not in sys.modules:
        os.environ.setdefault('RAY_BACKEND_LOG_LEVEL', 'fatal')  # of what is written to this terminal
    import ray
    from ray.data import DataContext

    from ..datasets.parallel import available_cores
    from ..pipelines.ray import RayError

    level = logging.INFO if args.verbose else logging.ERROR
    own: dict[str, Any] = {}
    if args.ray == LOCAL:
        own = {'num_cpus': available_cores(), 'include_dashboard': False, 'object_store_memory': OBJECT_STORE}
        if args.device == 'cpu':
            own['num_gpus'] = 0
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _check_address(args.ray)
        ray.init(address=args.ray, log_to_driver=args.verbose, logging_level=level, **own)
    except (OSError, ValueError, RuntimeError) as error:
        raise RayError(f'--ray {args.ray}: no cluster of Ray is there ({one_line(error)})') from None
    if not args.verbose:
        logging.getLogger('ray.data').setLevel(logging.CRITICAL)  # what was lost is told at the end
    try:
        DataContext.get_current().enable_progress_bars = args.verbose
        yield _actors(args, ray.cluster_resources())
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray leaves its own


def _be_private() -> None:
    """Have a Ray that is started here send nothing, and answer only those who know a token of this process.

    It listens on all network addresses. Its variables are read when it is imported; a program that has done so before
    keeps what it has chosen.
    """
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    if 'ray' not in sys.modules and not any(name.startswith('RAY_AUTH_') for name in os.environ):
        os.environ.update(RAY_AUTH_MODE='token', RAY_AUTH_TOKEN=secrets.token_hex(32))


def _check_address(address: str) -> None:
    """Raise `OSError` where nothing answers at HOST:PORT: Ray would try for minutes."""
    found = re.fullmatch(r'(?:ray://)?\[?([^/]+?)\]?:([0-9]+)', address)
    if found:
        socket.create_connection((found[1], int(found[2])), timeout=SECONDS_TO_ANSWER).close()


def _actors(args: Namespace, resources: dict[str, float]) -> Actors:
    from ..pipelines.ray import RayError

    cpus, gpus = int(resources.get('CPU', 0)), int(resources.get('GPU', 0))
    if args.device in ('gpu', 'cuda') and not gpus:
        raise RayError(f'--ray {args.ray}: the cluster has no GPU; leave --device out, or give --device cpu')
    on_gpus = gpus > 0 and args.device != 'cpu'
    most = args.processes or max(1, gpus if on_gpus else cpus)
    return Actors(1, float(on_gpus), (1, most))
