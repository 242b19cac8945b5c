"""Label maps, logits and outputs: ours against EasyCV's on the same weights and images."""

import json
import shutil

import numpy as np
import pytest
import torch

from ms_segformer.models.checkpoint import read_checkpoint

CLEAR = 1e-3  # a pixel whose best logit leads by less may fall either way by rounding alone


@pytest.fixture(scope='module')
def ours(model_dir):
    from modelscope.pipelines import pipeline
    from modelscope.utils.constant import Tasks

    return pipeline(Tasks.image_segmentation, str(model_dir))


def test_label_maps_are_equal_on_every_clear_pixel(ours, original, photographs):
    assert type(ours).__module__.startswith('ms_segformer')
    for path in photographs:
        theirs, margin = original.segment(path)
        seg_map = ours(str(path))['seg_map']
        assert seg_map.shape == theirs.shape
        different = seg_map != theirs
        assert not (different & (margin >= CLEAR)).any(), f'{path.name}: {different.sum()} pixels differ'
        assert different.mean() < 1e-4  # near ties are no licence for anything else


def test_labels_and_masks_come_in_the_same_order(ours, original, photographs):
    for path in photographs[:2]:
        theirs = original.pipeline(str(path))
        _, margin = original.segment(path)
        result = ours(str(path))
        assert result['labels'] == theirs['labels']
        for mask, their_mask in zip(result['masks'], theirs['masks'], strict=True):
            assert not ((mask != their_mask) & (margin >= CLEAR)).any()


@pytest.mark.parametrize('height, width', [(64, 96), (65, 97), (31, 33), (224, 160)])
def test_logits_are_equal(ours, original, height, width):
    image = torch.from_numpy(np.random.RandomState(height).randn(2, 3, height, width).astype(np.float32))
    with torch.no_grad():
        logits = ours.model.eval()(image)['logits']
        theirs = original.model.eval().decode_head(original.model.backbone(image))
    assert logits.shape == theirs.shape
    torch.testing.assert_close(logits, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


def test_the_state_dicts_have_the_same_keys_and_shapes(ours, original):
    shapes = {key: tuple(value.shape) for key, value in ours.model.state_dict().items()}
    assert shapes == {key: tuple(value.shape) for key, value in original.model.state_dict().items()}


@pytest.mark.parametrize('written_by', ['export', 'save_checkpoint'])
def test_checkpoints_as_easycv_and_mmcv_write_them_open(ours, original, model_dir, photographs, tmp_path, written_by):
    """EasyCV's export pickles the configuration as a ConfigDict; mmcv's checkpoints hold numpy numbers and more."""
    from easycv.apis.export import export
    from mmcv.runner import save_checkpoint
    from mmcv.utils import Config

    configuration = json.loads((model_dir / 'configuration.json').read_text())
    shutil.copy(model_dir / 'configuration.json', tmp_path)
    path = tmp_path / 'pytorch_model.pt'
    if written_by == 'export':
        config = Config({'model': configuration['model'], 'CLASSES': list(original.pipeline.predict_op.CLASSES)})
        export(config, 'dummy', str(path), model=original.model)
    else:
        optimizer = torch.optim.AdamW(original.model.parameters())
        save_checkpoint(
            original.model,
            str(path),
            optimizer,
            {'epoch': 30, 'iter': 1000, 'hook_msgs': {'best_score': np.float64(35.91), 'history': np.arange(3.0)}},
        )
    with pytest.raises(Exception, match='(?i)weights.?only|unsupported'):  # what stood in the way
        torch.load(path, weights_only=True)
    state, meta = read_checkpoint(path)
    assert all(torch.equal(value, state[key]) for key, value in original.model.state_dict().items())
    if written_by == 'export':
        assert meta['config']['model']['backbone']['embed_dims'] == configuration['model']['backbone']['embed_dims']
    else:
        assert meta['hook_msgs'] == {'best_score': 35.91, 'history': [0, 1, 2]} and meta['epoch'] == 30
    image = str(photographs[0])
    np.testing.assert_array_equal(type(ours)(str(tmp_path))(image)['seg_map'], ours(image)['seg_map'])
