"""Saves weights in the form that EasyCV's own export gives them.

`tests/data/tiny_model/pytorch_model.pt` was written by the real EasyCV 0.11.7 and mmcv 1.7.2; what a test makes up
itself is saved here in the same form: `{'state_dict', 'meta': {'config': a pickled mmcv ConfigDict}, 'author'}`.
"""

import sys
import types
from contextlib import contextmanager
from pathlib import Path

import torch


class ConfigDict(dict):
    """Pickles as `mmcv.utils.config.ConfigDict` does, whose base is `addict.Dict`."""

    def __getnewargs__(self):
        return tuple(self.items())

    def __getstate__(self):
        return self

    def __setstate__(self, state):
        self.update(state)


@contextmanager
def named(cls: type, module: str):
    """Inside it a class has the name it has in another package, which need not be installed."""
    before = {name: sys.modules.get(name) for name in _parents(module)}
    for name in before:
        sys.modules[name] = types.ModuleType(name)
    setattr(sys.modules[module], cls.__name__, cls)
    own, cls.__module__ = cls.__module__, module
    try:
        yield
    finally:
        cls.__module__ = own
        for name, value in before.items():
            if value is None:
                del sys.modules[name]
            else:
                sys.modules[name] = value


def _parents(module):
    parts = module.split('.')
    return ['.'.join(parts[:count]) for count in range(1, len(parts) + 1)]


def save_exported(path: Path, state: dict, config: dict | None = None, legacy: bool = False) -> None:
    """Write a checkpoint as EasyCV exports it, in PyTorch's zip format or the one before."""

    def wrap(value):
        if isinstance(value, dict):
            return ConfigDict({key: wrap(item) for key, item in value.items()})
        return [wrap(item) for item in value] if isinstance(value, list) else value

    config = wrap(config or {'model': {'type': 'EncoderDecoder', 'pretrained': False}, 'total_epochs': 30})
    with named(ConfigDict, 'mmcv.utils.config'):
        torch.save(
            {'state_dict': state, 'meta': {'config': config}, 'author': 'EasyCV'},
            path,
            _use_new_zipfile_serialization=not legacy,
        )
