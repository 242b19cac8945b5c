"""Train the demonstration model in bf16, on a CPU or a GPU.

    python recipes/street_demo/train.py --data DATA --start MODEL_DIR --work-dir RUN

Starts from a B0 whose classes include the ten of `classes.py` and keeps their rows of the classifier. The learning rate
rises, stays, and falls to zero over the last part. `--steps` and `--decay-from` say how long that takes; changed in
RUN/schedule.json they take effect at once, so that a run can be brought to its end early. Stopped at any time, the same
command goes on from the last saved state.
"""

import argparse
import copy
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
import torch
from augmentation import Crops, CropSource
from classes import CLASSES, IGNORE
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

from ms_segformer.config.reader import read_configuration
from ms_segformer.files import atomic_write
from ms_segformer.metrics import ConfusionMatrix
from ms_segformer.models.checkpoint import find_checkpoint, read_checkpoint
from ms_segformer.models.segformer import Segformer

SEED = 16
WARMUP = 100
LOG_EVERY = 50
WEIGHT_DECAY = 0.02
EMA = 0.999
LOVASZ = 0.3  # its share beside the cross entropy
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
VAL_SHORT_SIDE, DIVISOR = 576, 32  # with which the model is shipped


class Schedule(TypedDict):
    """Steps in all, the step from which the rate falls, the highest learning rate, and the crops of a step.

    `side` of the crops is in pixels; `scales` is the range of their scales, relative to the photograph.
    """

    steps: int
    decay_from: int
    rate: float
    batch: int
    side: int
    scales: list[float]


def starting_model(start: Path) -> Segformer:
    """B0 with one output a class, from the weights of a model that has these classes among others."""
    configuration = read_configuration(start)
    section = copy.deepcopy(dict(configuration.model_section))
    section['decode_head'].update(num_classes=len(CLASSES))
    section['decode_head']['loss_decode'].pop('class_weight', None)
    section['backbone']['drop_path_rate'] = 0.05
    state, _ = read_checkpoint(find_checkpoint(start))
    rows = [configuration.classes.index(name) for name in CLASSES]
    for key in ('decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'):
        state[key] = state[key][rows]
    model = Segformer(**{key: section[key] for key in section if key != 'type'})
    model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    return model


def read_split(data: Path, split: str) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """RGB images and label maps of `train` or `val`."""
    paths = sorted((data / 'images' / split).glob('*.jpg'))
    images = [np.asarray(Image.open(path).convert('RGB')) for path in paths]
    labels = [np.asarray(Image.open(data / 'annotations' / split / f'{path.stem}.png')) for path in paths]
    return images, labels


def to_input(images: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """N×H×W×3 uint8 RGB to the network's normalized N×3×H×W in channels-last memory."""
    tensor = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(values, dtype=torch.float32, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return tensor.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def lovasz_softmax(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The Lovász extension of 1 - IoU (Berman et al., 2018), averaged over the classes present in the batch.

    Args:
        logits: N×C×h×w float32. labels: N×h×w, `IGNORE` where there is none.
    """
    probabilities = logits.softmax(1).permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    labels = labels.reshape(-1)
    known = labels != IGNORE
    probabilities, labels = probabilities[known], labels[known]
    terms = []
    for class_id in labels.unique().tolist():
        truth = (labels == class_id).float()
        errors, order = (truth - probabilities[:, class_id]).abs().sort(descending=True)
        truth = truth[order]
        intersection = truth.sum() - truth.cumsum(0)
        union = truth.sum() + (1 - truth).cumsum(0)
        jaccard = 1 - intersection / union
        jaccard = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
        terms.append(errors @ jaccard)
    return torch.stack(terms).mean()


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy at the labels' size, and the Lovász loss at the logits'."""
    logits = logits.float()
    upsampled = functional.interpolate(logits, labels.shape[-2:], mode='bilinear', align_corners=False)
    entropy = functional.cross_entropy(upsampled, labels, ignore_index=IGNORE)
    return entropy + LOVASZ * lovasz_softmax(logits, labels[:, 2::4, 2::4])


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Matrices and kernels decay, vectors (norms and biases) do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {'params': [p for p in parameters if p.ndim > 1], 'weight_decay': WEIGHT_DECAY},
        {'params': [p for p in parameters if p.ndim <= 1], 'weight_decay': 0.0},
    ]


def rate_at(step: int, schedule: Schedule) -> float:
    """Learning rate: up over `WARMUP` steps, level, then down to zero as 1 - sqrt(share of the falling part)."""
    rate = schedule['rate'] * min(1.0, (step + 1) / WARMUP)
    if step < schedule['decay_from']:
        return rate
    share = (step - schedule['decay_from']) / max(1, schedule['steps'] - schedule['decay_from'])
    return rate * max(0.0, 1 - math.sqrt(share))


def batches(
    source: CropSource, first: int, workers: int, read: Callable[[], Schedule]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Images and labels of step after step, drawn ahead in threads."""

    def draw(step: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        schedule = read()
        low, high = schedule['scales']
        return source.batch(step, schedule['batch'], Crops(schedule['side'], (low, high)))

    ahead = 2 * workers
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(draw, step) for step in range(first, first + ahead)]
        for step in itertools.count(first + ahead):
            waiting.append(pool.submit(draw, step))
            yield waiting.pop(0).result()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int) -> None:
    """Exponential moving average of weights and running statistics."""
    keep = min(EMA, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)


@torch.inference_mode()
def evaluate(
    model: Segformer, images: list[NDArray[np.uint8]], labels: list[NDArray[np.uint8]], bf16: bool = True
) -> tuple[float, float, list[float]]:
    """mIoU, pixel accuracy and IoU per class over whole images, scaled and padded as the shipped configuration says."""
    model.eval()
    device = next(model.parameters()).device
    matrix = ConfusionMatrix(len(CLASSES))
    for image, label in zip(images, labels, strict=True):
        scale = VAL_SHORT_SIDE / min(label.shape)
        width, height = (int(side * scale + 0.5) for side in label.shape[::-1])
        inputs = to_input(cv2.resize(image, (width, height))[None], device)
        inputs = functional.pad(inputs, (0, -width % DIVISOR, 0, -height % DIVISOR))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model.logits(inputs.contiguous(memory_format=torch.channels_last)).float()
        logits = functional.interpolate(logits, inputs.shape[2:], mode='bilinear', align_corners=False)
        logits = logits[..., :height, :width]
        logits = functional.interpolate(logits, label.shape, mode='bilinear', align_corners=False)
        matrix.update(logits[0].argmax(0).cpu().numpy().astype(np.uint8), label)
    counts = np.asarray(matrix.matrix, np.float64)
    hit = np.diag(counts)
    iou = hit / np.maximum(counts.sum(0) + counts.sum(1) - hit, 1)
    return float(iou.mean()), float(hit.sum() / counts.sum()), [round(float(value), 4) for value in iou]


class Run:
    """A training run in a folder: state, schedule, log."""

    def __init__(self, folder: Path, start: Path, schedule: Schedule, device: torch.device) -> None:
        self.folder, self.device = folder, device
        folder.mkdir(parents=True, exist_ok=True)
        self.schedule_file = folder / 'schedule.json'
        if not self.schedule_file.exists():
            self.schedule_file.write_text(json.dumps(schedule))
        self.model = starting_model(start).to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model), betas=(0.9, 0.999))
        self.step = 0
        if (folder / 'state.pt').exists():
            state = torch.load(folder / 'state.pt', map_location=device, weights_only=True)
            self.step = state['step']
            self.model.load_state_dict(state['model'])
            self.average.load_state_dict(state['average'])
            self.optimizer.load_state_dict(state['optimizer'])

    def schedule(self) -> Schedule:
        return json.loads(self.schedule_file.read_text())

    def log(self, **line: Any) -> None:
        text = json.dumps(line)
        print(text, flush=True)
        with open(self.folder / 'log.jsonl', 'a') as file:
            file.write(text + '\n')

    def save(self) -> None:
        state = {
            'step': self.step,
            'model': self.model.state_dict(),
            'average': self.average.state_dict(),
            'optimizer': self.optimizer.state_dict(),
        }
        with atomic_write(self.folder / 'state.pt') as temporary:
            torch.save(state, temporary)

    def one_step(self, images: NDArray[np.uint8], labels: NDArray[np.uint8], rate: float) -> float:
        for group in self.optimizer.param_groups:
            group['lr'] = rate
        inputs, target = to_input(images, self.device), torch.from_numpy(labels).to(self.device).long()
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model.logits(inputs)
        loss = loss_of(logits, target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        update_average(self.average, self.model, self.step)
        return loss.item()

    def validate(self, images: list[NDArray[np.uint8]], labels: list[NDArray[np.uint8]], mode: str) -> None:
        miou, accuracy, iou = evaluate(self.average, images, labels, bf16=mode != 'end')
        self.log(step=self.step, mode=mode, mIoU=round(miou, 4), aAcc=round(accuracy, 4), IoU=iou)


def train(run: Run, data: Path, workers: int, every: int, save_seconds: float) -> None:
    """Train to the end of the schedule, looking at every fourth validation image every `every` steps."""
    images, labels = read_split(data, 'train')
    val_images, val_labels = read_split(data, 'val')
    losses: list[float] = []
    saved = clock = time.monotonic()
    torch.manual_seed(SEED + run.step)
    if run.step == 0:
        run.validate(val_images[::4], val_labels[::4], 'val')
    run.model.train()
    for crops, target in batches(CropSource(images, labels, SEED), run.step, workers, run.schedule):
        schedule = run.schedule()
        if run.step >= schedule['steps']:
            break
        rate = rate_at(run.step, schedule)
        losses.append(run.one_step(crops, target, rate))
        run.step += 1
        if run.step % LOG_EVERY == 0:
            seconds = round((time.monotonic() - clock) / len(losses), 3)
            loss = round(float(np.mean(losses)), 4)
            run.log(step=run.step, mode='train', loss=loss, lr=round(rate, 7), seconds=seconds)
            losses, clock = [], time.monotonic()
        if run.step % every == 0:
            run.validate(val_images[::4], val_labels[::4], 'val')
        if time.monotonic() - saved > save_seconds:
            run.save()
            saved = time.monotonic()
    run.save()
    run.validate(val_images, val_labels, 'end')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='what prepare_data.py wrote')
    parser.add_argument('--start', type=Path, required=True, help='model directory whose weights to start from')
    parser.add_argument('--work-dir', type=Path, required=True)
    parser.add_argument('--steps', type=int, default=9000)
    parser.add_argument('--decay-from', type=int, default=6000)
    parser.add_argument('--batch', type=int, default=8, help='crops a step')
    parser.add_argument('--side', type=int, default=288, help='of a crop in pixels')
    parser.add_argument('--scales', type=float, nargs=2, default=[0.6, 2.4], help='range, relative to the photograph')
    parser.add_argument('--rate', type=float, default=5e-4, help='learning rate at its highest')
    parser.add_argument('--device', type=torch.device, default=torch.device('cpu'))
    parser.add_argument('--threads', type=int, default=2, help="of the network's on a CPU")
    parser.add_argument('--workers', type=int, default=1, help='threads that draw crops')
    parser.add_argument('--val-every', type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    schedule: Schedule = {
        'steps': arguments.steps,
        'decay_from': arguments.decay_from,
        'rate': arguments.rate,
        'batch': arguments.batch,
        'side': arguments.side,
        'scales': arguments.scales,
    }
    run = Run(arguments.work_dir, arguments.start, schedule, arguments.device)
    train(run, arguments.data, arguments.workers, arguments.val_every, save_seconds=180)


if __name__ == '__main__':
    main()
