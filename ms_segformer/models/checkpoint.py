"""Reads and writes checkpoints; every foreign naming of the weights is known here and nowhere else.

Dialects, told apart by their keys:

- EasyCV and mmsegmentation, whole models: the names of this package; backbones alone: the same without `backbone.`.
- NVlabs SegFormer: `patch_embed1.proj`, `block1.0.attn.q`, `linear_c4`, …
- Hugging Face `transformers`: `encoder.patch_embeddings.0`, `encoder.block.0.0`, `linear_c.0`, …; and the names its
  version 5 uses in memory: `stages.0.blocks.0`, `linear_projections.0`, …

Files are never unpickled beyond tensors and plain containers.
"""
import logging
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files import atomic_write
from ..metainfo import variant_of

SUFFIXES = ('.pt', '.pth', '.bin', '.safetensors')
CLASSIFIER = 'decode_head.conv_seg.'
logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that is missing, unreadable or does not fit; the message says which and what to do."""


@dataclass(frozen=True)
class LoadReport:
    """What `load_checkpoint` did not load: names that the file lacks, has too many, or that were dropped on purpose."""

    missing: tuple = ()
    unexpected: tuple = ()
    dropped: tuple = ()


def find_checkpoint(model_dir):
    """Return the one checkpoint file of a model directory.

    Files ending in .pt, .pth, .bin or .safetensors count, except a trainer's own `*_trainer_state.pth`.

    Raises:
        CheckpointError: there is none or more than one; the message lists what was seen.
    """
    folder = Path(model_dir)
    if not folder.is_dir():
        raise CheckpointError(f'{folder}: no such directory; expected a model directory with configuration.json and a '
                              'checkpoint')
    found = sorted(p for p in folder.iterdir()
                   if p.suffix in SUFFIXES and not p.stem.endswith('_trainer_state') and not p.name.startswith('.'))
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(f'{folder}: more than one checkpoint ({", ".join(p.name for p in found)}); leave the one '
                              'to use in the directory')
    seen = ', '.join(sorted(p.name for p in folder.iterdir())) or 'nothing'
    raise CheckpointError(f'{folder}: no checkpoint (a file ending in {", ".join(SUFFIXES)}); found only: {seen}')


def read_checkpoint(path):
    """Read a checkpoint file in any known dialect.

    Returns:
        (state_dict, meta): tensors under this package's names, and the file's `meta` mapping ({} when it has none).

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the file is truncated, is no checkpoint, or holds objects that would have to be unpickled.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint file')
    content, meta = _read_safetensors(path) if path.suffix == '.safetensors' else _read_torch(path)
    for wrapper in ('state_dict', 'model', 'module'):
        if isinstance(content.get(wrapper), dict):
            meta = content.get('meta') or meta
            content = content[wrapper]
    state = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not state:
        entries = ', '.join(map(str, list(content)[:8]))
        raise CheckpointError(f'{path}: holds no tensors (top-level entries: {entries}); expected a state dict')
    return _translate(state), meta if isinstance(meta, dict) else {}


def load_checkpoint(model, path, strict=True, new_classifier=False):
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


def load_state(model, state, source, strict=True, new_classifier=False):
    """Load a translated state dict; `source` names it in messages. See `load_checkpoint`."""
    expected = model.state_dict()
    dropped = ()
    if new_classifier:
        dropped = tuple(key for key in state if key.startswith(CLASSIFIER)
                        and key in expected and state[key].shape != expected[key].shape)
        if dropped:
            old, new = state[dropped[0]].shape[0], expected[dropped[0]].shape[0]
            logger.warning('%s: dropped %s (%d outputs); the classifier starts anew with %d outputs',
                           source, ', '.join(dropped), old, new)
            state = {key: value for key, value in state.items() if key not in dropped}
    missing = tuple(key for key in expected if key not in state and key not in dropped
                    and not key.endswith('num_batches_tracked'))
    unexpected = tuple(key for key in state if key not in expected)
    shapes = {key: (tuple(state[key].shape), tuple(expected[key].shape)) for key in state
              if key in expected and state[key].shape != expected[key].shape}
    if shapes or (strict and (missing or unexpected)):
        raise CheckpointError(_mismatch(source, state, expected, missing, unexpected, shapes))
    if missing or unexpected:
        logger.warning('%s: %s', source, _listing(missing, unexpected, {}))
    model.load_state_dict({key: value for key, value in state.items() if key in expected}, strict=False)
    return LoadReport(missing, unexpected, dropped)


def save_checkpoint(path, model, meta=None):
    """Write `{'meta', 'state_dict'}` (.pt, .pth) or the bare tensors (.safetensors), atomically.

    The layout of the former is EasyCV's: `meta` has CLASSES, PALETTE, epoch, iter where the caller gives them.
    """
    path = Path(path)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with atomic_write(path) as temporary:
        if path.suffix == '.safetensors':
            from safetensors.torch import save_file
            save_file(state, temporary)
        else:
            torch.save({'meta': dict(meta or {}), 'state_dict': state}, temporary)


def checkpoint_variant(state):
    """Return `b0` … `b5` by the shapes of a translated state dict, or None when it is none of them."""
    dims, depths = [], []
    for stage in range(4):
        projection = state.get(f'backbone.layers.{stage}.0.projection.weight')
        if projection is None:
            return None
        dims.append(projection.shape[0])
        blocks = {key.split('.')[4] for key in state if key.startswith(f'backbone.layers.{stage}.1.')}
        depths.append(len(blocks))
    return variant_of(dims, depths)


def _read_safetensors(path):
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    try:
        return load_file(path), {}
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f'{path}: not a readable safetensors file ({error}); it may be truncated, fetch it '
                              'again') from None


def _read_torch(path):
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f'{path}: the file is empty; fetch it again')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        if 'weights_only' in str(error).lower() or 'unsupported' in str(error).lower():
            raise CheckpointError(_refusal(path, error)) from None
        raise CheckpointError(f'{path}: not a PyTorch checkpoint ({_first_line(error)})') from None
    except MemoryError:
        raise
    except Exception as error:  # on bytes that are no pickle torch.load raises whatever it stumbles over
        raise CheckpointError(f'{path}: a truncated or damaged checkpoint, or none at all, of {size} bytes '
                              f'({_first_line(error)}); fetch it again') from None
    if isinstance(content, torch.Tensor) or not isinstance(content, dict):
        raise CheckpointError(f'{path}: holds a {type(content).__name__}; expected a state dict')
    return content, {}


def _refusal(path, error):
    names = sorted(set(re.findall(r'GLOBAL ([\w.]+)', str(error))))
    what = f' ({", ".join(names)})' if names else ''
    return (f'{path}: holds Python objects besides tensors{what}, or is none; loading it could run code and is '
            'refused. If you trust its origin, rewrite it once: keep only its state_dict; save that with safetensors')


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def _mismatch(source, state, expected, missing, unexpected, shapes):
    theirs, ours = checkpoint_variant(state), checkpoint_variant(expected)
    if theirs != ours and (theirs or ours):
        def name(variant):
            return variant.upper() if variant else 'model of other dimensions'
        lead = f'this is a {name(theirs)} checkpoint, the configuration says {name(ours)}. '
    elif set(shapes) and all(key.startswith(CLASSIFIER) for key in shapes):
        found, wanted = next(iter(shapes.values()))
        lead = f'the checkpoint has {found[0]} classes, the configuration {wanted[0]}. '
    else:
        lead = ''
    return f'{source}: does not fit the configuration: {lead}{_listing(missing, unexpected, shapes)}'


def _listing(missing, unexpected, shapes):
    def some(items):
        items = list(items)
        return ', '.join(items[:5]) + (f' and {len(items) - 5} more' if len(items) > 5 else '')
    parts = []
    if missing:
        parts.append(f'missing keys: {some(missing)}')
    if unexpected:
        parts.append(f'unexpected keys: {some(unexpected)}')
    if shapes:
        parts.append('shapes: ' + some(f'{key} is {a}, expected {b}' for key, (a, b) in shapes.items()))
    return '; '.join(parts)


# --- Foreign names -----------------------------------------------------------------------------------------------

def _translate(state):
    for prefix in ('module.', 'model.'):
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix):]: value for key, value in state.items()}
    if any(re.search(r'\bpatch_embed1\.', key) for key in state):
        return _join_attention(_rename(state, _NVLABS))
    if any('patch_embeddings.0.' in key or 'stages.0.patch_embeddings.' in key for key in state):
        return _join_attention(_rename(state, _HUGGING_FACE))
    if any(key.startswith('layers.') for key in state) and not any(key.startswith('backbone.') for key in state):
        return {f'backbone.{key}': value for key, value in state.items()}
    return state


def _minus_one(text):
    return str(int(text) - 1)


_BLOCK_PARTS = {
    'layer_norm_1': 'norm1', 'layer_norm_2': 'norm2', 'norm1': 'norm1', 'norm2': 'norm2',
    'attn.q': 'attn.attn.q', 'attn.kv': 'attn.attn.kv', 'attn.proj': 'attn.attn.out_proj', 'attn.sr': 'attn.sr',
    'attn.norm': 'attn.norm', 'attention.self.query': 'attn.attn.q', 'attention.self.key': 'attn.attn.k',
    'attention.self.value': 'attn.attn.v', 'attention.self.sr': 'attn.sr', 'attention.self.layer_norm': 'attn.norm',
    'attention.output.dense': 'attn.attn.out_proj', 'mlp.fc1': 'ffn.layers.0', 'mlp.dense1': 'ffn.layers.0',
    'layernorm_before': 'norm1', 'layernorm_after': 'norm2', 'attention.q_proj': 'attn.attn.q',
    'attention.k_proj': 'attn.attn.k', 'attention.v_proj': 'attn.attn.v', 'attention.o_proj': 'attn.attn.out_proj',
    'attention.sequence_reduction.sequence_reduction': 'attn.sr',
    'attention.sequence_reduction.layer_norm': 'attn.norm',
    'mlp.dwconv.dwconv': 'ffn.layers.1', 'mlp.fc2': 'ffn.layers.4', 'mlp.dense2': 'ffn.layers.4',
}


def _block(stage, block, part, leaf):
    return f'backbone.layers.{stage}.1.{block}.{_BLOCK_PARTS.get(part, part)}.{leaf}'


_LEAF = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_NVLABS = (
    (rf'(?:backbone\.)?patch_embed(\d)\.proj\.{_LEAF}',
     lambda m: f'backbone.layers.{_minus_one(m[1])}.0.projection.{m[2]}'),
    (rf'(?:backbone\.)?patch_embed(\d)\.norm\.{_LEAF}',
     lambda m: f'backbone.layers.{_minus_one(m[1])}.0.norm.{m[2]}'),
    (rf'(?:backbone\.)?block(\d)\.(\d+)\.(.+)\.{_LEAF}', lambda m: _block(_minus_one(m[1]), m[2], m[3], m[4])),
    (rf'(?:backbone\.)?norm(\d)\.{_LEAF}', lambda m: f'backbone.layers.{_minus_one(m[1])}.2.{m[2]}'),
    (rf'decode_head\.linear_c(\d)\.proj\.{_LEAF}',
     lambda m: f'decode_head.convs.{_minus_one(m[1])}.conv.{m[2]}'),
    (rf'decode_head\.linear_fuse\.(conv|bn)\.{_LEAF}', lambda m: f'decode_head.fusion_conv.{m[1]}.{m[2]}'),
    (rf'decode_head\.linear_pred\.{_LEAF}', lambda m: f'decode_head.conv_seg.{m[1]}'),
)
_HUGGING_FACE = (
    (rf'(?:segformer\.)?encoder\.patch_embeddings\.(\d)\.proj\.{_LEAF}',
     lambda m: f'backbone.layers.{m[1]}.0.projection.{m[2]}'),
    (rf'(?:segformer\.)?encoder\.patch_embeddings\.(\d)\.layer_norm\.{_LEAF}',
     lambda m: f'backbone.layers.{m[1]}.0.norm.{m[2]}'),
    (rf'(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.(.+)\.{_LEAF}', lambda m: _block(m[1], m[2], m[3], m[4])),
    (rf'(?:segformer\.)?encoder\.layer_norm\.(\d)\.{_LEAF}', lambda m: f'backbone.layers.{m[1]}.2.{m[2]}'),
    (rf'(?:segformer\.)?stages\.(\d)\.patch_embeddings\.(?:(proj)|layer_norm)\.{_LEAF}',
     lambda m: f'backbone.layers.{m[1]}.0.{"projection" if m[2] else "norm"}.{m[3]}'),
    (rf'(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.(.+)\.{_LEAF}', lambda m: _block(m[1], m[2], m[3], m[4])),
    (rf'(?:segformer\.)?stages\.(\d)\.layer_norm\.{_LEAF}', lambda m: f'backbone.layers.{m[1]}.2.{m[2]}'),
    (rf'decode_head\.(?:linear_c|linear_projections)\.(\d)\.proj\.{_LEAF}',
     lambda m: f'decode_head.convs.{m[1]}.conv.{m[2]}'),
    (rf'decode_head\.linear_fuse\.{_LEAF}', lambda m: f'decode_head.fusion_conv.conv.{m[1]}'),
    (rf'decode_head\.batch_norm\.{_LEAF}', lambda m: f'decode_head.fusion_conv.bn.{m[1]}'),
    (rf'decode_head\.classifier\.{_LEAF}', lambda m: f'decode_head.conv_seg.{m[1]}'),
)
_MATRIX_CONVS = re.compile(r'(ffn\.layers\.[04]|decode_head\.convs\.\d\.conv)\.weight$')


def _rename(state, rules):
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
        elif key == 'decode_head.fusion_conv.conv.weight':
            value = torch.cat(value.chunk(4, dim=1)[::-1], dim=1)  # there the coarsest stage comes first
        renamed[key] = value
    return renamed


def _join_attention(state):
    """Stack separate query, key and value matrices into `in_proj_*`."""
    joined = {}
    for key, value in state.items():
        match = re.fullmatch(r'(.*\.attn\.attn)\.(q|k|v|kv)\.(weight|bias)', key)
        if not match:
            joined[key] = value
        elif match[2] == 'q':
            rest = ('kv',) if f'{match[1]}.kv.{match[3]}' in state else ('k', 'v')
            parts = [value] + [state[f'{match[1]}.{part}.{match[3]}'] for part in rest]
            joined[f'{match[1]}.in_proj_{match[3]}'] = torch.cat(parts)
    return joined
