"""`ms-segformer train CONFIG_OR_MODEL --data DIR`: train or fine-tune, the trained model is `<work-dir>/output`."""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ArgumentError
from ..integrations.modelscope.hub import model_directory
from ..metainfo import find_model, own_configuration
from ..trainers.starts import MODEL, SCRATCH, check_start
from .arguments import device, epochs, folder_to_be, input_folder, learning_rate, positive_int, seed

ALL = 'all'
CONFIGURATIONS = ('.json', '.py', '.yml', '.yaml')  # what ModelScope reads
KEPT = 3  # a checkpoint of B0 with its trainer state takes 45 MB, one of B5 a gigabyte
HELP = 'train a model from a configuration, or fine-tune a model directory or hub id'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'start',
        metavar='CONFIG_OR_MODEL',
        help='a configuration.json; or a model directory, a hub id, or b0 to b5, whose weights are the '
        'start unless --from says another',
    )
    parser.add_argument(
        '--data',
        type=input_folder,
        metavar='DIR',
        help='folder with images and label maps '
        '(images/train, annotations/train, images/val, …), or with annotations of COCO, LabelMe or Label Studio in '
        'place of the label maps; default: what the configuration names',
    )
    parser.add_argument(
        '--classes',
        metavar='FILE_OR_NAMES',
        help='class names by id, when they differ: a text file with one a line, or names separated by commas',
    )
    parser.add_argument('--work-dir', type=folder_to_be, default='work_dir', metavar='DIR', help='default: %(default)s')
    parser.add_argument('--epochs', type=epochs, metavar='N', help="default: the configuration's")
    parser.add_argument('--batch-size', type=positive_int, metavar='N', help='per process')
    parser.add_argument('--lr', type=learning_rate, help='learning rate')
    parser.add_argument('--amp', choices=('bf16', 'fp16'), help='train in mixed precision')
    parser.add_argument(
        '--from',
        '--load-from',
        dest='load_from',
        metavar='START',
        help="model (default): the model's "
        'weights; imagenet: the backbone that its configuration names (model.pretrained), fetched when '
        'it is not there; scratch: random weights; or a file or model directory (EasyCV, '
        'mmsegmentation, NVlabs, Hugging Face), a URL, a ModelScope id, or hf:OWNER/NAME',
    )
    parser.add_argument(
        '--resume',
        action='store_true',
        help='go on with the newest run in --work-dir; without it '
        'what earlier runs left there is moved to --work-dir/previous',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='train nothing: print the length of the run, its '
        'learning rates, and time and memory by a few steps; without data they are of noise',
    )
    parser.add_argument(
        '--images',
        type=positive_int,
        metavar='N',
        help='with --dry-run: number of training images, '
        "where they are not here; default: COCO-Stuff 164k's for its classes",
    )
    parser.add_argument('--processes', type=positive_int, metavar='N', help='with --dry-run: plan for N processes')
    parser.add_argument(
        '--keep-checkpoints',
        type=count,
        metavar='N',
        help='keep the N newest checkpoints and the '
        f'best one, or all; default: what the configuration says, else {KEPT}',
    )
    parser.add_argument('--seed', type=seed, default=42, help='default: %(default)s')
    parser.add_argument('--device', type=device, help='cpu, gpu or cuda:N; default: a GPU where there is one')
    parser.add_argument(
        '--options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='any other value of the configuration, e.g. train.lr_scheduler.warmup_iters=100 (values are JSON or text)',
    )


def run(args: argparse.Namespace) -> int:
    if args.dry_run:
        return dry_run(args)
    for option in ('images', 'processes'):
        if getattr(args, option) is not None:
            raise ArgumentError(f'--{option} is for --dry-run')
    arguments = trainer_arguments(args)
    if 'model' in arguments:
        arguments['model'] = model_directory(arguments['model'])
    check_configuration(arguments)
    from modelscope.metainfo import Trainers
    from modelscope.trainers import build_trainer

    from ..trainers import resuming

    trainer = build_trainer(Trainers.easycv, arguments)
    trainer.train()
    if trainer.rank == 0:
        for folder in resuming.model_directories(trainer):
            print(f'trained model: {folder}')
        if trainer.metric_values:
            print(
                ', '.join(
                    f'{key} {100 * trainer.metric_values[key]:.2f} %'
                    for key in ('mIoU', 'mAcc', 'aAcc')
                    if key in trainer.metric_values
                )
            )
    return 0


def dry_run(args: argparse.Namespace) -> int:
    """Print what a run would be; see `trainers.dry_run`."""
    if args.load_from is not None:
        check_start(args.load_from)
    arguments = trainer_arguments(argparse.Namespace(**{**vars(args), 'load_from': SCRATCH}))
    if 'model' in arguments:
        arguments['model'] = model_directory(arguments['model'])
    check_configuration(arguments)
    from ..trainers import distributed
    from ..trainers.dry_run import dry_run as plan

    planned = plan(arguments, args.images, args.processes)
    if distributed.is_first():
        print('\n'.join(planned.lines()))
    return 0


def check_configuration(arguments: dict[str, Any]) -> None:
    """Refuse a configuration that is no SegFormer's before ModelScope runs pip for the plugin that it names."""
    from ..config.schema import check_file  # imported late: takes 10 ms, and --help is to be fast

    check_file(arguments.get('cfg_file') or os.path.join(arguments['model'], 'configuration.json'))


def trainer_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `build_trainer` for a command line."""
    options = parse_options(args.options)
    for key, value in (('train.dataloader.batch_size_per_gpu', args.batch_size), ('train.optimizer.lr', args.lr)):
        if value is not None:
            options[key] = value
    arguments = {
        'work_dir': args.work_dir,
        'resume': args.resume or None,
        'seed': args.seed,
        'cfg_options': options,
        'keep_checkpoints': KEPT if args.keep_checkpoints in (None, ALL) else args.keep_checkpoints,
    }
    if args.keep_checkpoints is not None:
        arguments['cfg_modify_fn'] = limit_to(None if args.keep_checkpoints == ALL else args.keep_checkpoints)
    if os.path.isfile(args.start):
        if not args.start.endswith(CONFIGURATIONS):
            raise ArgumentError(
                f'{args.start} is no configuration (*.json); to start from weights name their model '
                f'directory, or add --load-from {args.start}'
            )
        arguments['cfg_file'] = args.start
    else:
        arguments.update(named_model(args.start, args.load_from))
    if args.load_from is not None:
        check_start(args.load_from)
    given = {
        'data_root': args.data,
        'classes': class_names(args.classes),
        'max_epochs': args.epochs,
        'amp': args.amp,
        'load_from': args.load_from,
        'device': args.device,
    }
    return {**arguments, **{key: value for key, value in given.items() if value is not None}}


def named_model(name: str, start: str | None) -> dict[str, str]:
    """The model of a command line; only the configuration of a published one whose weights are not asked for.

    Args:
        name: a model directory, a hub id, or `b0` to `b5`.
        start: what training starts from, None for the model's weights.
    """

    found = find_model(name)
    configuration = None if start in (None, MODEL) else own_configuration(found)
    return {'model': found} if configuration is None else {'cfg_file': str(configuration)}


def count(text: str) -> int | str:
    """A number of checkpoints from the command line: an integer of at least 1, or `all`."""
    if text != ALL and not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f'{text!r} is neither a number of at least 1 nor {ALL}')
    return text if text == ALL else int(text)


def limit_to(number: int | None) -> Callable[[Any], Any]:
    """A function that limits the checkpoints of a configuration, unless it says that there are none."""

    def limit(cfg: Any) -> Any:
        if cfg.safe_get('train.checkpoint.period', {}) is not None:
            cfg.merge_from_dict({'train.checkpoint.period.max_checkpoint_num': number})
        return cfg

    return limit


def class_names(text: str | None) -> str | list[str] | None:
    """A file's path as it is; names separated by commas as a list.

    Raises:
        DatasetError, FileNotFoundError: there is no such file, or it or the names cannot be used.
    """
    if text is None:
        return None
    if ',' not in text and not os.path.lexists(text):
        raise FileNotFoundError(
            f'{text}: no such file; give a text file with one class name a line, or the names separated by commas'
        )
    from ..datasets.sources import read_classes

    if os.path.lexists(text):
        read_classes(text)
        return text
    return read_classes([name.strip() for name in text.split(',') if name.strip()])


def parse_options(items: Sequence[str]) -> dict[str, Any]:
    """`['a.b=3', 'c=text']` to `{'a.b': 3, 'c': 'text'}`.

    Raises:
        ArgumentError: an item has no `=`, or is nested without end.
    """
    options = {}
    for item in items:
        key, separator, value = item.partition('=')
        if not separator or not key:
            raise ArgumentError(f'--options takes KEY=VALUE, got {item!r}')
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
        except RecursionError:
            raise ArgumentError(f'--options {key}: lists and mappings in one another without end') from None
    return options
