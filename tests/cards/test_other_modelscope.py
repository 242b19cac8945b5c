"""The cards with other releases of ModelScope: the lowest supported one (`make test-low`) and the newest (`test-new`).

MS_SEGFORMER_OTHER_PYTHON names the interpreter of an environment with that release. Releases before 1.36 take no
MODELSCOPE_ENDPOINT, so they find the hub as a proxy under the name of the real one.
"""

import os
import shutil
from pathlib import Path

import pytest
from hub.cards import CARDS, IMAGE_HOST, IMAGE_PATH, expected_labels, labels_in, photograph
from hub.coco_stuff import add_coco_stuff, make_pairs, training_files
from hub.fixtures import MODEL_ID, published_files

INTERPRETER = os.environ.get('MS_SEGFORMER_OTHER_PYTHON')
RUN = (
    'import sys, argparse; from ms_segformer.cli import run; parser = argparse.ArgumentParser(); '
    'run.add_arguments(parser); sys.exit(run.run(parser.parse_args(sys.argv[1:])))'
)

pytestmark = pytest.mark.skipif(
    not INTERPRETER, reason='MS_SEGFORMER_OTHER_PYTHON is not set: `make test-low` and `make test-new` do that'
)


@pytest.fixture
def other(python, hub, tmp_path):
    """The other interpreter, with this working tree on its path."""
    if shutil.which('openssl') is None:
        pytest.skip("needs the openssl command, for certificates of the hub and of the host in the card's URL")
    hub.trust('www.modelscope.cn', 'modelscope.cn', IMAGE_HOST)
    python.executable = INTERPRETER
    python.extra = {
        **hub.environment(python.cache, proxy=True),
        'PYTHONPATH': str(Path(__file__).parents[2]),
        'TMPDIR': str(tmp_path),
    }
    return python


def test_every_change_is_made(other):
    done = other.run(
        code="""
        from ms_segformer.integrations.modelscope import patches
        import modelscope.hub.api, modelscope.preprocessors.base, modelscope.utils.config, modelscope.version
        from modelscope.metainfo import Trainers
        print(modelscope.version.__version__, patches.problems(), Trainers.easycv)
    """
    )
    assert done.stdout.split()[-2:] == ['[]', 'easycv'] and 'could not connect' not in done.stderr


def test_the_prediction_code_runs(other, hub):
    content = photograph()
    hub.add_file(IMAGE_PATH, content)
    done = other.run('-c', RUN, CARDS / 'card_predict.py')
    assert labels_in(done.stdout) == expected_labels(content)
    assert hub.asked('pytorch_model.pt') and other.pip() == []


def test_the_training_code_trains(other, hub, tmp_path):
    add_coco_stuff(hub, make_pairs(tmp_path / 'pairs', count=2))
    hub.add_model(MODEL_ID, training_files(published_files(), epochs=1, image_scale=(64, 48), crop=(32, 32)))
    other.run('-c', RUN, CARDS / 'card_train.py')
    assert list(tmp_path.glob('tmp*/epoch_1.pth')) and other.pip() == []
