"""Can the model learn a handful of real pairs by heart? The card's training call on a few images, then mIoU on them.

    python benchmarks/overfit.py --data COCO_STUFF_SAMPLE [--model DIR] [--epochs 120] [--target 0.6]

Prints the loss of the first and the last epoch, mIoU over the classes that occur (on the training pairs, and on the
validation pairs for comparison) and the time; the exit code says whether the target was reached.
"""

import argparse
import sys
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True, help='folder with train2017, val2017, annotations')
    parser.add_argument('--model', help='model directory to start from; default: B0 from random weights')
    parser.add_argument('--work-dir', default='work_dirs/overfit')
    parser.add_argument('--epochs', type=int, default=120)
    parser.add_argument('--crop', type=int, default=320)
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--lr', type=float, default=6e-4)
    parser.add_argument('--amp', default='bf16')
    parser.add_argument('--target', type=float, default=0.6)
    args = parser.parse_args()
    from modelscope.metainfo import Trainers
    from modelscope.trainers import build_trainer

    from ms_segformer.metainfo import VARIANTS, configuration_dir

    start = (
        {'model': args.model}
        if args.model
        else {'cfg_file': str(configuration_dir() / VARIANTS['b0'].model_name / 'configuration.json')}
    )
    began = time.monotonic()
    trainer = build_trainer(
        Trainers.easycv,
        {
            **start,
            'data_root': args.data,
            'work_dir': args.work_dir,
            'max_epochs': args.epochs,
            'seed': 0,
            'amp': args.amp or None,
            'cfg_modify_fn': lambda cfg: configure(cfg, args),
            'resume': True,
        },
    )
    trainer.train()
    seconds = time.monotonic() - began
    losses = logged_losses(args.work_dir)
    values = {split: miou(f'{args.work_dir}/output', args.data, split) for split in ('train', 'val')}
    print(f'{trainer.max_iters} iterations of {args.batch_size} crops {args.crop}×{args.crop} in {seconds:.0f} s')
    print(f'loss {losses[0]:.3f} -> {losses[-1]:.3f}')
    print(
        f'mIoU over present classes: {100 * values["train"]:.2f} % on the training pairs, '
        f'{100 * values["val"]:.2f} % on the validation pairs'
    )
    return 0 if losses[-1] < losses[0] and values['train'] > args.target else 1


def configure(cfg, args):
    """The published configuration, without what keeps a model from learning by heart."""
    crop = (args.crop, args.crop)
    cfg.model.pretrained = None
    cfg.model.backbone.drop_path_rate = cfg.model.decode_head.dropout_ratio = 0.0
    pipeline = [step for step in cfg.dataset.train.pipeline if step['type'] != 'MMPhotoMetricDistortion']
    for step in pipeline:
        step.update(
            {
                'MMResize': {'ratio_range': (0.8, 1.0)},
                'SegRandomCrop': {'crop_size': crop},
                'MMPad': {'size': crop},
            }.get(step['type'], {})
        )
    cfg.dataset.train.pipeline = pipeline
    cfg.train.dataloader = {'batch_size_per_gpu': args.batch_size, 'workers_per_gpu': 1}
    cfg.train.optimizer.lr = args.lr
    cfg.train.optimizer.paramwise_options = None
    cfg.train.lr_scheduler = {
        'policy': 'poly',
        'power': 0.9,
        'min_lr': 0.0,
        'by_epoch': False,
        'warmup': 'linear',
        'warmup_iters': 30,
        'warmup_ratio': 1e-3,
    }
    cfg.train.hooks = [
        {'type': 'CheckpointHook', 'interval': 10, 'max_checkpoint_num': 1},
        {'type': 'IterTimerHook'},
        {'type': 'TextLoggerHook', 'interval': 50},
    ]
    return cfg


def logged_losses(work_dir):
    """Mean loss of each logged window, of all the sessions of a run."""
    import glob
    import json

    records = [json.loads(line) for path in sorted(glob.glob(f'{work_dir}/*.log.json')) for line in open(path)]
    return [record['loss'] for record in records if record['mode'] == 'train']


def miou(model, data, split):
    """mIoU over the classes that are labeled in a split."""
    import numpy as np

    from ms_segformer.cli import eval as command

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(['--model', model, '--data', data, '--split', split])
    loaded, settings = command.load(model)
    from ms_segformer.trainers.evaluation import evaluate

    found = evaluate(loaded, command.open_data(args, settings))
    present = found.confusion.counts.sum(1) > 0
    return float(np.nanmean(found.confusion.compute()['IoU'][present]))


if __name__ == '__main__':
    sys.exit(main())
