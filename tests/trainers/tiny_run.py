"""What the tests of this folder train on: the classes of `tiny_data` and the settings of runs of seconds."""

CLASSES = ['sky', 'grass', 'disc']


def shrink(cfg):
    """Small pictures and crops, no warm-up, a rate that learns within a few steps."""
    train, val = cfg.dataset.train.pipeline, cfg.dataset.val.pipeline
    for step in train:
        step.update({'MMResize': {'img_scale': [96, 64]}, 'SegRandomCrop': {'crop_size': [64, 64]},
                     'MMPad': {'size': [64, 64]}}.get(step['type'], {}))
    val[0]['img_scale'] = [96, 64]
    cfg.train.dataloader = {'batch_size_per_gpu': 2, 'workers_per_gpu': 0}
    cfg.evaluation.dataloader = {'batch_size_per_gpu': 2, 'workers_per_gpu': 0}
    cfg.train.optimizer.lr = 1e-3
    cfg.train.lr_scheduler.warmup = None
    for hook in cfg.train.hooks:
        if hook['type'] == 'TextLoggerHook':
            hook['interval'] = 1
    return cfg
