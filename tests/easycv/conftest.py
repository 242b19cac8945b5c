"""Ours against the real EasyCV in one process: these tests run in the environment that `make easycv` builds."""

import importlib.util
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = __file__.rsplit('/tests/', 1)[0]


def _easycv_is_installed():
    spec = importlib.util.find_spec('easycv')  # imports nothing; this folder itself has that name, but no origin
    return spec is not None and spec.origin is not None


@pytest.fixture(scope='session', autouse=True)
def _needs_easycv():
    if not _easycv_is_installed():
        pytest.skip('EasyCV is not installed: `make easycv` builds an environment with it and runs these tests there')


@pytest.fixture(scope='session')
def easycv(_needs_easycv):
    """EasyCV's classes for SegFormer, all of its ModelScope plugin registered beside ours."""
    import easycv.toolkit.modelscope  # noqa: F401
    from easycv.toolkit.modelscope.models.image_semantic_segmentation.segformer import Segformer
    from easycv.toolkit.modelscope.msdatasets.image_semantic_segmentation.segmentation_dataset import SegDataset
    from easycv.toolkit.modelscope.pipelines.segmentation_pipeline import EasyCVSegmentationPipeline
    from easycv.toolkit.modelscope.trainers import EasyCVEpochBasedTrainer, EasyCVMetric

    return SimpleNamespace(
        Segformer=Segformer,
        Pipeline=EasyCVSegmentationPipeline,
        SegDataset=SegDataset,
        Trainer=EasyCVEpochBasedTrainer,
        Metric=EasyCVMetric,
    )


@pytest.fixture(scope='session', params=['tiny', 'demo', 'trained_b0'])
def model_dir(request, tmp_path_factory):
    """A model directory in the original's layout: the tiny model, this package's own, and a B0 the original trained."""
    if request.param == 'tiny':
        return request.getfixturevalue('tiny_model_dir')
    if request.param == 'trained_b0':
        return request.getfixturevalue('oracle') / 'trained_b0'
    from ms_segformer.metainfo import demo_model_dir
    from ms_segformer.models.checkpoint import save_checkpoint
    from ms_segformer.models.segformer import Segformer

    folder = tmp_path_factory.mktemp('demo')
    configuration = json.loads((demo_model_dir() / 'configuration.json').read_text())
    # EasyCV scales the logits of padding into the result, here they are cut off: without padding both must agree.
    (step,) = configuration['dataset']['val']['pipeline']
    step['transforms'] = [transform for transform in step['transforms'] if transform['type'] != 'MMPad']
    (folder / 'configuration.json').write_text(json.dumps(configuration))
    # EasyCV does not read safetensors.
    save_checkpoint(folder / 'pytorch_model.pt', Segformer.from_pretrained(str(demo_model_dir())))
    return folder


@pytest.fixture(scope='session')
def photographs(request):
    """Photographs of the repository, and those of ../shared where it is there."""
    from pathlib import Path

    found = sorted(Path(ROOT, 'assets').glob('*.jpg'))
    shared = Path(ROOT).parent / 'shared'
    if (shared / 'data').is_dir():
        found += sorted((shared / 'data' / 'photos').iterdir())
        found += sorted((shared / 'data' / 'cocostuff_sample' / 'val2017').glob('*.jpg'))
        found += sorted((shared / 'data' / 'camvid' / 'images' / 'val').glob('*.jpg'))[::50]
    assert found, 'no photographs found'
    return found


class Original:
    """EasyCV's own pipeline on a model directory, with the logits that its label maps come from."""

    def __init__(self, easycv, model_dir):
        self.pipeline = easycv.Pipeline(str(model_dir))
        self.pipeline.predict_op.prepare_model()
        self.model = self.pipeline.predict_op.model
        whole_inference = self.model.whole_inference

        def keep_logits(*args, **kwargs):
            self.logits = whole_inference(*args, **kwargs)
            return self.logits

        self.model.whole_inference = keep_logits

    def segment(self, path):
        """H×W label map, and H×W distance of the best logit from the second best."""
        label_map = np.asarray(self.pipeline.predict_op([str(path)])[0]['seg_pred']).squeeze()
        best = self.logits[0].topk(2, dim=0).values
        return label_map, (best[0] - best[1]).cpu().numpy()


@pytest.fixture(scope='session')
def original(easycv, model_dir):
    return Original(easycv, model_dir)


@pytest.fixture
def open_in_easycv(easycv):
    """Function: model directory -> `Original` on it."""
    return lambda path: Original(easycv, path)


@pytest.fixture
def copy_model():
    """Function: copies a model directory; `change` gets the configuration as a dict and alters it."""

    def copy(source, target, change=None):
        shutil.copytree(source, target)
        if change is not None:
            path = target / 'configuration.json'
            configuration = json.loads(path.read_text())
            change(configuration)
            path.write_text(json.dumps(configuration))
        return target

    return copy
