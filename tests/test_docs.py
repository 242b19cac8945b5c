"""Every command and every piece of code in the README and the guides is run, in an environment of its own, as printed.

The package is installed there from a copy of this checkout by the README's own command; everything else that is
installed is what the tests run with. Ids resolve to the loopback hub, which serves a model of the published form and
another size (143,508 parameters) for all of them. A block that is not run says why in a comment above it. A block that
stands on two pages runs once. A service that a block starts takes a free port in place of the one in the text; the
first one stays for the other blocks, each further one is ended once it is ready.
"""

import ast
import importlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hub.coco_stuff import make_pairs, training_files
from hub.environments import environment_beside
from hub.fixtures import published_files
from hub.server import BY_PROXY, Hub
from PIL import Image
from videos import make_clip

from ms_segformer.cli.main import COMMANDS
from ms_segformer.cli.serve import NEEDED as SERVE_NEEDS
from ms_segformer.datasets.coco_stuff import RAW_TO_TRAIN
from ms_segformer.metainfo import VARIANTS

ROOT = Path(__file__).parents[1]
# Each page in English and in Chinese. The README is first: its commands install the package.
PAGES = {ROOT / 'README.md': ROOT / 'README_zh-CN.md'}
PAGES |= {
    page: ROOT / 'docs' / 'zh' / page.name
    for page in sorted((ROOT / 'docs' / 'en').glob('*.md'))
    if page.name != 'api.md'
}  # docstrings, in English only
COMMAND_LINE = ''.join(path.read_text(encoding='utf-8') for path in (ROOT / 'ms_segformer' / 'cli').glob('*.py'))
# argparse's, torchrun's, the benchmarks', ModelScope's server's
OPTIONS_OF_OTHERS = {'--help', '--nproc_per_node', '--variant', '--int8', '--model_id', '--revision'}
EVERY_PAGE = [page for pair in PAGES.items() for page in pair]
RUN = {'bash', 'python'}
NOT_RUN = re.compile(r'<!-- not run: (.+) -->')
IMAGE_URL = 'https://modelscope.oss-cn-beijing.aliyuncs.com/test/images/image_semantic_segmentation.jpg'
WHAT_IS_INSTALLED = """
import ms_segformer
from ms_segformer.metainfo import configuration_dir
print(ms_segformer.__file__, *(len(list(configuration_dir().glob(f'*/{name}'))) for name in ('*.json', 'README.md')))
"""
# Heading -> package beyond those of the tests.
NEEDS = {'Export': 'onnx', 'INT8': 'nncf', 'Video': 'av', 'Where to read on': 'sphinx'}
PAGE_NEEDS = {'gpu': ['onnx', 'onnxruntime'], 'serve': SERVE_NEEDS, 'ray': ['ray']}
FOR_A_CHECKOUT = ('make ', 'pip install ')  # how blocks start that run in a checkout; the others in a user's folder
SERVICE = 'ms-segformer serve '  # how blocks start that serve until they are ended
ADDRESS = 'http://127.0.0.1:8000'  # of the service in the text


@dataclass
class Block:
    """One fenced block: its page and heading, its language, its text, and why it is not run if it is not."""

    page: str
    heading: str
    language: str
    text: str
    not_run: str | None


def blocks(path):
    """The fenced blocks of a page in order."""
    found, heading, marker, lines = [], None, None, iter(path.read_text(encoding='utf-8').splitlines())
    for line in lines:
        if line.startswith(('# ', '## ')):
            heading = line.split(' ', 1)[1]
        elif line.startswith('```'):
            text = []
            while (inner := next(lines)) != '```':
                text.append(inner)
            found.append(Block(path.stem, heading, line[3:], '\n'.join(text), marker and marker[1]))
        marker = NOT_RUN.fullmatch(line)
    return found


def english_blocks():
    return [block for page in PAGES for block in blocks(page) if block.language in RUN]


def sections():
    """Page and heading of the English sections that have something to run, in order."""
    return list(dict.fromkeys((block.page, block.heading) for block in english_blocks() if not block.not_run))


class Sandbox:
    """A checkout, a user's folder, and an environment in which their commands run against the loopback hub."""

    def __init__(self, folder, hub):
        self.hub = hub
        self.checkout = shutil.copytree(
            ROOT,
            folder / 'checkout',
            ignore=shutil.ignore_patterns(
                '.*', 'build', 'dist', '*.egg-info', '*.so', '__pycache__', 'work_dirs', 'outputs'
            ),
        )
        self.folder = folder / 'work'
        self.folder.mkdir()
        self.prefix = folder / 'environment'
        environment_beside(self.prefix)
        self._script('pip', 'exec python -m pip "$@" --no-deps --no-index --no-build-isolation --quiet')
        self._script('torchrun', 'exec python -m torch.distributed.run "$@"')
        self.variables = {
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'HOME': str(folder),
            'MS_SEGFORMER_CACHE': str(folder / 'compiled'),
            'VIRTUAL_ENV': str(self.prefix),
            'PATH': f'{self.prefix / "bin"}{os.pathsep}{os.environ["PATH"]}',
            **hub.environment(folder / 'cache', proxy=hasattr(hub, 'certificate')),
            # The hub's b0 is the tiny model, which has no bf16 where there is AMX (models/bfloat16.py).
            'ONEDNN_MAX_CPU_ISA': 'AVX512_CORE_BF16',
        }
        self.variables.pop('PYTHONPATH', None)
        self.outputs = {}
        self.service, self.address = None, ADDRESS

    def _script(self, name, command):
        path = self.prefix / 'bin' / name
        path.write_text(f'#!/bin/sh\n{command}\n')
        path.chmod(0o755)

    def install(self):
        """Run the README's installation."""
        self.run(next(block for block in english_blocks() if block.heading == 'Install'))

    def run(self, block):
        """Run a block, once; returns its output, both streams. Fails with it when the exit code is not 0."""
        if block.text not in self.outputs:
            if block.text.startswith(SERVICE):
                self.outputs[block.text] = self._serve(block)
            else:
                self.outputs[block.text] = self._run(block, **variables_for(block, self))
        return self.outputs[block.text]

    def _serve(self, block):
        """Start a service and wait until it is ready; returns the line with its address."""
        command = re.sub(r' --port \d+', '', block.text) + ' --port 0'
        with open(self.folder / 'service.txt', 'w+') as said:
            process = subprocess.Popen(
                ['bash', '-c', f'exec {command}'],
                cwd=self.folder,
                env=self.variables,
                text=True,
                stdout=subprocess.PIPE,
                stderr=said,
            )
            line = process.stdout.readline()  # ends when the process does
            if not line.startswith('http'):
                process.kill()
                said.seek(0)
                pytest.fail(f'not served:\n{command}\n\n{line}{said.read()[-6000:]}', pytrace=False)
        if self.service is None:
            self.service, self.address = process, line.split()[0]
        else:
            self._end(process)
        return line

    def _end(self, process):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0

    def close(self):
        """End the service that is left."""
        if self.service is not None:
            self._end(self.service)

    def _run(self, block, **variables):
        folder = self.checkout if block.text.startswith(FOR_A_CHECKOUT) else self.folder
        text = block.text.replace(ADDRESS, self.address)
        command = ['bash', '-euo', 'pipefail', '-c', text]
        if block.language == 'python':
            script = self.folder / 'block.py'
            script.write_text(text + '\n', encoding='utf-8')
            command = [str(self.prefix / 'bin' / 'python'), str(script)]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**self.variables, **variables},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=900,
        )
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
            hub.trust('www.modelscope.cn', 'modelscope.cn', IMAGE_URL.split('/')[2])
        made = Sandbox(folder, hub)
        furnish(made.folder, photograph)
        yield made
        made.close()


def furnish(folder, photograph):
    """Put into a user's folder what the pages take for granted."""
    (folder / 'street.jpg').write_bytes(photograph)
    (folder / 'assets').mkdir()
    (folder / 'assets' / 'china.jpg').write_bytes(photograph)
    (folder / 'photos').mkdir()
    for name, color in (('a.jpg', (90, 120, 200)), ('b.png', (60, 140, 50))):
        Image.new('RGB', (96, 64), color).save(folder / 'photos' / name)
    if importlib.util.find_spec('av'):
        make_clip(folder / 'clip.mp4', 3)
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


@pytest.mark.parametrize(('page', 'heading'), sections(), ids=lambda name: name)
def test_what_the_page_says_runs(sandbox, page, heading):
    runnable = [block for block in english_blocks() if (block.page, block.heading) == (page, heading)]
    if any(name in block.text for block in runnable for name in (IMAGE_URL, 'card_predict.py')):
        if not hasattr(sandbox.hub, 'certificate'):
            pytest.skip("needs the openssl command, for a certificate of the host in the card's URL")
    needed = [NEEDS[heading]] if heading in NEEDS else PAGE_NEEDS.get(page, [])
    for name in needed:
        pytest.importorskip(name, reason=f'needs {name}')
    sandbox.install()
    if any(ADDRESS in block.text for block in runnable):
        sandbox.run(next(block for block in english_blocks() if block.page == page and block.text.startswith(SERVICE)))
    outputs = [sandbox.run(block) for block in runnable if not block.not_run]
    if (page, heading) in AFTERWARDS:
        AFTERWARDS[page, heading](sandbox, outputs)


def variables_for(block, sandbox):
    """`make` takes the sandbox's environment for one it has set up already: there is no registry to install from."""
    if not block.text.startswith('make '):
        return {}
    for stamp in ('.ready', '.ready-docs'):
        (sandbox.prefix / stamp).touch()
    return {'VENV': str(sandbox.prefix)}


def after_demo(sandbox, outputs):
    assert re.search(r'\d\.\d\d%  \S.+ score 0\.\d\d', outputs[0]), outputs[0]
    (overlay,) = (sandbox.checkout / 'outputs').rglob('*_overlay.jpg')
    assert Image.open(overlay).width > 640, 'a photograph and its legend'


def after_docs(sandbox, outputs):
    for page in ('en/api.html', 'zh/train.html'):
        assert (sandbox.checkout / 'build' / 'docs' / page).is_file()


def after_install(sandbox, outputs):
    assert all('WARNING' not in output for output in outputs), outputs  # of extras that do not exist
    where, configurations, cards = sandbox.run(Block('', '', 'python', WHAT_IS_INSTALLED, None)).split()
    assert where.startswith(str(sandbox.prefix)), 'the installed package, not this checkout'
    assert (configurations, cards) == ('6', '6')


def after_python(sandbox, outputs):
    assert "'sky-other'" in outputs[0], outputs[0]


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
    assert {
        f'{name}{suffix}'
        for name in ('street', 'photos/a', 'photos/b')
        for suffix in ('_labels.png', '_overlay.jpg', '.json')
    } | {'manifest.jsonl'} == written


def after_video(sandbox, outputs):
    assert {path.name for path in (sandbox.folder / 'clips').iterdir()} == {
        *('clip_overlay.mp4', 'clip.jsonl', 'manifest.jsonl')
    }
    assert re.findall(r'^(0\.\d\d) s: .', outputs[1], re.MULTILINE) == ['0.00', '0.10', '0.20'], outputs[1]


def after_to_a_labeling_tool(sandbox, outputs):
    folder = sandbox.folder / 'labeling'
    names = ('coco.json', 'labelstudio.json', 'labelstudio_config.xml', 'panoptic.json', 'segments.csv', 'formats.json')
    assert all((folder / name).is_file() for name in names)
    assert (folder / 'labelme/photos/a.json').is_file() and (folder / 'masks/photos/b.png').is_file()


def after_back_into_training(sandbox, outputs):
    assert 'no problems' in outputs[0] and trained(sandbox, 'run_labels')


def after_commands(sandbox, outputs):
    assert all(command in outputs[0] for command in COMMANDS)
    assert BY_PROXY or 'checkpoint loads: yes' in outputs[0]  # those releases do not find b0 in the cache


def after_large_images(sandbox, outputs):
    labels = Image.open(sandbox.folder / 'large' / 'street_labels.png')
    assert labels.size == Image.open(sandbox.folder / 'street.jpg').size


def after_serving(sandbox, outputs):
    assert 'demo; the API:' in outputs[1] and 'b0, accurate; the API:' in outputs[2]


def after_api(sandbox, outputs):
    curl, masks, label_map = outputs
    assert '"segments":[{"id":' in curl and '"mask"' not in curl
    assert Image.open(sandbox.folder / 'labels.png').mode == 'P'
    assert Image.open(sandbox.folder / 'overlay.jpg').width > Image.open(sandbox.folder / 'street.jpg').width
    shares = [float(share) for share in re.findall(r'(\d+\.\d)% of the image', masks)]
    assert len(shares) > 3 and shares == sorted(shares, reverse=True) and sum(shares) > 90
    assert label_map.startswith('[0 1 ')


def after_errors(sandbox, outputs):
    assert outputs == ['200\n']


def after_health(sandbox, outputs):
    assert '{"status":"ready"}' in outputs[0] and 'segformer_requests_total{model="demo",status="200"}' in outputs[0]


def after_export(sandbox, outputs):
    assert outputs[0].splitlines()[-1] == 'exported/model.onnx'
    assert (sandbox.folder / 'exported' / 'model.onnx').stat().st_size > 500_000


def after_tensorrt(sandbox, outputs):
    assert {'for_tensorrt/model.onnx', 'for_tensorrt_any_size/model.onnx'} <= set(outputs[1].splitlines())
    assert outputs[2].startswith('(1, 427, 640) uint8 [')


def after_int8(sandbox, outputs):
    assert 'calibrated with 1 photograph;' in outputs[1]
    assert (sandbox.folder / 'b0_int8' / 'openvino_int8' / 'record.json').is_file()


def after_offline(sandbox, outputs):
    assert (sandbox.folder / 'models' / 'b2' / 'pytorch_model.pt').is_file()
    assert outputs[0].count('Works without a network now') == 2 and 'checkpoint loads: yes' in outputs[0]


def after_verify(sandbox, outputs):
    assert '| strict load | ok |' in outputs[0] and '| china.jpg, label map of another machine | ok |' in outputs[0]
    assert (sandbox.folder / 'verify.json').is_file()


def after_own_classes(sandbox, outputs):
    code, command, use = outputs
    assert trained(sandbox, 'run') and trained(sandbox, 'run2')
    assert 0 <= float(code.split()[-1]) <= 1
    assert (sandbox.folder / 'classes.png').is_file() and 'no problems' in command
    assert 'mIoU' in command and 'all pixels' in use


def after_example(sandbox, outputs):
    assert trained(sandbox, 'shapes_run')
    assert float(re.search(r'mIoU (\d+\.\d+) %', outputs[0])[1]) > 70, outputs[0]


def after_processes(sandbox, outputs):
    assert trained(sandbox, 'run3')


def after_coco_stuff(sandbox, outputs):
    prepared = {path.name for path in (sandbox.folder / 'coco_stuff164k').iterdir()}
    assert {'annotations', 'train.txt', 'val.txt', 'train2017', 'val2017'} <= prepared
    assert 'all pixels' in outputs[0]


def trained(sandbox, work_dir):
    return (sandbox.folder / work_dir / 'output' / 'pytorch_model.pt').is_file()


AFTERWARDS = {
    ('README', 'Install'): after_install,
    ('README', 'Two commands'): after_demo,
    ('README', 'In Python'): after_python,
    ('README', "The model card's code"): after_card,
    ('README', 'Where to read on'): after_docs,
    ('index', 'Commands'): after_commands,
    ('install', 'Install'): after_install,
    ('install', 'Without a network'): after_offline,
    ('deploy', 'INT8'): after_int8,
    ('predict', 'In Python'): after_result,
    ('predict', 'From the command line'): after_command_line,
    ('predict', 'Video'): after_video,
    ('predict', 'Large images'): after_large_images,
    ('label', 'To a labeling tool'): after_to_a_labeling_tool,
    ('label', 'Back into training'): after_back_into_training,
    ('verify', 'Verify a model'): after_verify,
    ('deploy', 'Export'): after_export,
    ('gpu', 'TensorRT'): after_tensorrt,
    ('serve', 'Start it'): after_serving,
    ('serve', 'The API'): after_api,
    ('serve', 'Errors'): after_errors,
    ('serve', 'Health and metrics'): after_health,
    ('train', 'Own classes'): after_own_classes,
    ('train', 'Try it without data'): after_example,
    ('train', 'Several processes'): after_processes,
    ('train', 'COCO-Stuff 164k'): after_coco_stuff,
}


def test_what_is_checked_afterwards_is_there():
    assert set(AFTERWARDS) <= set(sections())


def test_few_blocks_are_not_run_and_each_says_why():
    not_run = [block for block in english_blocks() if block.not_run]
    assert len(not_run) <= 7 and all(len(block.not_run) > 20 for block in not_run)
    for block in not_run:  # they are real commands and code nevertheless
        if block.language == 'python':
            compile(block.text, block.page, 'exec')
            continue
        program, *arguments = block.text.split()
        command = ['make', '-n', *arguments] if program == 'make' else ['bash', '-n', '-c', block.text]
        assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0, block.text


def test_the_code_of_the_card_is_the_cards_with_one_line_above():
    found = [block.text for block in english_blocks() if IMAGE_URL in block.text]
    card = (ROOT / 'tests' / 'cards' / 'card_predict.py').read_text(encoding='utf-8')
    assert set(found) == {'import ms_segformer\n' + card.rstrip('\n')}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_the_chinese_page_has_the_same_blocks_and_headings(page):
    def comparable(path):
        return [
            (block.language, block.text, block.not_run is not None) for block in blocks(path) if block.language in RUN
        ]

    def levels(path):
        return [re.match('#+', line)[0] for line in prose(path) if line.startswith('#')]

    assert comparable(PAGES[page]) == comparable(page)
    assert levels(PAGES[page]) == levels(page)


def prose(path):
    """The lines of a page outside its fenced blocks."""
    return re.sub(r'^```.*?^```$', '', path.read_text(encoding='utf-8'), flags=re.DOTALL | re.MULTILINE).splitlines()


def leads_somewhere(page, link):
    path, _, anchor = link.partition('#')
    target = page.parent / path if path else page
    if not anchor or not target.exists():
        return target.exists()
    headings = [re.sub(r'^#+ ', '', line) for line in prose(target) if line.startswith('#')]
    return anchor in {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', EVERY_PAGE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_lines_are_right(page):
    lines = prose(page)
    links = [link for link in re.findall(r'\]\(([^)]+)\)', '\n'.join(lines)) if '://' not in link]
    assert [link for link in links if not leads_somewhere(page, link)] == []
    too_long = [line for line in lines if len(line) > 120 and not line.startswith('|')]
    assert not too_long
    text = '\n'.join(lines)
    files = re.findall(r'`([a-z_]+/[a-z_/]+\.(?:py|c|md|sh))`', text)
    assert [path for path in files if not any((top / path).exists() for top in (ROOT, ROOT / 'ms_segformer'))] == []
    folders = re.findall(r'`((?:tests|tools|configuration)/?[\w-]*)`', text)
    assert [path for path in folders if not (ROOT / path).is_dir()] == []
    options = set(re.findall(r'(?<![\w-])--[a-z][a-z0-9_-]+', text)) - OPTIONS_OF_OTHERS
    assert [option for option in options if f"'{option}'" not in COMMAND_LINE] == []


@pytest.mark.parametrize('page', list(PAGES.items())[0], ids=['English', 'Chinese'])
def test_the_readme_is_short_and_its_table_right(page):
    text = page.read_text(encoding='utf-8')
    assert len(text.split()) <= 1200
    for variant in VARIANTS.values():
        cells = [
            re.sub(r'\[(.+)\]\(.+\)', r'\1', cell.strip())
            for row in text.splitlines()
            if variant.hub_ids[0] in row and row.startswith('|')
            for cell in row.strip('|').split('|')
        ]
        assert cells[:3] == [variant.name.upper(), f'{variant.parameters / 1e6:.2f} M', f'{variant.published_miou:.2f}']
        assert f'{variant.published_latency_ms} ms' in cells


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_the_messages_in_the_troubleshooting_are_those_of_the_code(language):
    text = (ROOT / 'docs' / language / 'troubleshooting.md').read_text(encoding='utf-8').replace('\n', ' ')
    quoted = [
        message
        for bold in re.findall(r'\*\*(.+?)\*\*', text)
        for message in re.findall('`(.+?)`', bold)
        if '…' in message and not re.match(r'\w+Error', message)
    ]
    sources = [ast.parse(path.read_text(encoding='utf-8')) for path in (ROOT / 'ms_segformer').rglob('*.py')]
    messages = {
        with_gaps(node)
        for source in sources
        for node in ast.walk(source)
        if isinstance(node, ast.JoinedStr | ast.Constant)
    }
    messages = {message for message in messages if '\n' not in message}  # those with are docstrings
    assert len(quoted) >= 7
    for message in quoted:
        pattern = re.compile('.*'.join(map(re.escape, message.split('…'))), re.DOTALL)
        assert any(map(pattern.search, messages)), message


def with_gaps(node):
    """A text of the code, with … for what is put into it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return ''.join(part.value if isinstance(part, ast.Constant) else '…' for part in node.values)


@pytest.mark.parametrize('name', ['architecture', 'palette'])
@pytest.mark.parametrize('language', ['en', 'zh'])
def test_a_drawing_is_what_its_script_draws(language, name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    figure = importlib.import_module(f'{name}_figure').figure(language)
    path = ROOT / 'docs' / language / f'{name}.svg'
    assert path.read_text(encoding='utf-8') == figure, f'run `python tools/{name}_figure.py`'


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_the_table_of_commands_is_complete(language):
    text = (ROOT / 'docs' / language / 'index.md').read_text(encoding='utf-8')
    table = re.findall(r'^\| (`.*`) \|', text, re.MULTILINE)
    assert set(COMMANDS) <= {name for cell in table for name in re.findall(r'`([a-z-]+)', cell)}
