"""From the entries of a pipeline to transforms in a row."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ...config.messages import shown
from ...config.schema import wrong_value
from ..errors import DatasetError
from ..sample import Sample
from .arguments import ARGUMENTS
from .random_streams import seeded_global_streams
from .registry import OWN, TRANSFORMS, Fallback


def build(cfg: Any, fallback: Fallback | None = None) -> Callable[[Any], Any]:
    """Return the transform a configuration entry describes.

    Args:
        cfg: `{'type': name or class, **arguments}`, or a callable, which is returned as it is.
        fallback: callable that gets a name unknown here and returns a class, or None when it knows none either.

    Raises:
        DatasetError: unknown name or arguments that the transform does not take; the message lists what is known.
    """
    if callable(cfg):
        return cfg
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise DatasetError(f'a transform is a dict with the key "type", e.g. {{"type": "MMResize", …}}; got {cfg!r}')
    arguments = {key: value for key, value in cfg.items() if key != 'type'}
    cls = cfg['type']
    if isinstance(cls, str):
        cls = TRANSFORMS.get(cls) or (fallback(cls) if fallback else None)
    if cls is None:
        raise DatasetError(
            f'unknown transform "{shown(cfg["type"], quoted=False)}". Known are: '
            f'{", ".join(sorted(TRANSFORMS))}. Correct the name in the pipeline of the configuration'
        )
    if not callable(cls):
        raise DatasetError(f'the type of a transform is its name or its class, got {shown(cls)}')
    parameters = inspect.signature(cls).parameters
    _check_arguments(cls, parameters, arguments)
    if cls in OWN:
        wrong = wrong_value(arguments, ARGUMENTS)
        if wrong:
            raise DatasetError(f'{cls.__name__}: {wrong}')
        if 'fallback' in parameters:
            arguments['fallback'] = fallback
    return cls(**arguments)


def _check_arguments(cls: Any, parameters: Mapping[str, inspect.Parameter], arguments: dict[str, Any]) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    names = [name for name in parameters if name != 'fallback']
    unknown = [name for name in arguments if name not in names]
    missing = [name for name in names if parameters[name].default is inspect.Parameter.empty and name not in arguments]
    if unknown or missing:
        problem = f'does not take {unknown}' if unknown else f'needs {missing}'
        raise DatasetError(f'transform {cls.__name__} {problem}; its arguments are: {", ".join(names) or "none"}')


class Compose:
    """Transforms in a row.

    Args:
        cfgs: sequence of configuration entries or callables, see `build`.
        fallback: see `build`.

    A transform from elsewhere (found by `fallback`, or a callable of the user's) may draw from the global streams of
    `numpy.random` and `random`. While it runs for a sample that has a random stream of its own, the global ones are
    seeded from it, and put back afterwards.
    """

    def __init__(self, cfgs: Any, fallback: Fallback | None = None) -> None:
        if not isinstance(cfgs, (list, tuple)):
            raise DatasetError(f'a pipeline is a list of transforms, got {shown(cfgs)}')
        self.transforms = [build(cfg, fallback) for cfg in cfgs]

    def __call__(self, results: Sample) -> Any:
        """Return what the last transform returns, or None when a transform dropped the sample."""
        for transform in self.transforms:
            if 'rng' not in results or type(transform) in OWN:
                results = transform(results)
            else:
                with seeded_global_streams(results['rng']):
                    results = transform(results)
            if results is None:
                return None
        return results
