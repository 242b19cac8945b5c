"""Images per second of a training step, loader included, against the same training written with `transformers`.

    python benchmarks/train_throughput.py [--data DIR] [--steps 4] [--rounds 5] [--threads 1] [--amp bf16]

Both train B0 with 172 outputs from random weights on 512×512 inputs, two a step, AdamW 6e-5. Ours is the published
configuration through `build_trainer`, hooks and all; theirs is the library's documented recipe: its image processor
resizes to 512×512, color jitter, `SegformerForSemanticSegmentation(pixel_values, labels)`, float32. The two take turns
of a few steps in one process, so that whatever else the machine does slows both. Time to the first iteration is that of
a new process, imports included.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.measure import synchronize  # noqa: E402

SIZE, OUTPUTS = 512, 172


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', help='folder with train2017 and annotations/train2017; default: pictures made up')
    parser.add_argument('--steps', type=int, default=3, help='steps of a turn')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=2, help='images a step (default: %(default)s)')
    parser.add_argument('--workers', type=int, default=0, help='processes that load data, of each side')
    parser.add_argument(
        '--amp', choices=('bf16', 'fp16'), help='mixed precision; on a CPU of our side only (theirs stays in float32)'
    )
    parser.add_argument('--json', help='write the numbers here')
    parser.add_argument('--first', choices=('ours', 'theirs'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(args.data or made_up(Path(folder) / 'data', 8 if args.device == 'cpu' else 16 * args.batch))
        if args.first:
            sides(args, data, folder)[args.first]()()
            return
        first = {name: first_iteration(name, data, args) for name in ('ours', 'theirs')}
        report(args, measure(args, data, folder), first)


def sides(args, data, folder):
    return {'ours': lambda: ours(data, folder, args), 'theirs': lambda: theirs(data, args)}


def measure(args, data, folder):
    """Seconds per step of each side and turn: wall clock and processor."""
    steps = {name: make() for name, make in sides(args, data, folder).items()}
    times = {name: [] for name in steps}
    for step in steps.values():  # memory is allocated, lazily built parts are built
        step()
    finish = synchronize(args.device)
    for _ in range(args.rounds):
        for name, step in steps.items():
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(args.steps):
                step()
            finish()
            passed = time.perf_counter() - wall, time.process_time() - processor
            times[name].append([seconds / args.steps for seconds in passed])
    return times


def ours(data, folder, args):
    """A function that does one training step with this package's trainer."""
    import torch
    from modelscope.trainers import build_trainer

    from ms_segformer.metainfo import VARIANTS, configuration_dir

    torch.set_num_threads(args.threads)
    trainer = build_trainer(
        'easycv',
        {
            'cfg_file': str(configuration_dir() / VARIANTS['b0'].model_name / 'configuration.json'),
            'amp': args.amp,
            'data_root': str(data),
            'work_dir': str(Path(folder) / 'run'),
            'seed': 0,
            'max_epochs': 10_000,
            'device': args.device,
            'cfg_options': {
                'model.pretrained': None,
                'evaluation.period': None,
                'train.dataloader.workers_per_gpu': args.workers,
                'train.dataloader.batch_size_per_gpu': args.batch,
            },
        },
    )
    trainer.prepare()
    trainer.invoke_hook('before_run')
    trainer.invoke_hook('before_train_epoch')

    def batches():
        while True:
            yield from trainer.train_dataloader

    stream = batches()
    return lambda: trainer.train_iteration(next(stream))


def theirs(data, args):
    """A function that does one training step with transformers."""
    import numpy as np
    import torch
    from PIL import Image, ImageEnhance
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    processor = SegformerImageProcessor(size={'height': SIZE, 'width': SIZE})
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=OUTPUTS)).train().to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-5)
    random = np.random.RandomState(0)
    files = sorted((data / 'train2017').glob('*.jpg'))

    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, index):
            image = Image.open(files[index]).convert('RGB')
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhance(image).enhance(random.uniform(0.75, 1.25))
            label = Image.open(data / 'annotations' / 'train2017' / f'{files[index].stem}_labelTrainIds.png')
            sample = processor(images=image, segmentation_maps=label, return_tensors='pt')
            return {key: value[0] for key, value in sample.items()}

    on_gpu = args.device != 'cpu'
    loader = torch.utils.data.DataLoader(
        Pairs(),
        args.batch,
        shuffle=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
        pin_memory=on_gpu,
        drop_last=True,
    )
    dtype = {'bf16': torch.bfloat16, 'fp16': torch.float16}.get(args.amp) if on_gpu else None
    scaler = torch.amp.GradScaler(args.device, enabled=dtype == torch.float16) if on_gpu else None

    def batches():
        while True:
            yield from loader

    stream = batches()

    def step():
        batch = next(stream)
        pixels, labels = (batch[key].to(args.device, non_blocking=True) for key in ('pixel_values', 'labels'))
        with torch.autocast(args.device, dtype) if dtype else nullcontext():
            loss = model(pixel_values=pixels, labels=labels.long()).loss
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
        return loss.item()

    return step


def first_iteration(name, data, args):
    """Seconds from the start of a process to the end of its first step."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, __file__, '--first', name, '--data', str(data), '--threads', str(args.threads)]
        + ['--device', args.device, '--batch', str(args.batch), '--workers', str(args.workers)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, 'MODELSCOPE_LOG_LEVEL': '40'},
    )
    return time.perf_counter() - began


def report(args, times, first):
    rates = {
        name: {
            'wall': args.batch / statistics.median(wall for wall, _ in values),
            'processor': args.batch / statistics.median(processor for _, processor in values),
        }
        for name, values in times.items()
    }
    print(
        f'| B0, {SIZE}×{SIZE}, batch {args.batch}, {where(args)} | images/s | images per processor second | '
        'first iteration after, s |'
    )
    print('|-|-|-|-|')
    for name, label in (('ours', f'ms-segformer{", " + args.amp if args.amp else ""}'), ('theirs', 'transformers')):
        print(f'| {label} | {rates[name]["wall"]:.2f} | {rates[name]["processor"]:.2f} | {first[name]:.1f} |')
    turns = [theirs[0] / ours[0] for ours, theirs in zip(times['ours'], times['theirs'], strict=True)]
    print(
        f'ratio of images/s {rates["ours"]["wall"] / rates["theirs"]["wall"]:.2f} (turns {min(turns):.2f} to '
        f'{max(turns):.2f}), of images per processor second '
        f'{rates["ours"]["processor"] / rates["theirs"]["processor"]:.2f}'
    )
    if args.json:
        Path(args.json).write_text(json.dumps({'rates': rates, 'first_iteration': first, 'turns': turns}, indent=2))


def where(args):
    """What the steps ran on."""
    import torch

    gpu = '' if args.device == 'cpu' else f'{torch.cuda.get_device_name()}, {args.workers} loading processes, '
    return f'{gpu}{args.threads} thread(s)'


def made_up(root, count=8):
    """Noisy pictures of 640×480 with label maps, and the list of them that the configuration names."""
    import cv2
    import numpy as np

    random = np.random.RandomState(0)
    for folder in ('train2017', 'annotations/train2017'):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        small = random.randint(0, 171, (12, 16)).astype(np.uint8)
        label = cv2.resize(small, (640, 480), interpolation=cv2.INTER_NEAREST)
        image = cv2.resize(random.randint(0, 256, (60, 80, 3)).astype(np.uint8), (640, 480))
        cv2.imwrite(str(root / 'train2017' / f'{number}.jpg'), image)
        cv2.imwrite(str(root / 'annotations' / 'train2017' / f'{number}_labelTrainIds.png'), label)
    (root / 'train.txt').write_text(''.join(f'{number}\n' for number in range(count)))
    return root


if __name__ == '__main__':
    main()
