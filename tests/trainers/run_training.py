"""A training run in a process of its own, for tests that kill it or start several: `run_training.py OPTIONS.json`.

`kill_at` is [what, number]: `iteration`, `saving` (in the middle of writing that checkpoint's weights), `state` (of its
state) or `evaluating` (in that evaluation, after the first batch).
"""
import json
import os
import signal
import sys

import torch

import ms_segformer  # noqa: F401


def main(path):
    with open(path) as file:
        options = json.load(file)
    torch.set_num_threads(1)
    from tiny_run import shrink
    from modelscope.trainers import build_trainer

    from ms_segformer.trainers import easycv_trainer
    kill_at, changes = options.pop('kill_at', None), options.pop('cfg_changes', {})

    def modify(cfg):
        shrink(cfg)
        cfg.merge_from_dict(changes)
        return cfg

    trainer = build_trainer('easycv', {**options, 'cfg_modify_fn': modify})
    if kill_at:
        arrange_death(easycv_trainer, trainer, *kill_at)
    trainer.train()
    if trainer.rank == 0 and trainer.metric_values is not None:
        with open(os.path.join(options['work_dir'], 'final.json'), 'w') as file:
            json.dump(trainer.metric_values, file)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def arrange_death(module, trainer, what, number):
    counts = {'n': 0}

    def count_then(action):
        counts['n'] += 1
        if counts['n'] == number:
            action()

    if what == 'iteration':
        step = trainer.train_step
        trainer.train_step = lambda *args: (count_then(die), step(*args))
    elif what == 'evaluating':
        evaluator = module.Evaluator
        class Mortal(evaluator):
            def predict(self, batch):
                result = super().predict(batch)
                count_then(die)
                return result
        module.Evaluator = Mortal
    else:
        save = torch.save
        def half_a_file(content, target, *args, **kwargs):
            if ('optimizer' in content) == (what == 'state'):
                def tear():
                    save(content, target, *args, **kwargs)
                    os.truncate(target, os.path.getsize(target) // 2)
                    die()
                count_then(tear)
            save(content, target, *args, **kwargs)
        torch.save = half_a_file


if __name__ == '__main__':
    main(sys.argv[1])
