"""A model repository as the hub may hold it: every variation opens with `pipeline()` and segments.

The published files could not be reached; these are the forms that EasyCV's converter, its trainer, ModelScope's and
people's editors give such a repository. Except where a variation says otherwise, the label map is that of the plain
form, to the last pixel.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from exported import save_exported
from safetensors.torch import save_file

MISSING = object()


def setter(path, value):
    """A variation that sets one value of the configuration, or removes it."""

    def change(configuration, folder):
        *parents, last = path.split('.')
        section = configuration
        for key in parents:
            section = section.setdefault(key, {}) if isinstance(section, dict) else section[int(key)]
        if value is MISSING:
            section.pop(last)
        else:
            section[last] = value

    return change


def stored(name, wrap=lambda state: state, **said):
    """A variation that stores the weights under another name or in another form."""

    def change(configuration, folder):
        state = weights(folder)
        (folder / 'pytorch_model.pt').unlink()
        if name.endswith('.safetensors'):
            save_file(wrap(state), folder / name, **said)
        else:
            torch.save(wrap(state), folder / name, **said)

    return change


def weights(folder):
    from ms_segformer.models.checkpoint import read_checkpoint

    return read_checkpoint(folder / 'pytorch_model.pt')[0]


def plain(value):
    """jsonplus tuples as lists."""
    if isinstance(value, dict):
        return (
            plain(value['__value__'])
            if value.get('__class__') == 'tuple'
            else {key: plain(item) for key, item in value.items()}
        )
    return [plain(item) for item in value] if isinstance(value, list) else value


def lists_for_tuples(configuration, folder):
    configuration.update(plain(dict(configuration)))


def exported(legacy):
    def change(configuration, folder):
        state = weights(folder)
        save_exported(folder / 'pytorch_model.pt', state, legacy=legacy)

    return change


def extra(name, content=b'x'):
    def change(configuration, folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def named(file_name):
    """`model.file_name`, as some of ModelScope's exporters write it."""

    def change(configuration, folder):
        (folder / 'pytorch_model.pt').rename(folder / file_name)
        configuration['model']['file_name'] = file_name

    return change


def named_beside_another(configuration, folder):
    """The file that is named counts, not the one of the usual name."""
    other = {key: value + 1 for key, value in weights(folder).items()}
    named('weights_of_mine.pth')(configuration, folder)
    torch.save(other, folder / 'pytorch_model.pt')


def misnamed(configuration, folder):
    state = weights(folder)
    (folder / 'pytorch_model.pt').unlink()
    save_file(state, folder / 'pytorch_model.bin')


def only(*keys):
    """Nothing but these sections."""

    def change(configuration, folder):
        for key in set(configuration) - set(keys):
            del configuration[key]

    return change


def rewritten(how):
    """The file written in another way."""

    def change(configuration, folder):
        configuration['__text__'] = how

    return change


def class_list_in_a_file(configuration, folder):
    (folder / 'classes.txt').write_text('\n'.join(configuration['CLASSES']))
    configuration['CLASSES'] = 'classes.txt'


def dataset_classes_only(configuration, folder):
    del configuration['CLASSES'], configuration['PALETTE']


def prefixed(prefix):
    return lambda state: {prefix + key: value for key, value in state.items()}


def mmcv_epoch(state):
    return {
        'meta': {'epoch': 30, 'iter': 5, 'hook_msgs': {'last_ckpt': 'x'}, 'CLASSES': ('a',)},
        'state_dict': state,
        'optimizer': {'state': {0: {'step': torch.tensor(3.0)}}, 'param_groups': [{'lr': 6e-5}]},
    }


def with_average(state):
    """As mmcv's EMAHook leaves it: the average in the weights' place, and what training goes on from beside it."""
    return {'state_dict': {**state, **{f'ema_{key.replace(".", "_")}': value + 1 for key, value in state.items()}}}


PADDING = {'type': 'MMPad', 'size_divisor': 32}


def pad(configuration, folder):
    configuration['dataset']['val']['pipeline'][0]['transforms'].insert(3, PADDING)


def own_test_pipeline(configuration, folder):
    configuration['test_pipeline'] = configuration['dataset']['val']['pipeline']


VARIATIONS = {
    'plain': lambda configuration, folder: None,
    # configuration: what EasyCV's converter and its editors write
    'lists in place of jsonplus tuples': lists_for_tuples,
    'SyncBN': setter('model.decode_head.norm_cfg.type', 'SyncBN'),
    'SyncBN above the head': setter('norm_cfg', {'type': 'SyncBN', 'requires_grad': True}),
    'pretrained URL': setter('model.pretrained', 'https://download.openmmlab.com/mit_b0.pth'),
    'pretrained False': setter('model.pretrained', False),
    'no pretrained': setter('model.pretrained', MISSING),
    'backbone init_cfg': setter('model.backbone.init_cfg', {'type': 'Pretrained', 'checkpoint': 'mit_b0.pth'}),
    'no task': setter('task', MISSING),
    'no framework': setter('framework', MISSING),
    'no train': setter('train', MISSING),
    'no evaluation': setter('evaluation', MISSING),
    'no preprocessor': setter('preprocessor', MISSING),
    'preprocessor null': setter('preprocessor', None),
    'preprocessor named': setter('preprocessor', {'type': 'segformer-preprocessor'}),
    'no train data': setter('dataset.train', MISSING),
    'no __easycv_arch__': setter('model.__easycv_arch__', MISSING),
    'no predictor_config': setter('pipeline.predictor_config', MISSING),
    'no reserved keys': setter('__easycv_meta__', MISSING),
    'no plugins': setter('plugins', MISSING),
    'plugins pai_easycv': setter('plugins', ['pai-easycv']),
    'test_cfg null': setter('model.test_cfg', None),
    'no train_cfg': setter('model.train_cfg', MISSING),
    'train_cfg null': setter('model.train_cfg', None),
    'comment': setter('_comment', 'converted by easycv.toolkit.modelscope'),
    'comments in sections': setter('model.__comment__', 'SegFormer-B0'),
    'data_root': setter('data_root', './data/coco_stuff164k'),
    'img_norm_cfg above': setter(
        'img_norm_cfg', {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375], 'to_rgb': True}
    ),
    'log and dist sections': setter('log_config', {'interval': 50, 'hooks': [{'type': 'TextLoggerHook'}]}),
    'dist_params': setter('dist_params', {'backend': 'nccl'}),
    'export section': setter('export', {'export_neck': True}),
    'easycv version': setter('easycv_version', '0.11.7'),
    'no PALETTE': setter('PALETTE', MISSING),
    'classes of the data set only': dataset_classes_only,
    'class list in a file': class_list_in_a_file,
    'test_pipeline': own_test_pipeline,
    'padding': pad,
    'nothing but what predicts': only('task', 'framework', 'plugins', 'model', 'dataset', 'pipeline', 'CLASSES'),
    # the file itself
    'one line': rewritten(lambda text: json.dumps(json.loads(text))),
    'CRLF': rewritten(lambda text: text.replace('\n', '\r\n')),
    'escaped': rewritten(lambda text: json.dumps(json.loads(text), ensure_ascii=True, indent=4)),
    # weights: names and forms
    'pytorch_model.bin': stored('pytorch_model.bin'),
    'model.pth': stored('model.pth'),
    'model.pt': stored('model.pt'),
    'file_name': named('weights_of_mine.pth'),
    'file_name of one of two': named_beside_another,
    'safetensors named .bin': misnamed,
    'DataParallel of the backbone': stored(
        'pytorch_model.pt',
        lambda state: {key.replace('backbone.', 'backbone.module.'): value for key, value in state.items()},
    ),
    'file_name of the usual name': setter('model.file_name', 'pytorch_model.pt'),
    'state dict alone': stored('pytorch_model.pt'),
    'EasyCV export': exported(False),
    'EasyCV export in the old format': exported(True),
    'mmcv checkpoint': stored('pytorch_model.pt', mmcv_epoch),
    'model key': stored('pytorch_model.pt', lambda state: {'model': state}),
    'DataParallel': stored('pytorch_model.pt', lambda state: {'state_dict': prefixed('module.')(state)}),
    'moving average beside it': stored('pytorch_model.pt', with_average),
    'average in the same file': stored(
        'pytorch_model.pt',
        lambda state: {'state_dict': state, 'state_dict_ema': {key: value + 1 for key, value in state.items()}},
    ),
    'optimizer in the same file': stored(
        'pytorch_model.pt',
        lambda state: {
            'state_dict': state,
            'optimizer': {'state': {0: {'exp_avg': torch.ones(3)}}, 'param_groups': []},
        },
    ),
    'half precision': stored(
        'pytorch_model.pt',
        lambda state: {key: value.half() if value.is_floating_point() else value for key, value in state.items()},
    ),
    'safetensors': stored('model.safetensors'),
    'safetensors with metadata': stored('model.safetensors', metadata={'format': 'pt', 'epoch': '30'}),
    # other files
    'README and pictures': extra('README.md', b'# card'),
    'picture folder': extra('assets/result.jpg'),
    'ONNX beside it': extra('model.onnx'),
    'log of the training': extra('20220919.log.json', b'{}\n'),
    'ModelScope marks': extra('.msc'),
    'training configuration': extra('segformer_b0_coco.py', b'model = dict()\n'),
}
OTHER_PIXELS = {'padding', 'half precision'}  # a pixel at a boundary may differ from the plain form


@pytest.fixture(scope='module')
def image():
    ramp = np.linspace(0, 255, 96, dtype=np.uint8)
    return np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:64, None], (1, 96)), np.full((64, 96), 90, np.uint8)], -1)


@pytest.fixture(scope='module')
def expected(tiny_model_dir, image):
    from ms_segformer.pipelines.image_segmentation import SegformerPipeline

    return SegformerPipeline(str(tiny_model_dir), device='cpu', engine='torch')(image)


@pytest.mark.parametrize('name', VARIATIONS)
def test_a_repository_of_this_form_predicts(name, tiny_model_dir, tmp_path, image, expected):
    from modelscope.pipelines import pipeline

    folder = tmp_path / 'model'
    shutil.copytree(tiny_model_dir, folder)
    configuration = json.loads((folder / 'configuration.json').read_text())
    VARIATIONS[name](configuration, folder)
    rewrite = configuration.pop('__text__', lambda text: text)
    (folder / 'configuration.json').write_bytes(
        rewrite(json.dumps(configuration, indent=2, ensure_ascii=False)).encode()
    )
    result = pipeline('image-segmentation', str(folder), device='cpu', engine='torch')(image)
    same = (result['seg_map'] == expected['seg_map']).mean()
    assert same == 1 or (name in OTHER_PIXELS and same > 0.95), same
    assert name in OTHER_PIXELS or result['labels'] == expected['labels']


def test_the_table_is_as_long_as_it_says():
    assert len(VARIATIONS) >= 40
