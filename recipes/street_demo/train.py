"""Train the demonstration model with this package's own trainer, in two stages.

    python recipes/street_demo/train.py --data DIR --work-dir RUN1
    python recipes/street_demo/train.py --data DIR --work-dir RUN2 --refine RUN1/output

The first starts from random weights and gives thin classes a larger weight. The second goes on with even weights and a
low learning rate, which the common classes, and with them the pixel accuracy, gain from. Stopped at any time, the same
command goes on from the last checkpoint. `--set key=value` overrides an entry of the settings, for comparing recipes.
"""

import argparse
import json

from modelscope.metainfo import Trainers
from modelscope.trainers import build_trainer

from ms_segformer.metainfo import VARIANTS, configuration_dir

SETTINGS = {
    'epochs': 90,  # of 380 pairs, so 48 iterations each
    'batch_size': 8,
    'crop': 256,
    'ratio_range': (0.5, 1.4),  # of a short side of 512
    'lr': 1e-3,
    'thin': ('person', 'bicycle', 'fence', 'structural-other'),  # a few percent of the pixels, four of ten classes
    'thin_weight': 1.7,
    'weight_decay': 0.02,
    'warmup': 200,
    'power': 0.9,
    'drop_path': 0.05,
    'amp': 'bf16',
    'ema': 0.998,
    'seed': 7,
    'eval_every': 15,
}
REFINE = {
    'epochs': 22,
    'lr': 3e-4,
    'warmup': 24,
    'thin_weight': 1.0,
    'ratio_range': (0.6, 1.3),
    'seed': 8,
    'eval_every': 11,
}


def configure(cfg, data, settings):
    """Turn the published B0 configuration into the recipe's."""
    crop = (settings['crop'], settings['crop'])
    cfg['model']['pretrained'] = None
    cfg['model']['backbone']['drop_path_rate'] = settings['drop_path']
    classes = cfg['CLASSES']
    weights = [1.0] * cfg['model']['decode_head']['num_classes']
    for name in settings['thin']:
        weights[classes.index(name)] = settings['thin_weight']
    cfg['model']['decode_head']['loss_decode'].update(avg_non_ignore=True, class_weight=weights)
    for step in cfg['dataset']['train']['pipeline']:
        if step['type'] == 'MMResize':
            step['ratio_range'] = tuple(settings['ratio_range'])
        elif step['type'] == 'SegRandomCrop':
            step['crop_size'] = crop
        elif step['type'] == 'MMPad':
            step['size'] = crop
    for split in ('train', 'val'):
        cfg['dataset'][split]['data_source'].update(
            img_root=f'{data}/images/{split}', label_root=f'{data}/annotations/{split}', label_suffix='.png', split=None
        )
    train = cfg['train']
    train['max_epochs'] = settings['epochs']
    train['dataloader'] = {'batch_size_per_gpu': settings['batch_size'], 'workers_per_gpu': 1}
    train['optimizer'] = {
        'type': 'AdamW',
        'lr': settings['lr'],
        'betas': (0.9, 0.999),
        'weight_decay': settings['weight_decay'],
        'paramwise_options': {'custom_keys': {'norm': {'decay_mult': 0.0}}},
        'options': {'grad_clip': {'max_norm': 5.0}},
    }
    train['lr_scheduler'] = {
        'policy': 'poly',
        'warmup': 'linear',
        'warmup_iters': settings['warmup'],
        'warmup_ratio': 1e-6,
        'power': settings['power'],
        'min_lr': 0.0,
        'by_epoch': False,
    }
    train['amp'] = settings['amp']
    train['loss_at_logits_size'] = True
    train['ema'] = settings['ema']
    train['hooks'] = [
        {'type': 'CheckpointHook', 'interval': 1, 'max_checkpoint_num': 2},
        {'type': 'EvaluationHook', 'interval': settings['eval_every']},
        {'type': 'AddLrLogHook'},
        {'type': 'IterTimerHook'},
        {'type': 'TextLoggerHook', 'interval': 20},
    ]
    return cfg


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True)
    parser.add_argument('--work-dir', required=True)
    parser.add_argument('--refine', metavar='DIR', help="the first stage's model directory; starts the second stage")
    parser.add_argument('--set', nargs='*', default=[], metavar='KEY=VALUE')
    arguments = parser.parse_args()
    overrides = (item.split('=', 1) for item in arguments.set)
    settings = SETTINGS | (REFINE if arguments.refine else {}) | {key: json.loads(value) for key, value in overrides}
    trainer = build_trainer(
        Trainers.easycv,
        {
            'cfg_file': str(configuration_dir() / VARIANTS['b0'].model_name / 'configuration.json'),
            'cfg_modify_fn': lambda cfg: configure(cfg, arguments.data, settings),
            'work_dir': arguments.work_dir,
            'seed': settings['seed'],
            'resume': True,
            'device': 'cpu',
            **({'load_from': arguments.refine} if arguments.refine else {}),
        },
    )
    trainer.train()


if __name__ == '__main__':
    main()
