"""What is typed wrongly at `ms-segformer train`, `prepare` and `check-data`: the exit code, and the one line."""

import re

import pytest

from ms_segformer.cli.main import main
from ms_segformer.datasets.example import write_example
from ms_segformer.models.segformer import Segformer

INTEGER = 'is not a whole number of at least 1'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp('data') / 'shapes')


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a file `file` and a folder `folder` with another in it."""
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'file').write_text('mine')
    (tmp_path / 'latin1.txt').write_bytes('Bär\n'.encode('latin-1'))
    (tmp_path / 'twice.txt').write_text('a\nb\na\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said_by(words, capsys):
    """(exit code, lines on the error stream that are no log lines) of a command line."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as done:
        code = done.code
    lines = capsys.readouterr().err.splitlines()
    return code, [line for line in lines if not re.match(r'\d{4}-\d\d-\d\d |WARNING: |INFO: ', line)]


def check(words, code, message, place, capsys):
    before = sorted(path.relative_to(place) for path in place.rglob('*'))
    found, lines = said_by(words, capsys)
    assert (found, len(lines)) == (code, 1), lines
    assert re.match('error: (?!EasyCVTrainer)', lines[0]) and re.search(message, lines[0]), lines[0]
    assert sorted(path.relative_to(place) for path in place.rglob('*')) == before, 'something was written'


@pytest.mark.parametrize(
    'words, message',
    [
        ('--epochs 0', f"--epochs: '0' {INTEGER}"),
        ('--epochs -1', f"--epochs: '-1' {INTEGER}"),
        ('--epochs 1.5', f"--epochs: '1.5' {INTEGER}"),
        ('--batch-size 0', f"--batch-size: '0' {INTEGER}"),
        ('--lr nan', "--lr: 'nan' is not a learning rate: a number of at least 0"),
        ('--lr -1', "--lr: '-1' is not a learning rate"),
        ('--lr inf', "--lr: 'inf' is not a learning rate"),
        ('--seed -1', "--seed: '-1' is not a whole number from 0 to 4294967295"),
        ('--seed 4294967296', "--seed: '4294967296' is not a whole number from 0"),
        ('--amp int8', "--amp: invalid choice: 'int8'"),
        ('--keep-checkpoints 0', "'0' is neither a number of at least 1"),
        ('--work-dir file', '--work-dir: file is not a folder; name a folder to write to'),
        ('--work-dir file/below', '--work-dir: file is not a folder'),
        ('--data none', '--data: none: no such folder'),
        ('--data file', '--data: file is not a folder'),
        ('--device tpu', "--device: 'tpu' is no device"),
    ],
)
def test_usage_of_train(words, message, place, capsys):
    check(['train', 'demo', *words.split()], 2, message, place, capsys)


@pytest.mark.parametrize(
    'words, message',
    [
        ('prepare example -o file', '-o/--output: file is not a folder'),
        ('prepare coco-stuff --images folder --stuffthingmaps folder -o file', '-o/--output: file is not a folder'),
        ('prepare coco-stuff --images folder --stuffthingmaps folder -o out -j 0', f"-j/--jobs: '0' {INTEGER}"),
        ('prepare', 'the following arguments are required: DATASET'),
        ('prepare examples -o out', "invalid choice: 'exam"),
        ('check-data folder -j 0', f"-j/--jobs: '0' {INTEGER}"),
        ('check-data folder --picture folder', '--picture: folder is a folder; name a file'),
        ('check-data folder --data-root none', '--data-root: none: no such folder'),
    ],
)
def test_usage_of_the_others(words, message, place, capsys):
    check(words.split(), 2, message, place, capsys)


@pytest.mark.parametrize(
    'words, message',
    [
        (
            'prepare example -o folder',
            'folder holds something already; choose a folder that is empty or does not exist$',
        ),
        ('prepare coco-stuff --images none --stuffthingmaps folder -o out', 'none is not a folder; pass the unpacked'),
        ('check-data none', 'none does not exist; give a configuration file'),
        ('check-data folder', 'folder has no images with label maps in known places'),
        ('train none', 'none: no such directory'),
        ('train demo --data folder', 'folder has no images with label maps'),
        ('train demo --classes none.txt', 'none.txt: no such file; give a text file with one class name a line'),
        ('train demo --classes folder', 'folder is not a regular file; class names stand in a text file'),
        ('train demo --classes latin1.txt', 'latin1.txt is not UTF-8 text .*; save it as UTF-8$'),
        ('train demo --classes twice.txt', r"classes holds \['a'\] more than once"),
        ('train demo --classes a,b,a', r"classes holds \['a'\] more than once"),
        ('train demo --classes ,', 'classes is a list of names or the path of a text file'),
        ('train demo --load-from none.pth', 'none.pth: no such file or model directory'),
        ('train demo --options train.ema', "--options takes KEY=VALUE, got 'train.ema'"),
        (
            'train file',
            r'file is no configuration \(\*\.json\); to start from weights name their model directory, or add '
            r'--load-from file$',
        ),
        (
            f'train demo --options train.ema={"[" * 200_000}',
            'train.ema: lists and mappings in one another without end$',
        ),
    ],
)
def test_what_is_found_before_anything_is_read(words, message, place, capsys):
    check(words.split(), 1, message, place, capsys)


OPTIONS = [
    ('train.optimizer.type=Adamm', r"train.optimizer.type is 'Adamm' \(did you mean Adam\?\)"),
    ('train.optimizer.type=Optimizer', "train.optimizer.type is 'Optimizer'"),
    ('train.optimizer.type=lr_scheduler', "train.optimizer.type is 'lr_scheduler'"),
    ('train.lr_scheduler.policy=polly', r"train.lr_scheduler.policy is 'polly' \(did you mean poly\?\)"),
    ('train.hooks=5', 'train.hooks is 5'),
    ('train.optimizer.lr=NaN', 'train.optimizer.lr is nan'),
    (
        'train.optimizer.betas=[NaN,0.9]',
        'train.optimizer.betas is .nan, 0.9.; accepted: a list of 2 values, each a number',
    ),
    ('train.max_epoch=3', r'train.max_epoch \(did you mean max_epochs\?\)'),
    ('train.amp=fp16', 'train.amp is fp16, which needs a GPU'),
    ('dataset.train.pipeline=5', 'dataset.train.pipeline is 5; expected a list of transforms'),
    (f'dataset.train.pipeline={"x" * 5000}', 'dataset.train.pipeline is .x{100,120}…; expected a list of transforms'),
    ('classes=5', 'classes is a list of names or the path of a text file.*; got 5'),
    ('CLASSES=5', 'list of names'),
    ('PALETTE=5', 'palette holds one .red, green, blue. of 0-255 for each of the 4 classes'),
    ('model.decode_head=null', 'model.decode_head is None; expected a mapping'),
    ('train.crop_size=[8,8]', 'unknown key train.crop_size'),
    ('train.max_epochs=null', 'train.max_epochs is missing; expected the number of epochs .also --epochs N'),
    ('train.optimizer=null', 'train.optimizer is missing; expected an optimizer with its rate, such as'),
    ('train=null', 'train.max_epochs is missing'),
    ('train.optimizer_hook=5', 'train.optimizer_hook is 5; accepted: a'),
    ('train.optimizer_hook.cumulative_iters=0', 'cumulative_iters is 0; accepted: an integer from 1'),
    ('train.dataloader.timeout=5', 'train.dataloader.timeout is 5, which needs loading processes; set workers_per_gpu'),
    ('evaluation.dataloader.prefetch_factor=2', 'evaluation.dataloader.prefetch_factor is 2, which needs loading'),
    ('train.dataloader.persistent_workers=true', 'train.dataloader.persistent_workers is True, which needs loading'),
    ('train.dataloader.multiprocessing_context=spawn', "multiprocessing_context is 'spawn', which needs loading"),
    ('preprocessor=5', 'preprocessor is 5; accepted: a mapping'),
    ('pipeline=5', 'pipeline is 5; accepted: a mapping'),
    ('plugins=5', 'plugins is 5; accepted: text or a list, each text or a mapping'),
    (
        'dataset.train.pipeline.1.crop_size=[8,8]',
        r'pipeline\[1\].crop_size is \[8, 8\]; accepted: sides of at least 29',
    ),
]


@pytest.mark.parametrize('option, message', OPTIONS)
def test_what_an_option_says(option, message, place, data, tiny_model_dir, capsys, monkeypatch):
    monkeypatch.setattr(Segformer, '__init__', lambda *args, **more: pytest.fail('builds a model'))
    check(
        [
            'train',
            tiny_model_dir,
            '--data',
            data,
            '--device',
            'cpu',
            '--options',
            'train.dataloader.workers_per_gpu=0',
            'evaluation.dataloader.workers_per_gpu=0',
            option,
        ],
        1,
        message,
        place,
        capsys,
    )


@pytest.mark.parametrize(
    'option, message',
    [
        ('train.optimizer.paramwise_options={"(":{"lr_mult":1}}', r"'\(' is no regular expression"),
        (
            'train.optimizer.options.grad_clip={"max":5}',
            r"grad_clip is \{'max': 5\}; expected max_norm, a number above 0",
        ),
        ('train.optimizer.options.grad_clip={"max_norm":"x"}', 'expected max_norm, a number above 0'),
        ('train.optimizer.betas=[2,3]', 'AdamW does not take these arguments .Invalid beta parameter'),
        ('train.lr_scheduler={"_delete_":true,"type":"StepLR"}', "train.lr_scheduler does not take .*'step_size'"),
        (
            'train.hooks=[{"type":"EvaluationHook","interval":-1}]',
            'evaluation.period.interval is -1; accepted: an integer from 1',
        ),
        ('evaluation.metrics=5', 'evaluation.metrics is 5, which cannot be built'),
        ('evaluation.metrics={"type":"Nope"}', 'evaluation.metrics is .*Nope.* cannot be built .*EasyCVMetric'),
        ('dataset.train.pipeline=[]', 'dataset.train has no pipeline: a list of transforms'),
        ('dataset.train=null', 'dataset.train has no pipeline: a list of transforms'),
        (
            'dataset.train.pipeline=[{"type":"MMRandomFlip"}]',
            'the training samples have no img and no gt_semantic_seg; end dataset',
        ),
        (
            'dataset.train.pipeline.1.crop_size=[NaN,64]',
            'crop_size is .nan, 64.; accepted: .* a pair of positive numbers',
        ),
    ],
)
def test_what_is_found_while_a_run_is_made(option, message, place, data, tiny_model_dir, capsys):
    code, lines = said_by(
        [
            'train',
            tiny_model_dir,
            '--data',
            data,
            '--device',
            'cpu',
            '--epochs',
            1,
            '--options',
            'train.dataloader.workers_per_gpu=0',
            option,
        ],
        capsys,
    )
    assert code == 1 and len(lines) == 1 and lines[0].startswith('error: ') and re.search(message, lines[0]), lines
    assert not list(place.rglob('*.pth'))


def test_null_as_evaluation_data_means_none(place, data, tiny_model_dir, capsys):
    assert (
        main(
            [
                'train',
                str(tiny_model_dir),
                '--data',
                str(data),
                '--device',
                'cpu',
                '--epochs',
                '1',
                '--options',
                'dataset.val=null',
                'train.dataloader.workers_per_gpu=0',
                'dataset.train.pipeline.0.img_scale=[64,48]',
                'dataset.train.pipeline.1.crop_size=[32,32]',
                'dataset.train.pipeline.5.size=[32,32]',
            ]
        )
        == 0
    )
    assert capsys.readouterr().out.splitlines() == ['trained model: work_dir/output']


@pytest.mark.parametrize(
    'words, message',
    [
        (['--amp', 'fp16'], 'train.amp is fp16, which needs a GPU; use bf16 or null on a CPU$'),
        (['--options', 'train.max_epochs=0'], None),
        (['--classes', 'only,three,classes'], None),
    ],
)
def test_what_does_not_go_together(words, message, place, data, tiny_model_dir, capsys):
    command = ['train', tiny_model_dir, '--data', data, '--device', 'cpu', *words]
    if message is not None:
        check(command, 1, message, place, capsys)
        return
    command += ['train.max_epochs=0'] if '--options' in words else ['--epochs', 1, '--options']
    command += ['train.dataloader.workers_per_gpu=0', 'dataset.train.pipeline.0.img_scale=[64,48]']
    code, lines = said_by(command, capsys)
    assert code == 1 and len(lines) == 1
    if '--options' in words:
        assert lines[0].startswith('error: there is nothing to train: max_epochs is 0.')
    else:
        assert re.match(r'error: label map .*\.png holds the values \[3\] .*; the 3 classes are 0-2 and 255', lines[0])


@pytest.mark.parametrize('split', ['train', 'val'])
def test_what_a_loading_process_meets_is_one_line_too(split, place, tiny_model_dir, capsys):
    folder = write_example(place / 'shapes')
    (folder / 'annotations' / split / '01.png').write_bytes(b'no picture')
    code, lines = said_by(
        [
            'train',
            tiny_model_dir,
            '--data',
            folder,
            '--device',
            'cpu',
            '--epochs',
            1,
            '--options',
            'train.dataloader.workers_per_gpu=1',
            'evaluation.dataloader.workers_per_gpu=1',
            'dataset.train.pipeline.0.img_scale=[64,48]',
            'dataset.train.pipeline.1.crop_size=[32,32]',
            'dataset.train.pipeline.5.size=[32,32]',
            'dataset.val.pipeline.0.img_scale=[96,64]',
        ],
        capsys,
    )
    assert code == 1 and len(lines) == 1, lines
    assert re.match(f'error: label map {folder}/annotations/{split}/01.png.*; restore or remove it', lines[0])


def test_what_a_loading_process_of_an_evaluation_meets_is_one_line_too(place, tiny_model_dir, capsys):
    from modelscope.utils.config import Config

    folder = write_example(place / 'shapes')
    (folder / 'images' / 'val' / '02.jpg').write_bytes(b'no picture')
    (folder / 'classes.txt').write_text('\n'.join(Config.from_file(str(tiny_model_dir / 'configuration.json')).CLASSES))
    code, lines = said_by(
        ['eval', '--model', tiny_model_dir, '--data', folder, '--workers', 1, '--device', 'cpu', '--engine', 'torch'],
        capsys,
    )
    assert code == 1 and len(lines) == 1, lines
    assert re.match(f'error: image {folder}/images/val/02.jpg cannot be decoded.*; restore or remove it', lines[0])
