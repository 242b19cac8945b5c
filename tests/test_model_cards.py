"""The model cards under configuration/ are up to date, in ModelScope's form, and print the code the tests run."""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml

from ms_segformer.cli import verify
from ms_segformer.metainfo import NUM_OUTPUTS, TASK, VARIANTS

ROOT = Path(__file__).parents[1]
VARIANT = pytest.mark.parametrize('variant', VARIANTS.values(), ids=VARIANTS)


@pytest.fixture(scope='module')
def model_cards():
    sys.path.insert(0, str(ROOT / 'tools'))
    spec = importlib.util.spec_from_file_location('model_cards', ROOT / 'tools' / 'model_cards.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / 'tools'))


def read(variant):
    return (ROOT / 'configuration' / variant.model_name / 'README.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('name', ['README.md', 'framework.svg', 'variants.svg'])
@VARIANT
def test_the_file_is_what_the_tool_writes(model_cards, variant, name):
    path = ROOT / 'configuration' / variant.model_name / name
    assert path.read_text(encoding='utf-8') == model_cards.contents()[path], 'run `python tools/model_cards.py`'


@VARIANT
def test_its_code_is_the_scripts_of_the_tests_for_its_model(variant):
    """Character by character, but for the model's name; once in the Chinese half and once in the English one."""
    printed = re.findall(r'```python\n(.*?)```', read(variant), re.DOTALL)
    scripts = [
        (ROOT / 'tests' / 'cards' / f'card_{name}.py').read_text(encoding='utf-8')
        for name in ('predict', 'train', 'finetune')
    ]
    assert printed == 2 * [
        code.replace('segformer-b0', f'segformer-{variant.name}').rstrip('\n') + '\n' for code in scripts
    ]
    assert all(variant.hub_ids[0] in code for code in printed)


@VARIANT
def test_its_front_matter_is_modelscopes(variant):
    _, front, body = read(variant).split('---\n', 2)
    meta = yaml.safe_load(front)
    configuration = json.loads((ROOT / 'configuration' / variant.model_name / 'configuration.json').read_text())
    assert meta['tasks'] == [TASK] == [configuration['task']]
    assert meta['frameworks'] == ['pytorch'] == [configuration['framework']]
    assert meta['backbone'] == [configuration['model']['backbone']['type']]
    assert meta['license'] == 'Apache License 2.0' and meta['domain'] == ['cv'] and meta['metrics'] == ['mIoU']
    assert body.index('模型描述') < body.index('## Description'), 'Chinese first'


@VARIANT
def test_its_numbers_are_the_models(variant):
    text = read(variant)
    row = (
        f'| **SegFormer-{variant.name.upper()}** | **{variant.parameters / 1e6:.2f} M** '
        f'| **{variant.published_latency_ms}** | **{variant.published_miou:.2f}** |'
    )
    assert text.count(row) == 2 and text.count(f'{variant.parameters:,}') == 2
    assert f'短边缩放到 {variant.short_side} 像素' in text and f'Short side to {variant.short_side} pixels' in text
    assert f'{NUM_OUTPUTS} outputs' in text
    assert '$' not in text.replace('${data_root}', ''), 'a placeholder was left'


@VARIANT
def test_its_figures_are_drawings_with_its_sizes(variant):
    """Whole SVG, small, nothing from elsewhere, on a ground of their own; both stand in both halves of the card."""
    folder = ROOT / 'configuration' / variant.model_name
    words = {}
    for name in ('framework.svg', 'variants.svg'):
        assert read(variant).count(f']({name})') == 2
        content = (folder / name).read_bytes()
        svg = ElementTree.fromstring(content)
        assert len(content) < 16_000 and b'href' not in content and b'url(http' not in content
        width, height = (float(svg.get(side)) for side in ('width', 'height'))
        ground = svg.find('{*}rect')
        assert ground.get('fill') == '#fbfbfd' and float(ground.get('width')) == width - 1
        for drawn in svg.findall('.//{*}text'):
            assert 0 < float(drawn.get('x')) < width and 0 < float(drawn.get('y')) < height
        words[name] = [drawn.text for drawn in svg.findall('.//{*}text')]
    assert [
        f'{channels} × H/{stride} × W/{stride}' in words['framework.svg']
        for channels, stride in zip(variant.embed_dims, (4, 8, 16, 32), strict=True)
    ] == 4 * [True]
    assert [word for word in words['framework.svg'] if word.endswith('blocks')] == [
        f'{depth} blocks' for depth in variant.depths
    ]
    for other in VARIANTS.values():
        assert {
            other.name.upper(),
            f'{other.parameters / 1e6:.2f} M',
            f'{other.published_miou:.2f} %',
            f'{other.published_latency_ms:g} ms',
        } <= set(words['variants.svg'])


@VARIANT
def test_it_says_what_is_published_and_how_to_check(variant):
    commands = re.findall(r'```bash\n(.*?)```', read(variant), re.DOTALL)
    assert commands == 2 * [
        f'ms-segformer verify {variant.name}\nms-segformer verify {variant.name} --data coco_stuff164k\n'
    ]
    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    for command in commands[0].splitlines():
        assert parser.parse_args(command.split()[2:]).model == variant.name
    assert "the publisher's figures" in read(variant) and 'has not been measured again' in read(variant)


def test_the_head_is_drawn_with_the_parameters_it_has(model_cards):
    from ms_segformer.models.segformer_head import SegformerHead

    for variant in VARIANTS.values():
        with torch.device('meta'):
            head = SegformerHead(
                in_channels=list(variant.embed_dims), channels=variant.head_channels, num_classes=NUM_OUTPUTS
            )
        assert model_cards.model_figures.head_parameters(variant) == sum(
            parameter.numel() for parameter in head.parameters()
        )


def test_the_check_names_a_card_that_is_out_of_date(model_cards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(model_cards, 'ROOT', tmp_path)
    for variant in VARIANTS.values():
        model_cards.folder_of(variant).mkdir(parents=True)
    assert model_cards.main(['--check']) == 1 and capsys.readouterr().out.count('not up to date') == 18
    assert model_cards.main([]) == 0 and model_cards.main(['--check']) == 0
    changed = model_cards.folder_of(VARIANTS['b3']) / 'README.md'
    changed.write_text(changed.read_text(encoding='utf-8').replace('768', '769'), encoding='utf-8')
    capsys.readouterr()
    assert model_cards.main(['--check']) == 1
    assert capsys.readouterr().out.split('\n')[0].endswith(f'{VARIANTS["b3"].model_name}/README.md')


def test_the_command_runs_as_its_docstring_says():
    done = subprocess.run([sys.executable, 'tools/model_cards.py', '--check'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
