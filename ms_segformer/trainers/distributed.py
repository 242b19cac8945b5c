"""Processes and devices: one process on a CPU or GPU, or several under `torchrun` (gloo on CPUs, nccl on GPUs)."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from .errors import TrainingError

Result = TypeVar('Result')


def start(launcher: str | None = None, device: object = None) -> tuple[int, int]:
    """Join the process group when there are several processes.

    Args:
        launcher: None or `pytorch`/`torchrun`: the variables that torchrun sets decide; `slurm` and `mpi` are
            ModelScope's.
        device: the device asked for; `cpu` makes the processes talk over gloo.

    Returns:
        (rank, world size).
    """
    if not (dist.is_available() and dist.is_initialized()):
        if launcher in (None, 'pytorch', 'torchrun'):
            if int(os.environ.get('WORLD_SIZE', 1)) <= 1 or 'RANK' not in os.environ:
                return 0, 1
            on_gpu = torch.cuda.is_available() and not str(device or '').startswith('cpu')
            if on_gpu:
                torch.cuda.set_device(local_rank())
            dist.init_process_group('nccl' if on_gpu else 'gloo')
        elif launcher in ('slurm', 'mpi'):
            from modelscope.utils.torch_utils import init_dist  # imported late: ModelScope takes seconds

            init_dist(launcher)
        else:
            raise TrainingError(f'launcher is {launcher!r}; accepted: pytorch (torchrun), slurm, mpi, or none')
    return dist.get_rank(), dist.get_world_size()


def local_rank() -> int:
    """Number of this process on its machine."""
    return int(os.environ.get('LOCAL_RANK', 0))


def choose_device(name: object = None, world_size: int = 1) -> torch.device:
    """Return the torch device for a name (`cpu`, `gpu`, `cuda`, `cuda:1`, …); None takes a GPU where there is one.

    Raises:
        TrainingError: a GPU is asked for by name and there is none.
    """
    if name is None:
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    name = str(name).replace('gpu', 'cuda')
    if name.startswith('cuda') and not torch.cuda.is_available():
        raise TrainingError(
            f'device {name!r} was asked for, but torch {torch.__version__} sees no CUDA device; leave '
            "the device out or pass device='cpu'"
        )
    if name.startswith('cuda') and ':' not in name:
        name = f'cuda:{local_rank() if world_size > 1 else torch.cuda.current_device()}'
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f'device {name!r} is not known: {error}') from None


def mean_over_processes(values: list[float], device: torch.device) -> list[float]:
    """Return the mean of a list of floats over all processes; the list itself when there is only one."""
    if not several():
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device='cpu' if dist.get_backend() == 'gloo' else device)
    dist.all_reduce(tensor)
    return (tensor / dist.get_world_size()).tolist()


def several() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Whether this is the process that speaks for all."""
    return not several() or dist.get_rank() == 0


def wait() -> None:
    """Return when all processes have come here."""
    if several():
        dist.barrier()


def from_every_process(value: Any) -> list[Any]:
    """Return the values of all processes, by rank."""
    if not several():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def decided_by_first(decide: Callable[[], Result]) -> Result:
    """Call a function in the first process and return its result in every one, or raise its error in every one.

    It is called when all processes have come here.
    """
    if not several():
        return decide()
    wait()
    result: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            result[0] = decide()
        except Exception as error:
            result[1] = error
    dist.broadcast_object_list(result)
    if result[1] is not None:
        raise result[1]
    return result[0]


def first_on_each_machine(act: Callable[[], Any]) -> None:
    """Call a function in one process of every machine, and raise its error in every process.

    All have come here when it is done.
    """
    error: Exception | None = None
    if local_rank() == 0:
        try:
            act()
        except Exception as raised:
            error = raised
    for other in from_every_process(error):
        if other is not None:
            raise other
