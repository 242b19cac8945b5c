"""A disk with a few bytes free: predict, train, export, prepare and the cache each have to stop in one line.

    python -m campaigns.disk_full --seed 1 --cases 60

The disk is a tmpfs of a few megabytes that the case mounts for itself (root, in a mount namespace of its own), filled
up to a random number of bytes; without root a limit on the size of a file stands for it. Each command either ends well
or with exit code 1 and one line that begins with `error:`; then no temporary and no half-written file may be left, and
what stood there before must be as it was. After room was made the command, or `--resume`, has to end well and leave
what an unbroken run leaves. The cache of compiled networks costs a warning, not the result.
"""

import ctypes
import dataclasses
import json
import os
import pickle
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from modelscope.utils.config import Config
from PIL import Image
from tiny_run import CLASSES, make_data, shrink

from campaigns import kill_training
from campaigns.commands import TRACES, Ended, run, tree
from campaigns.frame import TINY_MODEL, Campaign, Run, main
from ms_segformer.config.jsonplus import encode_jsonplus
from ms_segformer.files import TEMPORARY
from ms_segformer.models.torch_file import read_torch_file

DISK = 24 << 20
NOTES = re.compile(
    r'\d{4}-\d\d-\d\d [\d:,]+ - modelscope - (INFO|WARNING) - |note: |WARNING: .* dropped |'
    r'\d+ of \d+ images segmented|.*broken.jpg'
)


class Stopped(Exception):
    """A run that ended in one line, and left everything in order: the clear error of this campaign."""


@dataclasses.dataclass
class Scenario:
    """A command, and what it leaves when nothing is in its way.

    Attributes:
        arguments: of the command; its current folder is the disk.
        again: its arguments once there is room.
        before: files that stand on the disk when it starts.
        left: what an unbroken run leaves, as `look` sees it.
        size: bytes that it writes.
        look: the files of a folder in a form that can be compared.
        code: its exit code when all goes well.
        environment: variables, with the disk as `DISK`.
    """

    arguments: list[str]
    again: list[str]
    before: dict[str, bytes] = dataclasses.field(default_factory=dict)
    left: dict = dataclasses.field(default_factory=dict)
    size: int = 0
    look: Callable[[Path], dict] = tree
    code: int = 0
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Common:
    folder: Path
    scenarios: dict[str, Scenario]


def prepare(folder: Path) -> Common:
    """Make images, data and models on the ordinary disk."""
    os.environ['MS_SEGFORMER_CACHE'] = str(folder / 'cache')
    (folder / 'disk').mkdir()
    model, photos, data, maps = small_model(folder / 'model'), folder / 'photos', folder / 'data', folder / 'maps'
    write_images(photos, maps)
    make_data(data)
    predict = ['predict', str(photos), '--model', str(TINY_MODEL), '-o', 'out', '--device', 'cpu', '--engine', 'torch']
    train = [
        'train',
        str(model),
        '--data',
        str(data),
        '--classes',
        ','.join(CLASSES),
        '--work-dir',
        'run',
        '--seed',
        '3',
        '--device',
        'cpu',
        '--options',
        'train.checkpoint.period.interval=1',
        '--epochs',
    ]
    coco = [
        'prepare',
        'coco-stuff',
        '--images',
        str(photos / 'coco'),
        '--stuffthingmaps',
        str(maps),
        '-o',
        'coco',
        '-j',
        '1',
    ]
    scenarios = {
        'predict': Scenario(predict, predict, code=1),
        'predict, into earlier results': Scenario([*predict, '--overwrite'], [*predict, '--overwrite'], code=1),
        'train': Scenario([*train, '3'], [*train, '3', '--resume'], look=of_a_training),
        'train, resumed': Scenario([*train, '5', '--resume'], [*train, '5', '--resume'], look=of_a_training),
        'prepare coco-stuff': Scenario(coco, coco),
        'prepare example': Scenario(['prepare', 'example', '-o', 'example'], ['prepare', 'example', '-o', 'example']),
        'compiled networks': Scenario(
            [*predict[:-1], 'openvino'],
            [*predict[:-1], 'openvino', '--overwrite'],
            code=1,
            environment={'MS_SEGFORMER_CACHE': 'DISK/cache'},
        ),
    }
    for form in ('onnx', 'openvino'):
        arguments = ['export', str(TINY_MODEL), '-o', 'exported', '--format', form]
        scenarios[f'export, {form}'] = Scenario(arguments, arguments)
        scenarios[f'export, {form}, over an earlier one'] = Scenario(arguments, arguments)
    return Common(folder, scenarios)


def unbroken(name: str, common: Common) -> Scenario:
    """A scenario with what it begins with and leaves: it is run on the ordinary disk once."""
    folder, scenario, kept = common.folder, common.scenarios[name], common.folder / f'unbroken {name}'
    if kept.exists():
        scenario.before, scenario.left, scenario.size = pickle.loads(kept.read_bytes())
        return scenario
    place = folder / 'unbroken'
    place.mkdir()
    if 'resumed' in name:
        check(run(common.scenarios['train'].arguments, place, folder / 'log'), 0)
    elif 'earlier one' in name:
        check(run([*scenario.arguments, '--size', '64', '64'], place, folder / 'log'), 0)
    elif 'earlier results' in name:
        arguments = [*scenario.arguments[:-1], '--full-size']
        check(run(arguments, place, folder / 'log'), 1)
    scenario.before = tree(place)
    check(run(scenario.arguments, place, folder / 'log', placed(scenario, place)), scenario.code)
    scenario.left = scenario.look(place)
    scenario.size = max(1 << 16, sum(map(len, tree(place).values())) - sum(map(len, scenario.before.values())))
    shutil.rmtree(place)
    kept.write_bytes(pickle.dumps((scenario.before, scenario.left, scenario.size)))
    return scenario


def small_model(folder: Path) -> Path:
    """The tiny model with the settings of a short training."""
    shutil.copytree(TINY_MODEL, folder)
    content = shrink(Config.from_file(str(folder / 'configuration.json')))._cfg_dict.to_dict()
    (folder / 'configuration.json').write_text(json.dumps(encode_jsonplus(content)))
    return folder


def write_images(photos: Path, maps: Path) -> None:
    """Eight images, one of them broken; and two splits of COCO-Stuff's layout."""
    random = np.random.default_rng(0)
    photos.mkdir()
    for number in range(8):
        Image.fromarray(random.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(photos / f'{number}.png')
    (photos / 'broken.jpg').write_bytes(b'\xff\xd8')
    for split in ('train2017', 'val2017'):
        (photos / 'coco' / split).mkdir(parents=True)
        (maps / split).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(random.integers(91, 181, (60, 80), dtype=np.uint8)).save(maps / split / f'{number}.png')
            Image.new('RGB', (80, 60)).save(photos / 'coco' / split / f'{number}.jpg')


def of_a_training(folder: Path) -> dict:
    """What a training leaves, without what differs by its clock and identity."""
    return {f'run/{name}': content for name, content in kill_training.contents(folder / 'run').items()}


def make(random: np.random.Generator, common: Common) -> tuple[str, Run]:
    """A scenario, with some room."""
    names = list(common.scenarios)
    name = names[random.integers(len(names))]
    scenario = unbroken(name, common)
    free = int(random.integers(0, 9000)) if random.random() < 0.25 else int(random.uniform(0, 1.1) * scenario.size)
    return name, lambda: one(scenario, common.folder, free)


def one(scenario: Scenario, folder: Path, free: int) -> str:
    """Run a command with some bytes free, and again with room."""
    disk, log = folder / 'disk', folder / 'log'
    mounted = mount(disk)
    for path, content in scenario.before.items():
        (disk / path).parent.mkdir(parents=True, exist_ok=True)
        (disk / path).write_bytes(content)
    if mounted:
        fill(disk, free)
    first = run(
        scenario.arguments, disk, log, placed(scenario, disk), (lambda: None) if mounted else lambda: limit_files(free)
    )
    try:
        well = judge(scenario, first, disk)
        (disk / 'filler').unlink(missing_ok=True)
        second = run(scenario.again, disk, log, placed(scenario, disk))
        check(second, scenario.code)
        compare(scenario.left, scenario.look(disk))
    except AssertionError as error:
        raise AssertionError(f'{free} bytes free: {error}') from None
    finally:
        if not mounted:
            shutil.rmtree(disk)
            disk.mkdir()
    if well:
        return f'that ended well ({"tmpfs" if mounted else "RLIMIT_FSIZE"})'
    raise Stopped(f'{free} bytes free: {first.lines[-1]}')


def judge(scenario: Scenario, ended: Ended, disk: Path) -> bool:
    """Look at what a command has said and left; returns whether it had room enough."""
    said = [line for line in ended.lines if not NOTES.match(line)]
    if any(trace in ended.err for trace in TRACES):
        raise AssertionError(f'a traceback: {ended.err[-1500:]!r}')
    caching = bool(scenario.environment)
    if not caching and ended.code not in (scenario.code, 1):
        raise AssertionError(f'exit code {ended.code}: {ended.err[-500:]!r}')
    well = ended.code == scenario.code and not any(line.startswith('error:') for line in said)
    if caching:
        said = [line for line in said if not line.startswith('WARNING: compiled networks are not kept')]
    if not well and len(said) == 1 and said[0].startswith('error: '):
        said = []
    if said:
        raise AssertionError(f'exit code {ended.code}, not one line: {said}')
    found = tree(disk)
    left = [name for name in found if TEMPORARY in name]
    if left:
        raise AssertionError(f'left behind: {left}')
    for name, content in scenario.before.items():
        if found.get(name) != content and not after_all(scenario, disk, name):
            raise AssertionError(f'{name} was there before and is no more as it was')
    for name in found:
        if name not in scenario.before and name != 'filler':
            whole(scenario, disk, name)
    return well


def after_all(scenario: Scenario, disk: Path, name: str) -> bool:
    """Whether a file that has changed is what the command was to make of it, or grows line by line."""
    if name.endswith(('.log', '.log.json', 'manifest.jsonl')):
        return True
    now = scenario.look(disk)
    if name not in now:
        return name not in scenario.left
    return now[name] == scenario.left.get(name) or name.endswith(('.pt', '.pth', '.json', '.txt'))


def whole(scenario: Scenario, disk: Path, name: str) -> None:
    """Raise unless a new file is complete."""
    path = disk / name
    if path.suffix in ('.pt', '.pth'):
        read_torch_file(path)
    elif path.suffix == '.json' and not name.endswith('.log.json'):
        json.loads(path.read_text())
    elif scenario.look is tree and path.name != 'manifest.jsonl' and 'cache/' not in name:
        if scenario.left.get(name) != path.read_bytes():
            raise AssertionError(f'{name} is not what an unbroken run leaves')


def compare(expected: dict, found: dict) -> None:
    differences = kill_training.compare(
        {name: content for name, content in expected.items() if 'cache/' not in name},
        {name: content for name, content in found.items() if 'cache/' not in name},
    )
    if differences:
        raise AssertionError(f'with room, not what an unbroken run leaves: {differences[:5]}')


def check(ended: Ended, code: int) -> None:
    if ended.code != code or any(trace in ended.err for trace in TRACES):
        raise AssertionError(f'with room, exit code {ended.code}: {ended.err[-1500:]}')


def placed(scenario: Scenario, disk: Path) -> dict[str, str]:
    return {name: value.replace('DISK', str(disk)) for name, value in scenario.environment.items()}


def mount(disk: Path) -> bool:
    """Mount an empty tmpfs that only this process and its children see; False where that is not allowed."""
    system = ctypes.CDLL(None, use_errno=True)
    new_namespace, private, recursive = 0x20000, 1 << 18, 1 << 14
    if os.geteuid() or system.unshare(new_namespace) or system.mount(b'none', b'/', None, private | recursive, None):
        return False
    return system.mount(b'tmpfs', os.fsencode(disk), b'tmpfs', 0, b'size=%d' % DISK) == 0


def fill(disk: Path, free: int) -> None:
    """Leave about `free` bytes (a tmpfs counts in pages)."""
    room = os.statvfs(disk)
    with open(disk / 'filler', 'wb') as file:
        file.write(bytes(max(0, room.f_bavail * room.f_frsize - free)))


def limit_files(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


CAMPAIGN = Campaign(
    'disk full', prepare, make, (Stopped,), cases=60, seconds=300, batch=1, watched=False, headroom=False
)

if __name__ == '__main__':
    sys.exit(main(CAMPAIGN))
