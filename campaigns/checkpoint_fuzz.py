"""Mutated checkpoints: each has to give tensors or a `CheckpointError`, in bounded time and memory, running nothing.

    python -m campaigns.checkpoint_fuzz --seed 1 --cases 3000

Bases: the tiny model as EasyCV exports it, in zip and legacy form; a file with numpy numbers, dates, paths, a class
that is not installed and a shell command in its pickle, in both forms; a file of this package; where ../shared is
there, the oracle's exported ones. Mutations: bits flipped, bytes overwritten, pieces cut out or copied from another
place, ends cut off; and for zip files the same in the pickle or the numbers alone, under checksums made right again.
Beside them files with odd values in their meta and weights, and pickles that are programs: large values kept and asked
for again by random opcodes, thousands of times. What is read is loaded into the tiny model; odd files are also
converted and described.

A file whose bytes a checksum covers and that gives other tensors than it was made of is a fault; one with right
checksums or none is not, and is counted apart.
"""

import dataclasses
import encodings.cp437  # noqa: F401  (how zipfile reads names of old)
import encodings.unicode_escape  # noqa: F401
import io
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from exported import save_exported
from models.test_torch_file import foreign, save

from campaigns.frame import ROOT, TINY_MODEL, Campaign, Run, main
from campaigns.mutations import mutated
from ms_segformer.cli import info
from ms_segformer.config.reader import read_configuration
from ms_segformer.models.checkpoint import CheckpointError, load_state, read_checkpoint
from ms_segformer.models.convert import convert
from ms_segformer.models.segformer import Segformer
from ms_segformer.models.torch_file import write_torch_file


@dataclasses.dataclass
class Common:
    """The files to mutate with the tensors in them, a model to load into, and a folder."""

    folder: Path
    files: dict[Path, dict[str, torch.Tensor]]
    model: Segformer


def prepare(folder: Path) -> Common:
    """Write the files to mutate, and read each once: that imports what reading takes."""
    torch.set_num_threads(1)
    state, _ = read_checkpoint(TINY_MODEL / 'pytorch_model.pt')
    save_exported(folder / 'exported_legacy.pt', state, legacy=True)
    for legacy in (False, True):
        save(
            {'state_dict': state, 'meta': foreign(f'touch {folder}/ran'), 'optimizer': {'step': torch.tensor(1.0)}},
            folder / f'foreign_{legacy}.pt',
            legacy=legacy,
        )
    write_torch_file(folder / 'ours.pt', {'state_dict': state, 'meta': {'epoch': 3}})
    paths = [
        TINY_MODEL / 'pytorch_model.pt',
        *sorted(folder.glob('*.pt')),
        *sorted((ROOT.parent / 'shared' / 'oracle' / 'exported').glob('*.pt*')),
    ]
    describe_and_convert(paths[0], folder)
    return Common(
        folder,
        {path: read_checkpoint(path)[0] for path in paths},
        Segformer(**read_configuration(TINY_MODEL).model_section),
    )


COVERED = 'under old checksums'
LARGE = (  # values of about a megabyte that one opcode can fetch again, kept under 0
    b'X\x00\x00\x10\x00' + b'x' * (1 << 20),
    b'(' + b'K\x01' * 100_000 + b't',
    b']q\x02(' + b'K\x01' * 100_000 + b'e',
    b'\x8b\x00\x00\x10\x00' + b'\x7f' * (1 << 20),
    b')' + b'\x85' * 100_000,
    b'B\x00\x00\x10\x00' + b'x' * (1 << 20),
    b'}(' + b''.join(b'J' + i.to_bytes(4, 'little') + b'N' for i in range(100_000)) + b'u',
    b'ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000'
    b'X\x03\x00\x00\x00cpuJ\x60\x04\x00\x00NtQK\x00K\x02\x85K\x01\x85\x89)tR',
)
CALLED = (
    b'ccollections\nOrderedDict\n',
    b'cbuiltins\nset\n',
    b'ctorch\nSize\n',
    b'c_codecs\nencode\n',
    b'cnumpy\ndtype\n',
    b'cnumpy.core.multiarray\nscalar\n',
    b'cnumpy.core.multiarray\n_reconstruct\n',
    b'ctorch._utils\n_rebuild_tensor_v2\n',
    b'ctorch._utils\n_rebuild_parameter\n',
    b'cos\nsystem\n',
)
STEPS = (
    b'h\x00',
    b'h\x01',
    b'N',
    b'K\x01',
    b'\x85',
    b'\x86',
    b'\x87',
    b'R',
    b'\x81',
    b'b',
    b'0',
    b'2',
    b']',
    b'}',
    b')',
    b'a',
    b's',
    b'(',
    b't',
    b'l',
    b'd',
    b'e',
    b'u',
    b'1',
    b'Q',
    b'\x93',
    b'\x8f',
    b'\x90',
    b'\x91',
    b'o',
)


def program(random: np.random.Generator) -> bytes:
    """A pickle that keeps two values and then does a few steps with them again and again."""

    def some(choices):
        return choices[random.integers(len(choices))]

    steps = b''.join(some(STEPS) for _ in range(random.integers(2, 8)))
    if random.random() < 0.5:  # what is likeliest to run through: a call, an item, a name
        steps = some(
            (
                b'h\x01h\x00\x85R',
                b'h\x01h\x00R',
                b'h\x00h\x01\x93',
                b'}h\x00N\x73',
                b'h\x01h\x00N\x86R',
                b'h\x00Q',
                b'h\x01h\x00b',
            )
        ) + some((b'', b'0'))
    return (
        b'\x80\x04'
        + some(LARGE)
        + b'q\x00'
        + some((*LARGE, *CALLED, *CALLED))
        + b'q\x01'
        + steps * int(10 ** random.uniform(0, 4.5))
        + b'.'
    )


def odd_content(state: dict, random: np.random.Generator) -> dict:
    """A checkpoint with values nobody expects."""
    odd = [
        None,
        True,
        10**20,
        1e300,
        float('nan'),
        '',
        'x' * 10_000,
        '\x1b[2J\n',
        b'x',
        (),
        [],
        {},
        [[]],
        {1: 2},
        {'a'},
        torch.ones(2),
        torch.tensor(1),
        torch.ones(0, 3),
        torch.ones(3, dtype=torch.complex64),
        torch.ones(2) == 1,
        torch.ones(1).expand(10_000, 10_000),
        np.float32(2),
        np.arange(5),
        ['a'] * 171,
        ['a'] * 172,
        [None] * 171,
        [[0, 0, 0]] * 171,
        [[0, 'a', 0]] * 171,
        [torch.ones(3)] * 171,
        torch.ones(2, 2).to_sparse(),
    ]

    def some(count):
        return [odd[i] for i in random.integers(len(odd), size=count)]

    state = dict(state)
    for key in random.choice(sorted(state), random.integers(0, 3)):
        state[key] = some(1)[0]
    meta = dict(zip(('CLASSES', 'PALETTE', 'config', 'epoch', 'iter', 'time'), some(6), strict=True))
    if random.random() < 0.5:
        meta['config'] = dict(zip(('CLASSES', 'PALETTE'), some(2), strict=True))
    return {'state_dict': state, 'meta': meta if random.random() < 0.9 else some(1)[0], 'optimizer': some(1)[0]}


def made_or_mutated(path: Path, state: dict, random: np.random.Generator) -> tuple[str, bytes]:
    """The content of a case."""
    content = path.read_bytes()
    kind = random.random()
    if kind < 0.2:
        buffer = io.BytesIO()
        torch.save(odd_content(state, random), buffer)
        return 'odd values', buffer.getvalue()
    if kind < 0.4:
        target = io.BytesIO()
        with zipfile.ZipFile(target, 'w') as archive:
            archive.writestr('archive/data.pkl', program(random))
            archive.writestr('archive/data/0', bytes(4 * 1120))
        return 'programs', target.getvalue()
    if not content.startswith(b'PK') or random.random() < 0.4:
        return COVERED if content.startswith(b'PK') else 'legacy form, no checksums', mutated(content, random)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    names = [name for name in entries if name.endswith('data.pkl')] if random.random() < 0.7 else list(entries)
    name = names[random.integers(len(names))]
    entries[name] = mutated(entries[name], random)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, part in entries.items():
            archive.writestr(name, part)
    return 'under new checksums', buffer.getvalue()


def describe_and_convert(path: Path, folder: Path) -> None:
    """What `ms-segformer info` and the conversion make of a file; a model directory is there in full or not at all."""
    directory, target = folder / 'model', folder / 'converted'
    directory.mkdir(exist_ok=True)
    shutil.copy(TINY_MODEL / 'configuration.json', directory)
    shutil.copy(path, directory / 'pytorch_model.pt')
    said = info.model(str(directory))
    if len(str(said)) > 5000 or not str(said.get('checkpoint says', '')).isprintable():
        raise AssertionError(f'info says too much: {str(said)[:200]}')
    try:
        convert(path, target)
    except CheckpointError as error:
        if target.exists():
            raise AssertionError(f'left behind by {error}') from None
    shutil.rmtree(target, ignore_errors=True)


def make(random: np.random.Generator, common: Common) -> tuple[str, Run]:
    """A file, and what reads it."""
    source = list(common.files)[random.integers(len(common.files))]
    kind, content = made_or_mutated(source, common.files[source], random)
    target = common.folder / 'case.pt'
    target.write_bytes(content)
    return kind, lambda: read(target, common, common.files[source], kind)


def read(target: Path, common: Common, expected: dict[str, torch.Tensor], kind: str) -> str:
    """Read a file in every way there is; returns whether it holds the tensors of its source."""
    if kind == 'odd values':
        describe_and_convert(target, common.folder)
    try:
        state, _ = read_checkpoint(target)
        load_state(common.model, state, str(target))
    except CheckpointError as error:
        if str(target) not in str(error):
            raise AssertionError(f'no file named: {error}') from None
        raise
    finally:
        if (common.folder / 'ran').exists():
            raise AssertionError('the command in the pickle has run')
    if state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in state):
        return 'as they were'
    if kind == COVERED:
        raise AssertionError('other tensors under a checksum')
    return 'with other tensors, where no checksum is against it'


CAMPAIGN = Campaign('checkpoints', prepare, make, (CheckpointError,), cases=3000)

if __name__ == '__main__':
    sys.exit(main(CAMPAIGN))
