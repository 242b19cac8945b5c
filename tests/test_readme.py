"""Every command and every piece of code in the READMEs is run, in an environment of its own, as printed.

The package is installed there from a copy of this checkout by the README's own command; everything else that is
installed is what the tests run with. Ids resolve to the loopback hub, which serves a model of the published form and
another size (143,508 parameters) for all of them. A block that is not run says why in a comment above it.
"""
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hub.coco_stuff import make_pairs, training_files
from hub.environments import environment_beside
from hub.fixtures import published_files
from hub.server import Hub
from PIL import Image

from ms_segformer.cli.main import COMMANDS
from ms_segformer.datasets.coco_stuff import RAW_TO_TRAIN
from ms_segformer.metainfo import VARIANTS

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ROOT / 'README.md', ROOT / 'README_zh-CN.md'
RUN = {'bash', 'python'}
NOT_RUN = re.compile(r'<!-- not run: (.+) -->')
IMAGE_URL = 'https://modelscope.oss-cn-beijing.aliyuncs.com/test/images/image_semantic_segmentation.jpg'
WHAT_IS_INSTALLED = '''
import ms_segformer
from ms_segformer.metainfo import configuration_dir
print(ms_segformer.__file__, *(len(list(configuration_dir().glob(f'*/{name}'))) for name in ('*.json', 'README.md')))
'''
NEEDS = {'Export': 'onnx'}  # heading -> package beyond those of the tests
AT_THE_TOP = ('Two commands', 'Install')  # sections whose commands are for a checkout; the others for a user's folder


@dataclass
class Block:
    """One fenced block: the heading it stands under, its language, its text, and why it is not run if it is not."""

    heading: str
    language: str
    text: str
    not_run: str | None


def blocks(path):
    """The fenced blocks of a README in order."""
    found, heading, marker, lines = [], None, None, iter(path.read_text(encoding='utf-8').splitlines())
    for line in lines:
        if line.startswith('## '):
            heading = line[3:]
        elif line.startswith('```'):
            text = []
            while (inner := next(lines)) != '```':
                text.append(inner)
            found.append(Block(heading, line[3:], '\n'.join(text), marker and marker[1]))
        marker = NOT_RUN.fullmatch(line)
    return found


def sections():
    """Headings of the English README that have something to run, in order."""
    runnable = [block for block in blocks(ENGLISH) if block.language in RUN and not block.not_run]
    return list(dict.fromkeys(block.heading for block in runnable))


class Sandbox:
    """A checkout, a user's folder, and an environment in which their commands run against the loopback hub."""

    def __init__(self, folder, hub):
        self.hub = hub
        self.checkout = shutil.copytree(ROOT, folder / 'checkout', ignore=shutil.ignore_patterns(
            '.*', 'build', 'dist', '*.egg-info', '*.so', '__pycache__', 'work_dirs', 'outputs'))
        self.folder = folder / 'work'
        self.folder.mkdir()
        self.prefix = folder / 'environment'
        environment_beside(self.prefix)
        self._script('pip', 'exec python -m pip "$@" --no-deps --no-index --no-build-isolation --quiet')
        self._script('torchrun', 'exec python -m torch.distributed.run "$@"')
        self.variables = {
            **os.environ, 'OMP_NUM_THREADS': '1', 'HOME': str(folder), 'MS_SEGFORMER_CACHE': str(folder / 'compiled'),
            'VIRTUAL_ENV': str(self.prefix), 'PATH': f'{self.prefix / "bin"}{os.pathsep}{os.environ["PATH"]}',
            **hub.environment(folder / 'cache', proxy=hasattr(hub, 'certificate'))}
        self.variables.pop('PYTHONPATH', None)
        self.installed = False

    def _script(self, name, command):
        path = self.prefix / 'bin' / name
        path.write_text(f'#!/bin/sh\n{command}\n')
        path.chmod(0o755)

    def install(self):
        """Run the README's installation once."""
        if not self.installed:
            first = next(block for block in blocks(ENGLISH) if block.heading == 'Install' and block.language == 'bash')
            self.run(first)
            self.installed = True

    def run(self, block, **variables):
        """Run one block; returns its output, both streams. Fails with it when the exit code is not 0."""
        folder = self.checkout if block.heading in AT_THE_TOP else self.folder
        command = ['bash', '-euo', 'pipefail', '-c', block.text]
        if block.language == 'python':
            script = self.folder / 'block.py'
            script.write_text(block.text + '\n', encoding='utf-8')
            command = [str(self.prefix / 'bin' / 'python'), str(script)]
        done = subprocess.run(command, cwd=folder, env={**self.variables, **variables}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900)
        if done.returncode:
            pytest.fail(f'exit {done.returncode} of\n{block.text}\n\n{done.stdout[-6000:]}', pytrace=False)
        return done.stdout


@pytest.fixture(scope='module')
def sandbox(tmp_path_factory):
    pytest.importorskip('setuptools', reason='pip install . needs setuptools')
    if shutil.which('bash') is None:
        pytest.skip('needs bash')
    folder = tmp_path_factory.mktemp('readme')
    photograph = (ROOT / 'assets' / 'china.jpg').read_bytes()
    with Hub() as hub:
        files = training_files(published_files(), epochs=2, image_scale=(64, 48), crop=(32, 32))
        for variant in VARIANTS.values():
            for model_id in variant.hub_ids:
                hub.add_model(model_id, files)
        hub.add_file(IMAGE_URL.split('.com')[1], photograph)
        if shutil.which('openssl'):
            hub.trust(IMAGE_URL.split('/')[2])
        made = Sandbox(folder, hub)
        furnish(made.folder, photograph)
        yield made


def furnish(folder, photograph):
    """Put into a user's folder what the README takes for granted."""
    (folder / 'street.jpg').write_bytes(photograph)
    (folder / 'photos').mkdir()
    for name, colour in (('a.jpg', (90, 120, 200)), ('b.png', (60, 140, 50))):
        Image.new('RGB', (96, 64), colour).save(folder / 'photos' / name)
    shutil.copy(ROOT / 'tests' / 'cards' / 'card_predict.py', folder)
    own_data(folder / 'my_data')
    raw_coco_stuff(folder / 'coco', folder.parent)


def own_data(folder):
    generator = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        for number in range(count):
            label = np.repeat([1, 2, 0], (20, 14 + number, 14 - number)).astype(np.uint8)[:, None].repeat(64, 1)
            image = np.array([(90, 90, 90), (120, 170, 230), (200, 30, 30)], np.uint8)[label]
            image += generator.integers(0, 20, image.shape, np.uint8)
            for kind, pixels in (('images', image), ('annotations', label)):
                path = folder / kind / split / f'{number}.{"jpg" if kind == "images" else "png"}'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    (folder / 'classes.txt').write_text('road\nsky\ncar\n')


def raw_coco_stuff(folder, scratch):
    """Images and official label maps as their zips unpack: the pairs of the tests with ids 0–181."""
    converted = make_pairs(scratch / 'converted')
    to_raw = np.full(256, 255, np.uint8)
    to_raw[RAW_TO_TRAIN[:182]] = np.arange(182)
    to_raw[255] = 255
    for split in ('train2017', 'val2017'):
        shutil.copytree(converted / split, folder / 'images' / split)
        (folder / 'stuffthingmaps' / split).mkdir(parents=True)
        for path in (converted / 'annotations' / split).iterdir():
            name = path.name.replace('_labelTrainIds', '')
            Image.fromarray(to_raw[np.asarray(Image.open(path))]).save(folder / 'stuffthingmaps' / split / name)


@pytest.mark.parametrize('heading', sections())
def test_what_the_readme_says_runs(sandbox, heading):
    runnable = [block for block in blocks(ENGLISH) if block.heading == heading and block.language in RUN]
    if any(name in block.text for block in runnable for name in (IMAGE_URL, 'card_predict.py')):
        if not hasattr(sandbox.hub, 'certificate'):
            pytest.skip('needs the openssl command, for a certificate of the host in the card\'s URL')
    if heading in NEEDS:
        pytest.importorskip(NEEDS[heading], reason=f'needs {NEEDS[heading]}')
    sandbox.install()
    outputs = [sandbox.run(block, **variables_for(block, sandbox)) for block in runnable if not block.not_run]
    if heading in AFTERWARDS:
        AFTERWARDS[heading](sandbox, outputs)


def variables_for(block, sandbox):
    """`make` takes the sandbox's environment for one it has set up already: there is no registry to install from."""
    if not block.text.startswith('make '):
        return {}
    (sandbox.prefix / '.ready').touch()
    return {'VENV': str(sandbox.prefix)}


def after_demo(sandbox, outputs):
    assert re.search(r'\d\.\d\d%  \S.+ score 0\.\d\d', outputs[0]), outputs[0]
    overlay, = (sandbox.checkout / 'outputs').rglob('*_overlay.jpg')
    assert Image.open(overlay).width > 640, 'a photograph and its legend'


def after_install(sandbox, outputs):
    assert all('WARNING' not in output for output in outputs), outputs  # of extras that do not exist
    where, configurations, cards = sandbox.run(Block('', 'python', WHAT_IS_INSTALLED, None)).split()
    assert where.startswith(str(sandbox.prefix)), 'the installed package, not this checkout'
    assert (configurations, cards) == ('6', '6')


def after_card(sandbox, outputs):
    assert "'labels': [" in outputs[0] and 'segmentation output:' in outputs[0]
    assert sandbox.hub.asked('CONNECT') and sandbox.hub.asked('pytorch_model.pt')


def after_result(sandbox, outputs):
    lines = outputs[0].splitlines()
    assert any(re.fullmatch(r'.+: score 0\.\d\d, \d+\.\d% of the image', line) for line in lines), lines
    assert any('missing.jpg' in line and 'no such file' in line for line in lines), lines


def after_command_line(sandbox, outputs):
    folder = sandbox.folder / 'outputs'
    written = {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}
    assert {f'{name}{suffix}' for name in ('street', 'photos/a', 'photos/b')
            for suffix in ('_labels.png', '_overlay.jpg', '.json')} | {'manifest.jsonl'} == written
    assert all(command in outputs[1] for command in COMMANDS) and 'checkpoint loads: yes' in outputs[1]


def after_large_images(sandbox, outputs):
    labels = Image.open(sandbox.folder / 'large' / 'street_labels.png')
    assert labels.size == Image.open(sandbox.folder / 'street.jpg').size


def after_export(sandbox, outputs):
    assert outputs[0].splitlines()[-1] == 'exported/model.onnx'
    assert (sandbox.folder / 'exported' / 'model.onnx').stat().st_size > 500_000


def after_offline(sandbox, outputs):
    assert (sandbox.folder / 'models' / 'b2' / 'pytorch_model.pt').is_file()
    assert outputs[0].count('Works without a network now') == 2 and 'checkpoint loads: yes' in outputs[0]


def after_check(sandbox, outputs):
    assert '| strict load | ok |' in outputs[0] and '| china.jpg, label map of another machine | ok |' in outputs[0]
    assert (sandbox.folder / 'verify.json').is_file()


def after_training(sandbox, outputs):
    for run in ('run', 'run2', 'run3', 'shapes_run'):
        assert (sandbox.folder / run / 'output' / 'pytorch_model.pt').is_file(), run
    assert 0 <= float(outputs[0].split()[-1]) <= 1
    assert float(re.search(r'mIoU (\d+\.\d+) %', outputs[1])[1]) > 70, outputs[1]
    assert (sandbox.folder / 'classes.png').is_file() and 'no problems' in outputs[2]
    assert 'all pixels' in outputs[2] and 'all pixels' in outputs[4]
    prepared = {path.name for path in (sandbox.folder / 'coco_stuff164k').iterdir()}
    assert {'annotations', 'train.txt', 'val.txt', 'train2017', 'val2017'} <= prepared


AFTERWARDS = {'Two commands': after_demo, 'Install': after_install, "The model card's code": after_card,
              'The result': after_result, 'Command line': after_command_line,
              'Large images': after_large_images, 'Export': after_export, 'Without a network': after_offline,
              'Training': after_training, 'Check a model': after_check}


def test_few_blocks_are_not_run_and_each_says_why():
    not_run = [block for block in blocks(ENGLISH) if block.not_run]
    assert len(not_run) <= 3 and all(len(block.not_run) > 20 for block in not_run)
    for block in not_run:  # they are real commands nevertheless
        program, *arguments = block.text.split()
        command = ['make', '-n', *arguments] if program == 'make' else ['bash', '-n', '-c', block.text]
        assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0, block.text


def test_the_code_of_the_card_is_the_cards_with_one_line_above():
    block = next(block for block in blocks(ENGLISH) if IMAGE_URL in block.text)
    card = (ROOT / 'tests' / 'cards' / 'card_predict.py').read_text(encoding='utf-8')
    assert block.text == 'import ms_segformer\n' + card.rstrip('\n')


def test_the_chinese_readme_has_the_same_blocks():
    def comparable(path):
        return [(block.language, block.text, block.not_run is not None) for block in blocks(path)
                if block.language in RUN]
    assert comparable(CHINESE) == comparable(ENGLISH)


@pytest.mark.parametrize('path', [ENGLISH, CHINESE], ids=['English', 'Chinese'])
def test_links_and_numbers_are_right(path):
    text = path.read_text(encoding='utf-8')
    links = [link for link in re.findall(r'\]\(([^)]+)\)', text) if '://' not in link and not link.startswith('#')]
    missing = [link for link in links if not (ROOT / link).exists()]
    assert links and not missing
    for variant in VARIANTS.values():
        row = (f'| {variant.name.upper()} | {variant.parameters / 1e6:.2f} M | {variant.published_miou:.2f} '
               f'| {variant.published_latency_ms} ms |')
        assert row in text
    table = set(re.findall(r'^\| (`.*`) \|', text, re.MULTILINE))
    named = {name for cell in table for name in re.findall(r'`([a-z-]+)', cell)}
    assert set(COMMANDS) <= named
    headings = [len(re.findall('^##+ ', found.read_text(encoding='utf-8'), re.MULTILINE)) for found in (ENGLISH, path)]
    assert headings[0] == headings[1]


