"""What the tests of this folder and `campaigns/kill_training.py` train on: data and settings of runs of seconds."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

CLASSES = ['sky', 'grass', 'disc']


def make_data(root: Path) -> Path:
    """Fill a folder `images/{train,val}`, `annotations/{train,val}`: 8 + 5 pictures of discs between sky and grass."""
    random = np.random.RandomState(0)
    for split, count in (('train', 8), ('val', 5)):
        for folder in ('images', 'annotations'):
            (root / folder / split).mkdir(parents=True)
        for number in range(count):
            image, label = _picture(random, 48 + 8 * (number % 3), 72)
            cv2.imwrite(str(root / 'images' / split / f'{number:03}.jpg'), image)
            cv2.imwrite(str(root / 'annotations' / split / f'{number:03}.png'), label)
    return root


def _picture(random: np.random.RandomState, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    horizon = height // 2 + random.randint(-8, 9)
    label = np.zeros((height, width), np.uint8)
    label[horizon:] = 1
    center = random.randint(15, width - 15), random.randint(15, height - 15)
    cv2.circle(label, center, 12, 2, -1)
    colors = np.array([[230, 160, 60], [40, 150, 50], [40, 40, 220]], np.float32)  # BGR
    image = colors[label] + random.normal(0, 12, (height, width, 3))
    label[:2] = 255
    return image.clip(0, 255).astype(np.uint8), label


def shrink(cfg: Any) -> Any:
    """Small pictures and crops, no warm-up, a rate that learns within a few steps."""
    train, val = cfg.dataset.train.pipeline, cfg.dataset.val.pipeline
    for step in train:
        step.update(
            {
                'MMResize': {'img_scale': [96, 64]},
                'SegRandomCrop': {'crop_size': [64, 64]},
                'MMPad': {'size': [64, 64]},
            }.get(step['type'], {})
        )
    val[0]['img_scale'] = [96, 64]
    cfg.train.dataloader = {'batch_size_per_gpu': 2, 'workers_per_gpu': 0}
    cfg.evaluation.dataloader = {'batch_size_per_gpu': 2, 'workers_per_gpu': 0}
    cfg.train.optimizer.lr = 1e-3
    cfg.train.lr_scheduler.warmup = None
    for hook in cfg.train.hooks:
        if hook['type'] == 'TextLoggerHook':
            hook['interval'] = 1
    return cfg


def run_options(model: Path, data: Path, work_dir: Path, device: object = 'cpu') -> dict[str, Any]:
    """Arguments of `build_trainer` for a run of seconds; a test changes what it is about."""
    return {
        'model': str(model),
        'data_root': str(data),
        'classes': list(CLASSES),
        'seed': 3,
        'work_dir': str(work_dir),
        'max_epochs': 3,
        'device': str(device),
        'cfg_modify_fn': shrink,
    }
