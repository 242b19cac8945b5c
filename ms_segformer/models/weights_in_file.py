"""Finds a SegFormer's weights among what else a training leaves in a file: optimizer, averages, other networks, meta.

Trainers call them as they like (`state_dict`, `model`, `net`, `params`, …), so the names of the tensors count.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .pickle_interpreter import CheckpointError, SetAside, shown

DEPTH = 4  # mappings within mappings that are looked into
# The convolution that a stage begins with, in each dialect, and what stands before it.
_STEM = re.compile(
    r'(?P<prefix>(?:[^.]+\.)*?)'
    r'(?:(?:backbone\.)?layers\.\d\.0\.projection'
    r'|(?:(?:backbone|encoder)\.)?patch_embed\d\.proj'
    r'|(?:segformer\.)?(?:encoder\.patch_embeddings\.\d|stages\.\d\.patch_embeddings)\.proj)\.weight'
)
# What an optimizer keeps for each weight, under the weights' names: never the weights.
_STATISTICS = re.compile(r'optim\w*|exp_avg\w*|max_exp_avg\w*|momentum(_buffers?)?|grads?|gradients?', re.IGNORECASE)
_WRAPPERS = re.compile(r'(^|\.)(?:(?:module|_orig_mod|_fsdp_wrapped_module)\.)+')
_AVERAGE = re.compile(r'(^|[_.])(ema|swa|averaged?|shadow|teacher)([_.]|$)', re.IGNORECASE)


@dataclass(frozen=True)
class Weights:
    """Where the weights stand in a file.

    Attributes:
        content: the mapping that holds them.
        meta: the innermost mapping of the name `meta` beside it or around it; {} without one.
        left_out: the names of the other mappings that hold a SegFormer's tensors.
    """

    content: dict
    meta: dict
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Mapping:
    names: tuple[str, ...]  # on the way to it
    content: dict
    meta: dict

    @property
    def name(self) -> str:
        return '.'.join(self.names)

    @property
    def is_network(self) -> bool:
        return any(isinstance(value, torch.Tensor) for value in self._stems) and not any(
            map(_STATISTICS.fullmatch, self.names)
        )

    @property
    def names_a_network(self) -> bool:
        return any(isinstance(value, SetAside) for value in self._stems)

    @property
    def _stems(self) -> list:
        return [value for key, value in self.content.items() if isinstance(key, str) and _STEM.fullmatch(key)]

    @property
    def tensors(self) -> int:
        return sum(isinstance(value, torch.Tensor) for value in self.content.values())

    @property
    def rank(self) -> tuple[bool, int, bool]:
        return any(map(_AVERAGE.search, self.names)), len(self.names), self.names[-1:] != ('state_dict',)


def find_weights(content: dict) -> Weights:
    """Find the weights in what a checkpoint file holds.

    Of several copies a moving average (`ema` or the like in the name) comes last, then the outermost comes first, then
    `state_dict`. What an optimizer keeps under the weights' names is none of them. Where nothing is a SegFormer's, it
    is the mapping with the most tensors, for messages to speak of.

    Raises:
        CheckpointError: the file holds several, and none of this says which one to take, or only an optimizer's.
    """
    mappings = list(_mappings(content, (), {}, set()))
    networks = sorted(filter(lambda one: one.is_network, mappings), key=lambda one: one.rank)
    if not networks:
        largest = max(mappings, key=lambda one: (one.names_a_network, one.tensors))
        if any(map(_STATISTICS.fullmatch, largest.names)):
            raise CheckpointError(
                f'holds what an optimizer keeps ({shown(largest.name)}) and no weights of a '
                'SegFormer; name the file that the model was saved in'
            )
        return Weights(largest.content, largest.meta)
    chosen, *others = networks
    equal = [one.name for one in networks if one.rank == chosen.rank]
    if len(equal) > 1:
        raise CheckpointError(
            f'holds weights of several networks ({", ".join(map(shown, equal))}); save the one to '
            "use by itself: torch.save({'state_dict': …}, FILE)"
        )
    return Weights(chosen.content, chosen.meta, tuple(one.name for one in others))


def without_prefix(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take off what all names begin with before a SegFormer's own begin: `model.`, `model.module.`, …

    What PyTorch's wrappers add (`module.`, `_orig_mod.`, …) goes wherever it stands, for parts of a model, too, may
    have been wrapped.
    """
    bare = {_WRAPPERS.sub(r'\1', key): value for key, value in state.items()}
    state = bare if len(bare) == len(state) else state  # else there are two of a name, which the caller refuses
    stem = next(filter(None, map(_STEM.fullmatch, state)), None)
    prefix = stem['prefix'] if stem else ''
    if not prefix or not all(key.startswith(prefix) for key in state):
        return state
    return {key[len(prefix) :]: value for key, value in state.items()}


def without_average(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the state without the copies that mmcv's EMAHook keeps in it (`ema_backbone_layers_0_…`), and their names.

    The hook swaps both in the course of an epoch; what mmcv loads into a model are those under the model's own names.
    (EasyCV's hook leaves no copies: it saves the average in the weights' place.)
    """
    copies = {'ema_' + key.replace('.', '_') for key in state}
    return {key: value for key, value in state.items() if key not in copies}, [key for key in state if key in copies]


def _mappings(content: dict, names: tuple[str, ...], meta: dict, seen: set[int]) -> Iterator[_Mapping]:
    """A mapping and those in it, each once: a file's mappings may hold each other."""
    if id(content) in seen:
        return
    seen.add(id(content))
    meta = content['meta'] if isinstance(content.get('meta'), dict) else meta
    yield _Mapping(names, content, meta)
    for key, value in content.items() if len(names) < DEPTH else ():
        if isinstance(value, dict) and isinstance(key, str):
            yield from _mappings(value, (*names, key), meta, seen)
