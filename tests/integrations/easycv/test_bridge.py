"""What the bridge says and does where EasyCV is not installed, and how it drives a hook written for mmcv's runner.

The real packages are tested in tests/easycv/. The stand-ins here are small packages written to a folder on the path:
they prove the look-up and the adapter, not parity.
"""

import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest

from ms_segformer.integrations.easycv import bridge

without_easycv = pytest.mark.skipif(any(bridge.available().values()), reason='EasyCV or mmcv is installed here')

STAND_IN = """
    class Registry:
        def __init__(self):
            self._module_dict = {}

        def add(self, cls):
            self._module_dict[cls.__name__] = cls
            return cls

    HOOKS = Registry()

    @HOOKS.add
    class CountingHook:
        def __init__(self, step=1):
            self.step = step

        def before_run(self, runner):
            runner.counted = 0

        def after_train_iter(self, runner):
            runner.counted += self.step
            runner.seen = (runner.iter, runner.outputs['num_samples'], runner.rank, runner._max_iters)

        def after_run(self, runner):
            runner.nowhere

    @HOOKS.add
    class ReadingHook:
        def after_train_iter(self, runner):
            self.read = runner.counted
            self.hooks = runner.hooks
            self.evaluations = runner.eval_res['evaluation']

    @HOOKS.add
    class FlatLrUpdaterHook:
        def __init__(self, factor):
            self.factor = factor

        def before_train_iter(self, runner):
            for group in runner.optimizer.param_groups:
                group['lr'] *= self.factor
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A package `mmcv` with three hooks, on the path for one test."""
    folder = tmp_path / 'mmcv' / 'runner'
    folder.mkdir(parents=True)
    (folder.parent / '__init__.py').write_text('')
    (folder / '__init__.py').write_text('')
    (folder / 'hooks.py').write_text(textwrap.dedent(STAND_IN))
    monkeypatch.syspath_prepend(str(tmp_path))
    saved = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split('.')[0] == 'mmcv'}
    yield folder
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmcv']:
        del sys.modules[name]
    sys.modules.update(saved)


class Trainer:
    """The attributes of ModelScope's trainer that the hooks above ask for."""

    def __init__(self, hooks):
        self.hooks = hooks
        self.iter, self.epoch, self.max_iters, self.max_epochs = 7, 2, 100, 3
        self.data_loader = SimpleNamespace(batch_size=4)
        self.train_outputs = {'loss': 1.0}
        self.optimizer = SimpleNamespace(param_groups=[{'lr': 1.0}])
        self._metric_values = {'mIoU': 0.5}

    def invoke(self, stage):
        for hook in sorted(self.hooks, key=lambda hook: hook.PRIORITY):
            getattr(hook, stage)(self)


def test_the_bridge_imports_nothing_before_a_name_is_asked_for():
    script = (
        'import sys; from ms_segformer.integrations.easycv import bridge; bridge.available();'
        'print([m for m in ("easycv", "mmcv", "torch", "modelscope") if m in sys.modules])'
    )
    output = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True).stdout
    assert output.strip() == '[]'


@without_easycv
@pytest.mark.parametrize(
    'kind, name, words',
    [
        ('hook', 'EMAHook', "hook 'EMAHook'"),
        ('lr_policy', 'CosineRestart', "learning-rate policy 'CosineRestart'"),
        ('optimizer', 'LARS', "optimizer 'LARS'"),
        ('transform', 'Rotate', "transform 'Rotate'"),
    ],
)
def test_a_foreign_name_without_the_packages_names_them(kind, name, words):
    with pytest.raises(bridge.BridgeError) as caught:
        bridge.foreign(kind, name)
    assert words in str(caught.value)
    assert 'EasyCV and mmcv 1.x' in str(caught.value) and 'docs/en/easycv.md' in str(caught.value)


@without_easycv
def test_without_easycv_there_are_no_transforms_and_no_registries():
    assert bridge.transform('Rotate') is None
    with pytest.raises(bridge.BridgeError, match='EasyCV is not installed'):
        bridge.register_in_easycv()


@without_easycv
def test_a_folder_named_easycv_is_not_taken_for_the_package(tmp_path, monkeypatch):
    (tmp_path / 'easycv').mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert bridge.available()['easycv'] is None


@pytest.mark.parametrize('name', sorted(bridge.REFUSED))
def test_hooks_that_replace_the_trainer_are_refused_with_the_way_to_go(name):
    with pytest.raises(bridge.BridgeError, match=name) as refused:
        bridge.build_hook({'type': name})
    assert ('train.amp' in str(refused.value)) == ('16' in name), 'the key that the configuration has'


@without_easycv
def test_a_hook_of_mmcv_runs_in_a_trainer_of_modelscope(stand_in):
    counting = bridge.build_hook({'type': 'CountingHook', 'step': 3})
    reading = bridge.build_hook({'type': 'ReadingHook', 'priority': 'LOW'})
    trainer = Trainer([reading, counting])
    trainer.invoke('before_run')
    trainer.invoke('after_train_iter')
    assert reading.foreign.read == 3  # what one hook leaves on the runner, another finds there
    assert reading.foreign.hooks == [reading.foreign, counting.foreign]
    assert reading.foreign.evaluations == [{'runner_epoch': 2, 'mIoU': 0.5}]
    trainer.invoke('after_train_iter')
    assert reading.foreign.read == 6
    assert len(reading.foreign.evaluations) == 1  # the same evaluation is not counted twice
    with pytest.raises(AttributeError, match="'nowhere'.*mmcv"):
        trainer.invoke('after_run')


@without_easycv
def test_what_a_hook_may_ask_of_the_runner(stand_in):
    trainer = Trainer([bridge.build_hook({'type': 'CountingHook'})])
    trainer.invoke('before_run')
    trainer.invoke('after_train_iter')
    assert not hasattr(trainer, 'counted')  # the trainer itself is left alone
    runner = bridge._runners[trainer]
    assert runner.seen == (7, 4, 0, 100)


@without_easycv
def test_a_policy_of_mmcv_sets_the_learning_rate(stand_in):
    hook = bridge.build_lr_hook({'policy': 'flat', 'factor': 0.5, 'options': {'by_epoch': False}})
    trainer = Trainer([hook])
    trainer.invoke('before_train_iter')
    assert trainer.optimizer.param_groups[0]['lr'] == 0.5


@without_easycv
def test_a_misspelt_name_is_answered_with_the_near_ones(stand_in):
    with pytest.raises(bridge.BridgeError, match='Did you mean CountingHook'):
        bridge.foreign('hook', 'CountngHook')
    with pytest.raises(bridge.BridgeError, match='Did you mean Flat'):
        bridge.foreign('lr_policy', 'falt')


@without_easycv
def test_arguments_a_hook_does_not_take_are_named_with_those_it_takes(stand_in):
    with pytest.raises(bridge.BridgeError, match="'pace': 2.*It takes step"):
        bridge.build_hook({'type': 'CountingHook', 'pace': 2})


@without_easycv
def test_a_package_that_does_not_load_says_why(stand_in):
    (stand_in / 'hooks.py').write_text('import a_module_that_is_not_there')
    with pytest.raises(bridge.BridgeError, match='does not load.*a_module_that_is_not_there'):
        bridge.foreign('hook', 'CountingHook')


def test_a_foreign_transform_gets_float_images_and_keeps_its_arguments():
    class Darken:
        """Halves the image."""

        def __init__(self, factor=0.5):
            self.factor = factor

        def __call__(self, results):
            assert results['img'].dtype == np.float32
            results['img'] = results['img'] * self.factor
            return results

    adapted = bridge._on_float_images(Darken)
    labels = np.zeros((2, 2), np.uint8)
    results = adapted(factor=0.25)({'img': np.full((2, 2, 3), 8, np.uint8), 'gt_semantic_seg': labels})
    assert results['img'].max() == 2 and results['gt_semantic_seg'].dtype == np.uint8
    assert adapted.__name__ == 'Darken'
