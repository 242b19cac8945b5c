"""`ms-segformer info [MODEL]`: what is installed, who serves SegFormer, and the state of a model. For bug reports."""

import argparse
import json
import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import SegformerError
from ..integrations.modelscope.autoload import DISABLE_VARIABLE, active
from ..metainfo import VARIANTS, Variant, find_model, variant_of_hub_id
from ..version import __version__, installed

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..models.segformer import Segformer

HELP = 'show versions, who serves SegFormer here, and whether a model is complete and loads'
PACKAGES = (
    'ms-segformer',
    'modelscope',
    'modelscope-hub',
    'torch',
    'numpy',
    'opencv-python',
    'opencv-python-headless',
    'Pillow',
    'av',
    'safetensors',
    'datasets',
    'oss2',
    'openvino',
    'onnxruntime',
    'onnx',
    'nncf',
    'transformers',
    'pai-easycv',
    'mmcv',
    'mmcv-full',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'model', nargs='?', help='a model directory, a hub id, or b0 to b5 for short; nothing is downloaded'
    )
    parser.add_argument('--json', action='store_true', help='print JSON')


def run(args: argparse.Namespace) -> int:
    report: dict[str, dict] = {'environment': environment()}
    if args.model is None:
        report['published models'] = published_models()
    else:
        report['model'] = model(args.model)
    print(json.dumps(report, indent=2) if args.json else _text(report))
    return 0 if report.get('model', {}).get('checkpoint loads', True) is not False else 1


def environment() -> dict[str, str]:
    """Versions, and who serves SegFormer in this environment: a dict of texts."""
    import platform  # imported late: takes 8 ms, and --help is to be fast

    import torch

    from ..integrations.modelscope import autoload, patches
    from . import autoload as cli_autoload

    for name in sorted(autoload.MODULES - {'modelscope_hub.api'}):  # so that what does not connect shows here
        import_module(name)
    return {
        'versions': ', '.join(f'{name} {version}' for name, version in _versions().items()),
        'python': f'{platform.python_version()} on {platform.platform()}',
        'hardware': _hardware(torch),
        'served by': _server(),
        'autoload': cli_autoload.status(),
        'connection to ModelScope': '; '.join(patches.problems()) or 'complete',
        'cache': _cache(),
    }


def published_models() -> dict[str, str]:
    """The six published models: id -> published figures, and where its copy is."""
    from ..integrations.modelscope.offline_hub import cached_copy

    return {
        variant.hub_ids[0]: _published(variant)
        + ', '
        + (
            f'in {found}'
            if (found := next(filter(None, map(cached_copy, variant.hub_ids)), None))
            else f'not fetched: ms-segformer fetch {variant.name}'
        )
        for variant in VARIANTS.values()
    }


def model(name: str) -> dict[str, str | bool]:
    """What a model is and whether it can be used: a dict of texts; `checkpoint loads` is False when it cannot.

    Args:
        name: a directory, a hub id, `b0` … `b5`, or `demo`.

    Raises:
        FileNotFoundError: none of these.
    """
    from ..integrations.modelscope.offline_hub import cached_copy

    model_id = find_model(name)
    if Path(model_id).is_dir():
        return _directory(Path(model_id))
    variant = variant_of_hub_id(model_id)
    found = cached_copy(model_id)
    about = {'id': model_id, **({'published': _published(variant)} if variant else {})}
    if found is None:
        return {**about, 'files': f'not in the cache; `ms-segformer fetch {model_id}` brings them'}
    return {**about, **_directory(Path(found))}


def _directory(folder: 'Path') -> dict[str, str | bool]:
    from ..config.reader import read_configuration  # imported late: takes 30 ms, and --help is to be fast

    files = ', '.join(
        f'{path.name} ({path.stat().st_size:,} bytes)'
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith('.')
    )
    about = {'directory': str(folder), 'files': files or 'none'}
    try:
        settings = read_configuration(folder)
    except (SegformerError, OSError) as error:
        return {**about, 'configuration': str(error), 'checkpoint loads': False}
    about['variant'] = settings.model.variant.upper() if settings.model.variant else 'none of B0 to B5'
    about['classes'] = f'{len(settings.classes)} names, {settings.model.head.num_classes} outputs'
    return {**about, **_network(folder, settings)}


def _network(folder: 'Path', settings: 'Settings') -> dict[str, str | bool]:
    from ..models.checkpoint import find_checkpoint, load_state, read_checkpoint
    from ..models.pickle_interpreter import shown
    from ..models.segformer import Segformer

    network = Segformer(str(folder), **settings.model_section)
    about = {'parameters': f'{sum(parameter.numel() for parameter in network.parameters()):,}'}
    try:
        path = find_checkpoint(folder)
        state, meta = read_checkpoint(path)
        load_state(network, state, str(path))
    except (SegformerError, OSError) as error:
        return {**about, 'checkpoint loads': False, 'why not': str(error)}
    said = ', '.join(
        f'{key} {shown(meta[key])}'
        for key in ('epoch', 'iter', 'time', 'mmcv_version', 'easycv_version')
        if isinstance(meta.get(key), (int, float, str))
    )
    return {
        **about,
        **({'checkpoint says': said} if said else {}),
        'checkpoint loads': True,
        'engine': _engine(network),
        **_int8(network),
    }


def _engine(network: 'Segformer') -> str:
    from ..engines import create_engine

    network.prepare_inference()
    try:
        engine = create_engine(network)
        return f'{engine.name}, {engine.precision}'
    except (SegformerError, RuntimeError, ImportError) as error:
        return f'none: {error}'


def _int8(network: 'Segformer') -> dict[str, str]:
    """What the directory's int8 networks say of themselves, or why they cannot be used."""
    from ..engines.base import EngineError
    from ..engines.int8 import engines_with_int8, read_int8

    found = {}
    for engine in engines_with_int8(network.model_dir):
        try:
            found[f'int8, {engine}'] = read_int8(network, engine).record.summary()
        except EngineError as error:
            found[f'int8, {engine}'] = str(error)
    return found


def _published(variant: Variant) -> str:
    return (
        f'{variant.parameters:,} parameters, {variant.published_miou} mIoU on COCO-Stuff 164k, '
        f'{variant.published_latency_ms} ms per image on a V100 (model card)'
    )


def _server() -> str:

    versions = _versions()
    easycv = f'pai-easycv {versions["pai-easycv"]}' if 'pai-easycv' in versions else None
    if not active():
        return f'{easycv or "nothing"}: {DISABLE_VARIABLE} is set'
    return 'ms-segformer' + (f'; the other models of EasyCV by {easycv}' if easycv else '')


def _versions() -> dict[str, str]:
    return {**installed(PACKAGES), 'ms-segformer': __version__}


def _hardware(torch: ModuleType) -> str:
    if torch.cuda.is_available():
        return f'{torch.cuda.get_device_name()}, {os.cpu_count()} CPUs'
    return f'{os.cpu_count()} CPUs ({torch.get_num_threads()} threads), no CUDA device'


def _cache() -> str:
    where = os.environ.get('MODELSCOPE_CACHE')
    endpoint = os.environ.get('MODELSCOPE_ENDPOINT')
    return (where or os.path.join('~', '.cache', 'modelscope')) + (f', hub {endpoint}' if endpoint else '')


def _text(report: dict[str, dict]) -> str:
    lines: list[str] = []
    for title, content in report.items():
        lines += ['', title] if lines else [title]
        lines += [f'  {key}: {_word(value)}' for key, value in content.items()]
    return '\n'.join(lines)


def _word(value: str | bool) -> str:
    return value if isinstance(value, str) else 'yes' if value else 'no'
