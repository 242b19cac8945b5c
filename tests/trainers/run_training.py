"""Training runs in processes of their own, for tests that kill them or start several.

As a script it reads lines `{"options": {…}, "output": FILE, "environments": [{…}, …]}`, forks one process per
environment, waits for them and prints their exit codes: importing torch and ModelScope once serves all runs.

`kill_at` in the options is [what, number]: `iteration`, `saving` (in the middle of writing that checkpoint's weights),
`state` (of its state) or `evaluating` (in that evaluation batch).
"""

import json
import os
import signal
import sys
import traceback

import torch
from modelscope.trainers import build_trainer
from tiny_run import shrink

from ms_segformer.trainers import easycv_trainer


def main():
    for line in sys.stdin:
        request = json.loads(line)
        processes = [
            fork(request['options'], f'{request["output"]}{rank or ""}', environment)
            for rank, environment in enumerate(request['environments'])
        ]
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        print(json.dumps(codes), flush=True)


def fork(options, output, environment):
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        descriptor = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.environ.update(environment)
        train(options)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def train(options):
    torch.set_num_threads(1)
    options = dict(options)
    kill_at, changes = options.pop('kill_at', None), options.pop('cfg_changes', {})
    evaluate_only = options.pop('evaluate_only', False)

    def modify(cfg):
        shrink(cfg)
        cfg.merge_from_dict({key: value for key, value in changes.items() if key != 'train.hooks'})
        cfg.train.hooks = changes.get('train.hooks', cfg.train.hooks)
        return cfg

    trainer = build_trainer('easycv', {**options, 'cfg_modify_fn': modify})
    if kill_at:
        arrange_death(trainer, *kill_at)
    (trainer.evaluate if evaluate_only else trainer.train)()
    if trainer.rank == 0 and trainer.metric_values is not None:
        with open(os.path.join(options['work_dir'], 'final.json'), 'w') as file:
            json.dump(trainer.metric_values, file)


def arrange_death(trainer, what, number):
    count = 0

    def now():
        nonlocal count
        count += 1
        return count == number

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    if what == 'iteration':
        step = trainer.train_step
        trainer.train_step = lambda *args: die() if now() else step(*args)
    elif what == 'evaluating':
        predict = easycv_trainer.Evaluator.predict
        easycv_trainer.Evaluator.predict = lambda *args: die() if now() else predict(*args)
    else:
        save = torch.save

        def half_a_file(content, target, *args, **kwargs):
            save(content, target, *args, **kwargs)
            if ('optimizer' in content) == (what == 'state') and now():
                os.truncate(target, os.path.getsize(target) // 2)
                die()

        torch.save = half_a_file


if __name__ == '__main__':
    main()
