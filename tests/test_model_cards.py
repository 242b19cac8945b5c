"""The model cards under configuration/ are up to date, in ModelScope's form, and print the code the tests run."""
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ms_segformer.metainfo import NUM_OUTPUTS, TASK, VARIANTS

ROOT = Path(__file__).parents[1]
VARIANT = pytest.mark.parametrize('variant', VARIANTS.values(), ids=VARIANTS)


@pytest.fixture(scope='module')
def model_cards():
    spec = importlib.util.spec_from_file_location('model_cards', ROOT / 'tools' / 'model_cards.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(variant):
    return (ROOT / 'configuration' / variant.model_name / 'README.md').read_text(encoding='utf-8')


@VARIANT
def test_the_card_is_what_the_template_gives(model_cards, variant):
    assert read(variant) == model_cards.card(variant), 'run `python tools/model_cards.py`'


@VARIANT
def test_its_code_is_the_scripts_of_the_tests_for_its_model(variant):
    """Character by character, but for the model's name; once in the Chinese half and once in the English one."""
    printed = re.findall(r'```python\n(.*?)```', read(variant), re.DOTALL)
    scripts = [(ROOT / 'tests' / 'cards' / f'card_{name}.py').read_text(encoding='utf-8')
               for name in ('predict', 'train', 'finetune')]
    assert printed == 2 * [code.replace('segformer-b0', f'segformer-{variant.name}').rstrip('\n') + '\n'
                           for code in scripts]
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
    row = (f'| **SegFormer-{variant.name.upper()}** | **{variant.parameters / 1e6:.2f} M** '
           f'| **{variant.published_latency_ms}** | **{variant.published_miou:.2f}** |')
    assert text.count(row) == 2 and text.count(f'{variant.parameters:,}') == 2
    assert f'短边缩放到 {variant.short_side} 像素' in text and f'Short side to {variant.short_side} pixels' in text
    assert f'{NUM_OUTPUTS} outputs' in text
    assert '$' not in text.replace('${data_root}', ''), 'a placeholder was left'


def test_the_check_names_a_card_that_is_out_of_date(model_cards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(model_cards, 'path_of', lambda variant: tmp_path / variant.model_name / 'README.md')
    monkeypatch.setattr(model_cards, 'ROOT', tmp_path)
    assert model_cards.main(['--check']) == 1 and capsys.readouterr().out.count('not up to date') == 6
    assert model_cards.main([]) == 0 and model_cards.main(['--check']) == 0
    changed = model_cards.path_of(VARIANTS['b3'])
    changed.write_text(changed.read_text(encoding='utf-8').replace('768', '769'), encoding='utf-8')
    capsys.readouterr()
    assert model_cards.main(['--check']) == 1
    assert capsys.readouterr().out.split('\n')[0].endswith(f'{VARIANTS["b3"].model_name}/README.md')


def test_the_command_runs_as_its_docstring_says():
    done = subprocess.run([sys.executable, 'tools/model_cards.py', '--check'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
