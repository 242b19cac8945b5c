"""Reads and writes checkpoints; every foreign naming of the weights is known here and nowhere else.

Dialects, told apart by their keys:

- EasyCV and mmsegmentation, whole models: the names of this package; backbones alone: the same without `backbone.`.
- NVlabs SegFormer: `patch_embed1.proj`, `block1.0.attn.q`, `linear_c4`, …; below `encoder.` where
  segmentation_models_pytorch wrote them (of its models the backbone alone: its head is another).
- Hugging Face `transformers`: `encoder.patch_embeddings.0`, `encoder.block.0.0`, `linear_c.0`, …; and the names its
  version 5 uses in memory: `stages.0.blocks.0`, `linear_projections.0`, …

Where in a file they stand, and what stands before their names (`module.`), does not matter: see `weights_in_file`.

What is read of a file, and what is not, stands in `torch_file` and `pickle_interpreter`: nothing in it is run.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config.jsonplus import load_json
from ..config.messages import warn_once
from ..errors import some_of
from ..files import atomic_write
from ..metainfo import variant_of
from .pickle_interpreter import CheckpointError, SetAside, shown
from .torch_file import check_start, read_torch_file, regular_file, write_torch_file
from .weights_in_file import find_weights, without_average, without_prefix

SUFFIXES = ('.pt', '.pth', '.bin', '.safetensors')
PREFERRED = 'pytorch_model.pt'  # ModelScope's name for the weights of a model directory
CLASSIFIER = 'decode_head.conv_seg.'
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # types that weights may have
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)  # and counters
DIGEST_KEY = 'ms-segformer sha256'  # in the metadata of the safetensors files that this package writes
State = dict[str, torch.Tensor]
Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # found and expected, by name
Rule = tuple[str, Callable[[re.Match[str]], str]]  # the pattern of a foreign name, and ours
logger = logging.getLogger(__name__)

__all__ = [
    'CheckpointError',
    'LoadReport',
    'checkpoint_variant',
    'find_checkpoint',
    'load_checkpoint',
    'load_state',
    'read_checkpoint',
    'read_optimizer',
    'require_readable',
    'save_checkpoint',
]


@dataclass(frozen=True)
class LoadReport:
    """What `load_checkpoint` did not load: names that the file lacks, has too many, or that were dropped on purpose."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


class SeveralCheckpointsError(CheckpointError):
    """A model directory has several checkpoints, and nothing says which one is its own."""


def find_checkpoint(model_dir: str | Path) -> Path:
    """Return the checkpoint file of a model directory.

    Files ending in .pt, .pth, .bin or .safetensors count, except a trainer's own `*_trainer_state.pth`. Of several it
    is the one that `model.file_name` of the configuration names, else `pytorch_model.pt`, and a warning says so.

    Raises:
        CheckpointError: there is none, or several of other names; the message lists what was seen.
    """
    folder = Path(model_dir)
    if not folder.is_dir():
        raise CheckpointError(
            f'{folder}: no such directory; expected a model directory with configuration.json and a checkpoint'
        )
    found = sorted(
        p
        for p in folder.iterdir()
        if p.suffix in SUFFIXES and p.is_file() and not p.stem.endswith('_trainer_state') and not p.name.startswith('.')
    )
    if len(found) == 1:
        return found[0]
    names = _some(path.name for path in found)
    chosen = next((path for path in (_named_file(folder), folder / PREFERRED) if path in found), None)
    if chosen:
        warn_once(f'{folder}: more than one checkpoint ({names}); {chosen.name} is taken')
        return chosen
    if found:
        raise SeveralCheckpointsError(
            f'{folder}: more than one checkpoint ({names}); leave the one to use in the '
            f'directory, or name it {PREFERRED}'
        )
    seen = _some(sorted(p.name for p in folder.iterdir())) or 'nothing'
    raise CheckpointError(f'{folder}: no checkpoint (a file ending in {", ".join(SUFFIXES)}); found only: {seen}')


def _named_file(folder: Path) -> Path | None:
    """The file that the configuration of a model directory names as its weights."""
    configuration = folder / 'configuration.json'
    model = load_json(configuration).get('model') if configuration.is_file() else None
    name = model.get('file_name') if isinstance(model, dict) else None
    return folder / name if isinstance(name, str) else None


def read_checkpoint(path: str | Path) -> tuple[State, dict[str, Any]]:
    """Read a checkpoint file in any known dialect.

    Returns:
        (state_dict, meta): tensors under this package's names, and what is plain of the file's `meta` mapping (CLASSES,
        PALETTE, config, epoch, versions, …; {} when it has none).

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the file is truncated or damaged, or is no checkpoint.
    """
    path = regular_file(path)
    content, set_aside = (_read_safetensors(path), ()) if _is_safetensors(path) else _read_torch(path)
    try:
        found = find_weights(content)
        state, average = without_average(without_prefix(_tensors(found.content, path.stat().st_size)))
        state = _translate(state)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None
    if set_aside:
        warn_once(f'{path}: set aside, for they are neither tensors nor plain values: {_some(set_aside)}')
    if found.left_out or average:
        warn_once(f'{path}: left out, as other copies of the weights: {_some([*found.left_out, *average])}')
    return state, {key: value for key, value in found.meta.items() if not isinstance(value, SetAside)}


def require_readable(path: str | Path) -> None:
    """Refuse a file that is no checkpoint, whole; what is in it is not looked at.

    Raises:
        FileNotFoundError, CheckpointError: as `read_checkpoint`.
    """
    path = regular_file(path)
    if _is_safetensors(path):
        _read_safetensors(path)
    else:
        _read_torch(path)


def read_optimizer(path: str | Path) -> dict[str, Any] | None:
    """Read what mmcv saves of one optimizer beside the weights, in the form of `Optimizer.state_dict()`.

    Returns:
        `{'state': {number: {name: value}}, 'param_groups': [{'params': [number, …], …}, …]}`, or None when the file has
        nothing of this form.

    Raises:
        FileNotFoundError, CheckpointError: as `read_checkpoint`.
    """
    path = regular_file(path)
    content = {} if _is_safetensors(path) else _read_torch(path)[0]
    found = content.get('optimizer')
    if not isinstance(found, dict) or not isinstance(found.get('state'), dict):
        return None
    groups = found.get('param_groups')
    good = isinstance(groups, list) and all(
        isinstance(group, dict)
        and isinstance(group.get('params'), list)
        and all(isinstance(number, int) for number in group['params'])
        for group in groups
    )
    return found if good else None


def load_checkpoint(
    model: torch.nn.Module, path: str | Path, strict: bool = True, new_classifier: bool = False
) -> LoadReport:
    """Load a checkpoint file into a `Segformer`.

    Args:
        model: the model; its parameters are overwritten.
        path: checkpoint file in any known dialect.
        strict: every key must be present and no other; otherwise what differs is logged and reported.
        new_classifier: leave the classifier as it is when its shape differs (another number of classes).

    Returns:
        `LoadReport`.

    Raises:
        FileNotFoundError, CheckpointError: as `read_checkpoint`; also keys or shapes that do not fit.
    """
    state, _ = read_checkpoint(path)
    return load_state(model, state, path, strict, new_classifier)


def load_state(
    model: torch.nn.Module,
    state: State,
    source: str | Path,
    strict: bool = True,
    new_classifier: bool = False,
    other_classes: bool = False,
) -> LoadReport:
    """Load a translated state dict; `source` names it in messages. See `load_checkpoint`.

    Args:
        other_classes: the weights were made for other classes than the model's: the classifier is left as it is.
    """
    expected = model.state_dict()
    dropped: tuple[str, ...] = ()
    if new_classifier or other_classes:
        dropped = tuple(
            key
            for key in state
            if key.startswith(CLASSIFIER)
            and key in expected
            and (other_classes or state[key].shape != expected[key].shape)
        )
        if dropped:
            old, new = (len(one[dropped[0]]) if one[dropped[0]].dim() else 0 for one in (state, expected))
            logger.warning(
                '%s: dropped %s (%d outputs); the classifier starts anew with %d outputs%s',
                source,
                ', '.join(dropped),
                old,
                new,
                ', for the classes are others' if other_classes else '',
            )
            state = {key: value for key, value in state.items() if key not in dropped}
    missing = tuple(
        key for key in expected if key not in state and key not in dropped and not key.endswith('num_batches_tracked')
    )
    unexpected = tuple(key for key in state if key not in expected)
    shapes = {
        key: (tuple(state[key].shape), tuple(expected[key].shape))
        for key in state
        if key in expected and state[key].shape != expected[key].shape
    }
    if shapes or (strict and (missing or unexpected)):
        raise CheckpointError(_mismatch(source, state, expected, missing, unexpected, shapes))
    _check_values(state, expected, source)
    if missing or unexpected:
        logger.warning('%s: %s', source, _listing(missing, unexpected, {}))
    model.load_state_dict({key: value for key, value in state.items() if key in expected}, strict=False)
    return LoadReport(missing, unexpected, dropped)


def save_checkpoint(path: str | Path, model: torch.nn.Module, meta: dict[str, Any] | None = None) -> str:
    """Write `{'meta', 'state_dict'}` (.pt, .pth) or the bare tensors (.safetensors), atomically and with a digest.

    The layout of the former is EasyCV's: `meta` has CLASSES, PALETTE, epoch, iter where the caller gives them.

    Returns:
        The SHA-256 in the file, in hex, by which reading it notices damage.
    """
    path = Path(path)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if path.suffix != '.safetensors':
        return write_torch_file(path, {'meta': dict(meta or {}), 'state_dict': state})
    from safetensors.torch import save_file  # imported late: few files are of this kind

    digest = _digest(state)
    with atomic_write(path) as temporary:
        save_file(state, temporary, {DIGEST_KEY: digest})
    return digest


def checkpoint_variant(state: State) -> str | None:
    """Return `b0` … `b5` by the shapes of a translated state dict, or None when it is none of them."""
    dims, depths = [], []
    for stage in range(4):
        projection = state.get(f'backbone.layers.{stage}.0.projection.weight')
        if projection is None or projection.dim() != 4:
            return None
        dims.append(projection.shape[0])
        blocks = {key.split('.')[4] for key in state if key.startswith(f'backbone.layers.{stage}.1.')}
        depths.append(len(blocks))
    return variant_of(dims, depths)


def _is_safetensors(path: Path) -> bool:
    """By how the file begins, for some have the other format's ending; by its ending where it begins like neither."""
    try:
        with open(path, 'rb') as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be read ({error.strerror})') from None
    return start[8:] == b'{' or path.suffix.lower() == '.safetensors' and not start.startswith(b'PK\x03\x04')


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError, safe_open  # imported late: few files are of this kind

    try:
        with open(path, 'rb') as file:
            check_start(file.read(64))
        with safe_open(path, 'pt') as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
            digest = (file.metadata() or {}).get(DIGEST_KEY)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f'{path}: not a readable safetensors file ({error}); it may be truncated, fetch it again'
        ) from None
    if digest is not None and digest != _digest(state):
        raise CheckpointError(
            f'{path}: damaged: its numbers are not those that were written (their SHA-256 differs '
            'from the one in the file); fetch it again'
        )
    return state


def _digest(state: State) -> str:
    """SHA-256 of names, types, shapes and numbers."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f'{key} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_torch(path: Path) -> tuple[dict, tuple[str, ...]]:
    """The content of a file and the names that were set aside in it."""
    file = read_torch_file(path)
    if isinstance(file.content, SetAside):
        raise CheckpointError(
            f'{path}: a whole pickled object ({shown(file.content.name)}), whose weights are not to '
            'be had without running its code. Where that code is, save its state_dict() instead'
        )
    if not isinstance(file.content, dict):
        raise CheckpointError(f'{path}: holds a {type(file.content).__name__}; expected a state dict')
    return file.content, file.set_aside


_ODD_TENSORS = {  # part of the name of what makes it -> what it is
    'sparse': 'a sparse tensor',
    'qtensor': 'a quantized tensor',
    'Complex': 'a complex tensor',
    'meta_tensor': 'a tensor without numbers (of the device "meta")',
    'tensor_v3': 'a tensor of 8-bit floats',
}


def _tensors(content: dict, size: int) -> State:
    """The tensors of a state dict from a file of `size` bytes; what else stands among them is left out."""
    for key, value in content.items():
        if isinstance(value, SetAside) and value.name.startswith('torch'):
            kind = next((words for part, words in _ODD_TENSORS.items() if part in value.name), shown(value.name))
            raise CheckpointError(
                f'{shown(key)} is {kind}; weights are dense tensors of floating-point numbers: save '
                'the model in plain float32'
            )
    state = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise CheckpointError(f'holds no tensors (top-level entries: {_some(content)}); expected a state dict')
    wrong = [key for key in state if not isinstance(key, str)]
    if wrong:
        raise CheckpointError(f'its tensors have no names but {_some(wrong)}; expected a state dict')
    if sum(value.numel() * value.element_size() for value in state.values()) > 16 * size + (1 << 20):
        raise CheckpointError('its tensors share what numbers there are and are far larger than the file; refused')
    return state


def _check_values(state: State, expected: State, source: str | Path) -> None:
    """Refuse numbers of the wrong kind, and weights that are not finite."""
    kinds = [
        f'{key} is {str(value.dtype)[6:]}, expected {str(expected[key].dtype)[6:]}'
        for key, value in state.items()
        if key in expected and value.dtype not in (FLOATS if expected[key].is_floating_point() else INTEGERS)
    ]
    if kinds:
        raise CheckpointError(
            f'{source}: {_some(kinds)}: damaged, or quantized; fetch it again, or save the model in floating point'
        )
    spoiled = [
        key
        for key, value in state.items()
        if key in expected and value.is_floating_point() and not value.to(expected[key].dtype).isfinite().all()
    ]
    if spoiled:
        raise CheckpointError(
            f'{source}: NaN or infinite weights in {_some(spoiled)}: damaged, or saved after the '
            'training had diverged; take an earlier checkpoint'
        )


def _mismatch(
    source: str | Path, state: State, expected: State, missing: Sequence[str], unexpected: Sequence[str], shapes: Shapes
) -> str:
    theirs, ours = checkpoint_variant(state), checkpoint_variant(expected)
    if theirs != ours and (theirs or ours):

        def name(variant: str | None) -> str:
            return variant.upper() if variant else 'model of other dimensions'

        lead = f'this is a {name(theirs)} checkpoint, the configuration says {name(ours)}. '
    elif set(shapes) and all(
        key.startswith(CLASSIFIER) and found[:1] != wanted[:1] for key, (found, wanted) in shapes.items()
    ):
        found, wanted = next(iter(shapes.values()))
        lead = f'the checkpoint has {found[0] if found else "no"} classes, the configuration {wanted[0]}. '
    else:
        lead = ''
    return f'{source}: does not fit the configuration: {lead}{_listing(missing, unexpected, shapes)}'


def _listing(missing: Sequence[str], unexpected: Sequence[str], shapes: Shapes) -> str:
    parts = []
    if missing:
        parts.append(f'missing keys: {_some(missing)}')
    if unexpected:
        parts.append(f'unexpected keys: {_some(unexpected)}')
    if shapes:
        parts.append('shapes: ' + _some(f'{key} is {a}, expected {b}' for key, (a, b) in shapes.items()))
    return '; '.join(parts)


def _some(items: Iterable[object]) -> str:
    """The first of some names that stand in a file."""
    return some_of([shown(item) for item in items], 5, count=True)


# --- Foreign names -----------------------------------------------------------------------------------------------


def _translate(state: State) -> State:
    if any(re.search(r'\bpatch_embed1\.', key) for key in state):
        return _join_attention(_rename(state, _NVLABS))
    if any('patch_embeddings.0.' in key or 'stages.0.patch_embeddings.' in key for key in state):
        return _join_attention(_rename(state, _HUGGING_FACE))
    if any(key.startswith('layers.') for key in state) and not any(key.startswith('backbone.') for key in state):
        return {f'backbone.{key}': value for key, value in state.items()}
    return state


def _minus_one(text: str) -> str:
    return str(int(text) - 1)


_BLOCK_PARTS = {
    'layer_norm_1': 'norm1',
    'layer_norm_2': 'norm2',
    'norm1': 'norm1',
    'norm2': 'norm2',
    'attn.q': 'attn.attn.q',
    'attn.kv': 'attn.attn.kv',
    'attn.proj': 'attn.attn.out_proj',
    'attn.sr': 'attn.sr',
    'attn.norm': 'attn.norm',
    'attention.self.query': 'attn.attn.q',
    'attention.self.key': 'attn.attn.k',
    'attention.self.value': 'attn.attn.v',
    'attention.self.sr': 'attn.sr',
    'attention.self.layer_norm': 'attn.norm',
    'attention.output.dense': 'attn.attn.out_proj',
    'mlp.fc1': 'ffn.layers.0',
    'mlp.dense1': 'ffn.layers.0',
    'layernorm_before': 'norm1',
    'layernorm_after': 'norm2',
    'attention.q_proj': 'attn.attn.q',
    'attention.k_proj': 'attn.attn.k',
    'attention.v_proj': 'attn.attn.v',
    'attention.o_proj': 'attn.attn.out_proj',
    'attention.sequence_reduction.sequence_reduction': 'attn.sr',
    'attention.sequence_reduction.layer_norm': 'attn.norm',
    'mlp.dwconv.dwconv': 'ffn.layers.1',
    'mlp.fc2': 'ffn.layers.4',
    'mlp.dense2': 'ffn.layers.4',
}


def _block(stage: str, block: str, part: str, leaf: str) -> str:
    return f'backbone.layers.{stage}.1.{block}.{_BLOCK_PARTS.get(part, part)}.{leaf}'


_LEAF = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_NVLABS: tuple[Rule, ...] = (
    (
        rf'(?:backbone\.|encoder\.)?patch_embed(\d)\.proj\.{_LEAF}',
        lambda m: f'backbone.layers.{_minus_one(m[1])}.0.projection.{m[2]}',
    ),
    (
        rf'(?:backbone\.|encoder\.)?patch_embed(\d)\.norm\.{_LEAF}',
        lambda m: f'backbone.layers.{_minus_one(m[1])}.0.norm.{m[2]}',
    ),
    (
        rf'(?:backbone\.|encoder\.)?block(\d)\.(\d+)\.(.+)\.{_LEAF}',
        lambda m: _block(_minus_one(m[1]), m[2], m[3], m[4]),
    ),
    (rf'(?:backbone\.|encoder\.)?norm(\d)\.{_LEAF}', lambda m: f'backbone.layers.{_minus_one(m[1])}.2.{m[2]}'),
    (rf'decode_head\.linear_c(\d)\.proj\.{_LEAF}', lambda m: f'decode_head.convs.{_minus_one(m[1])}.conv.{m[2]}'),
    (rf'decode_head\.linear_fuse\.(conv|bn)\.{_LEAF}', lambda m: f'decode_head.fusion_conv.{m[1]}.{m[2]}'),
    (rf'decode_head\.linear_pred\.{_LEAF}', lambda m: f'decode_head.conv_seg.{m[1]}'),
)
_HUGGING_FACE: tuple[Rule, ...] = (
    (
        rf'(?:segformer\.)?encoder\.patch_embeddings\.(\d)\.proj\.{_LEAF}',
        lambda m: f'backbone.layers.{m[1]}.0.projection.{m[2]}',
    ),
    (
        rf'(?:segformer\.)?encoder\.patch_embeddings\.(\d)\.layer_norm\.{_LEAF}',
        lambda m: f'backbone.layers.{m[1]}.0.norm.{m[2]}',
    ),
    (rf'(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.(.+)\.{_LEAF}', lambda m: _block(m[1], m[2], m[3], m[4])),
    (rf'(?:segformer\.)?encoder\.layer_norm\.(\d)\.{_LEAF}', lambda m: f'backbone.layers.{m[1]}.2.{m[2]}'),
    (
        rf'(?:segformer\.)?stages\.(\d)\.patch_embeddings\.(?:(proj)|layer_norm)\.{_LEAF}',
        lambda m: f'backbone.layers.{m[1]}.0.{"projection" if m[2] else "norm"}.{m[3]}',
    ),
    (rf'(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.(.+)\.{_LEAF}', lambda m: _block(m[1], m[2], m[3], m[4])),
    (rf'(?:segformer\.)?stages\.(\d)\.layer_norm\.{_LEAF}', lambda m: f'backbone.layers.{m[1]}.2.{m[2]}'),
    (
        rf'decode_head\.(?:linear_c|linear_projections)\.(\d)\.proj\.{_LEAF}',
        lambda m: f'decode_head.convs.{m[1]}.conv.{m[2]}',
    ),
    (rf'decode_head\.linear_fuse\.{_LEAF}', lambda m: f'decode_head.fusion_conv.conv.{m[1]}'),
    (rf'decode_head\.batch_norm\.{_LEAF}', lambda m: f'decode_head.fusion_conv.bn.{m[1]}'),
    (rf'decode_head\.classifier\.{_LEAF}', lambda m: f'decode_head.conv_seg.{m[1]}'),
)
_MATRIX_CONVS = re.compile(r'(ffn\.layers\.[04]|decode_head\.convs\.\d\.conv)\.weight$')


def _rename(state: State, rules: Sequence[Rule]) -> State:
    """Apply the first rule that matches each key; keys that none matches (an ImageNet classifier) keep their name."""
    renamed = {}
    for key, value in state.items():
        for pattern, target in rules:
            match = re.fullmatch(pattern, key)
            if match:
                key = target(match)
                break
        if _MATRIX_CONVS.search(key) and value.dim() == 2:
            value = value[:, :, None, None]  # a linear layer there, a 1×1 convolution here
        elif key == 'decode_head.fusion_conv.conv.weight' and value.dim() > 1:
            value = torch.cat(value.chunk(4, dim=1)[::-1], dim=1)  # there the coarsest stage comes first
        renamed[key] = value
    return renamed


def _join_attention(state: State) -> State:
    """Stack separate query, key and value matrices into `in_proj_*`."""
    joined = {}
    for key, value in state.items():
        match = re.fullmatch(r'(.*\.attn\.attn)\.(q|k|v|kv)\.(weight|bias)', key)
        if not match:
            joined[key] = value
        elif match[2] == 'q':
            rest = ('kv',) if f'{match[1]}.kv.{match[3]}' in state else ('k', 'v')
            parts = [value, *(state.get(f'{match[1]}.{part}.{match[3]}') for part in rest)]
            joined[f'{match[1]}.in_proj_{match[3]}'] = _cat(parts, key)
    return joined


def _cat(parts: list[torch.Tensor | None], key: str) -> torch.Tensor:
    found = [part for part in parts if part is not None]
    if len(found) < len(parts) or not all(part.dim() and part.shape[1:] == found[0].shape[1:] for part in found):
        shapes = ', '.join('missing' if part is None else str(tuple(part.shape)) for part in parts)
        raise CheckpointError(f'query, key and value beside {key} do not go together: {shapes}')
    return torch.cat(found)
