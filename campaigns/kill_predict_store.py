"""Kills `ms-segformer predict -o s3://…` at random moments and looks whether a second run leaves what an unbroken does.

    python -m campaigns.kill_predict_store --seed 1 --cases 20

Images and results lie in an S3 server on this machine, moto's, which lives on. Each time a process segments 30 images
(one is broken, two share a name) and gets SIGKILL; then a second process is given the same command. Batches have 1, 4
or 64 images. The moment is drawn evenly, in half of the runs from the duration of an unbroken run, in the others from
its part after the first object of the log. Every other time the folder holds the results of an earlier run, since which
half of the images have changed. Besides what `campaigns.kill_predict` looks for, no killed run may replace what is not
its own: a foreign object lies where one image's label map would.
"""

import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter

from campaigns import frame
from campaigns.frame import TINY_MODEL
from campaigns.kill_predict import NAMES, finish, is_result, write_images
from campaigns.s3_server import S3Server

BUCKET = 'bucket'
MORE = tuple(f'many/{number}.png' for number in range(18))
FOREIGN = 'bucket/photos/many/7_labels.png'
BATCHES = (1, 4, 64)
BAD = ('other tree', 'a log after the second run', 'other exit code', 'a foreign object was replaced')
Tree = dict[str, bytes]


def main() -> int:
    parser = frame.arguments(__doc__, cases=20)
    parser.add_argument('--model', default=str(TINY_MODEL), help='default: the tiny one of the tests')
    args = parser.parse_args()
    import modelscope.pipelines  # noqa: F401
    import torch

    import ms_segformer.pipelines.image_segmentation  # noqa: F401
    import ms_segformer.results  # noqa: F401

    torch.set_num_threads(1)
    chance, begun = random.Random(args.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, S3Server() as server:
        os.environ |= {**server.environment, 'MS_SEGFORMER_CACHE': f'{folder}/cache'}
        os.chdir(folder)
        server.client.create_bucket(Bucket=BUCKET)
        upload(server, args.seed, NAMES + MORE)
        server.put(BUCKET, f'out/{FOREIGN}', b'foreign')
        finish(predict_later(args.model, 64))
        earlier = server.tree(BUCKET, 'out/')
        upload(server, args.seed + 1, (NAMES + MORE)[::2])
        starts = {'fresh': {FOREIGN: b'foreign'}, 'changed': earlier}
        unbroken, durations = {}, {}
        for start, content in starts.items():
            fill(server, content)
            began = time.monotonic()
            process = predict_later(args.model, 4)
            wait_for_log(server, process)
            writing = time.monotonic()
            assert finish(process) == 1, 'the broken image'
            durations[start] = time.monotonic() - began, time.monotonic() - writing
            unbroken[start] = server.tree(BUCKET, 'out/')
            results = sum(map(is_result, unbroken[start]))
            assert results == 3 * (len(NAMES + MORE) - 2) + 1, 'three files of all but two images, and the foreign one'
        counts: Counter[str] = Counter()
        tally = frame.Tally()
        for number in range(args.first + args.cases):
            if number > args.first and time.monotonic() - begun > args.seconds:
                break
            start, whole, batch = ('fresh', 'changed')[number % 2], number % 4 < 2, chance.choice(BATCHES)
            moment = chance.uniform(0, durations[start][0 if whole else 1])
            if number < args.first:
                continue
            fill(server, starts[start])
            found = one(server, whole, moment, batch, args.model, starts[start], unbroken[start])
            counts.update(found)
            bad = [what for what in found if what in BAD]
            tally.add(f'{start} folder', 'anything else' if bad else 'results', None if bad else f'killed {found[1]}')
            part = 'the whole' if whole else 'its writing'
            print(
                f'{number:4} {start:8} {moment:6.2f} s of {part}, batches of {batch}: {", ".join(found)}',
                file=sys.stderr,
                flush=True,
            )
    print(
        f'{len(NAMES + MORE)} images, unbroken run '
        + ', '.join(
            f'{whole:.2f} s, {part:.2f} s of it writing ({start})' for start, (whole, part) in durations.items()
        )
    )
    print(', '.join(f'{what}: {times}' for what, times in counts.items()) + '\n')
    return frame.finish('predict into a store, killed', tally, args, time.monotonic() - begun)


def one(server: S3Server, whole: bool, moment: float, batch: int, model: str, start: Tree, unbroken: Tree) -> list[str]:
    """Kill one run `moment` seconds after its start or its first part of a log, run again; returns what was seen."""
    process = predict_later(model, batch)
    if not whole:
        wait_for_log(server, process)
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    found = ['killed' if finish(process) == -signal.SIGKILL else 'ended before']
    left = server.tree(BUCKET, 'out/')
    found.append(
        'before anything was written'
        if left == start
        else 'among the objects'
        if any(left.get(name) != unbroken[name] for name in unbroken if is_result(name))
        else 'after the last result'
        if has_log(left)
        else 'after the manifest'
    )
    if has_log(left):
        found.append('a log left by the kill')
    if left.get(FOREIGN) != b'foreign':
        found.append('a foreign object was replaced')
    if finish(predict_later(model, batch)) != 1:
        found.append('other exit code')
    after = server.tree(BUCKET, 'out/')
    if has_log(after):
        found.append('a log after the second run')
    if after != unbroken:
        found.append('other tree')
        wrong = [name for name in sorted({*after, *unbroken}) if after.get(name) != unbroken.get(name)]
        print(f'differ: {", ".join(wrong)}; the second run said: {open("said").read()!r}', file=sys.stderr)
        for name in wrong[:1]:
            print(
                f'{name}: {after.get(name, b"")[:2000]!r} in place of {unbroken.get(name, b"")[:2000]!r}',
                file=sys.stderr,
            )
    return found


def has_log(tree: Tree) -> bool:
    return any(re.fullmatch(r'manifest\.jsonl\..+', name) for name in tree)


def wait_for_log(server: S3Server, process: int) -> None:
    """Wait until a log is there or the process has ended (it is left to be waited for)."""
    while not server.names(BUCKET, 'out/manifest.jsonl.'):
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.005)


def upload(server: S3Server, seed: int, names: tuple[str, ...]) -> None:
    """Make images, and put them into the bucket."""
    write_images(seed, names)
    for name in names:
        with open(f'photos/{name}', 'rb') as file:
            server.put(BUCKET, f'photos/{name}', file.read())


def fill(server: S3Server, content: Tree) -> None:
    """Let the folder of results hold this, and nothing else."""
    server.remove(BUCKET, 'out/')
    for name, each in content.items():
        server.put(BUCKET, f'out/{name}', each)


def predict_later(model: str, batch: int) -> int:
    """Start the command in a process of its own; returns its number."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(os.open('said', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 2)
        from ms_segformer.cli.main import main as command
        from ms_segformer.results import store_manifest

        store_manifest.BATCH = batch
        places = [f's3://{BUCKET}/photos', '-o', f's3://{BUCKET}/out']
        # torch: OpenVINO's scores may differ in the sixth digit by which shapes a process has seen before.
        code = command(['predict', *places, '--model', model, '--device', 'cpu', '--engine', 'torch'])
    finally:
        os._exit(code)


if __name__ == '__main__':
    sys.exit(main())
