"""`MsDataset.load('coco_stuff164k', namespace='damo')` through the hub, and a folder on disk, reach SegDataset."""

import json

import pytest
from hub.coco_stuff import add_coco_stuff, make_pairs, training_files
from hub.fixtures import published_files

pytestmark = pytest.mark.forked_python

TO_SEG_DATASET = """
import json
import ms_segformer
from modelscope.msdatasets import MsDataset
from modelscope.utils.config import Config

config = Config.from_file({configuration!r})
seen = {{}}
for split, mode in (('train', 'train'), ('validation', 'eval')):
    loaded = MsDataset.load('coco_stuff164k', namespace='damo', split=split)
    loaded.to_custom_dataset(custom_cfg=config, preprocessor=None, mode=mode)
    dataset = loaded.ds_instance
    sample = dataset[0]
    seen[split] = [type(dataset).__module__, type(dataset).__name__, len(dataset), sorted(sample),
                   list(dataset.CLASSES)[:2], [dataset.sample_name(i) for i in range(len(dataset))]]
print(json.dumps(seen))
"""


def pairs(folder, request, real):
    return request.getfixturevalue('shared') / 'data' / 'cocostuff_sample' if real else make_pairs(folder / 'pairs')


@pytest.mark.parametrize('real', [False, True], ids=['made', 'COCO-Stuff'])
def test_the_published_data_set_reaches_seg_dataset(python, hub, tmp_path, request, real):
    pytest.importorskip('datasets')
    pytest.importorskip('oss2', reason='MsDataset.load needs oss2: pip install ms-segformer[train]')
    folder = pairs(tmp_path, request, real)
    add_coco_stuff(hub, folder)
    configuration = tmp_path / 'configuration.json'
    configuration.write_bytes(training_files(published_files())['configuration.json'])
    seen = python.result(TO_SEG_DATASET.format(configuration=str(configuration)))
    for split, name in (('train', 'train'), ('validation', 'val')):
        ids = (folder / f'{name}.txt').read_text().split()
        module, kind, length, keys, classes, names = seen[split]
        assert (module, kind, length) == ('ms_segformer.datasets.seg_dataset', 'SegDataset', len(ids))
        assert classes == ['person', 'bicycle']
        assert [found.split('.')[0] for found in names] == ids
        assert {'img', 'img_metas'} <= set(keys)
    assert hub.asked('zips/coco_stuff164k/train.zip') and hub.asked('zips/coco_stuff164k/val.zip')
    assert python.pip() == []


def test_a_second_load_downloads_nothing(python, hub, tmp_path):
    pytest.importorskip('oss2', reason='MsDataset.load needs oss2: pip install ms-segformer[train]')
    add_coco_stuff(hub, make_pairs(tmp_path / 'pairs'))
    configuration = tmp_path / 'configuration.json'
    configuration.write_bytes(training_files(published_files())['configuration.json'])
    python.run(code=TO_SEG_DATASET.format(configuration=str(configuration)))
    first = len(hub.asked('GET /zips'))
    python.run(code=TO_SEG_DATASET.format(configuration=str(configuration)))
    assert first == 2 and len(hub.asked('GET /zips')) == first


def test_a_folder_on_disk_needs_no_hub(python, hub, tmp_path):
    hub.stop()
    folder = make_pairs(tmp_path / 'pairs')
    configuration = json.loads(training_files(published_files())['configuration.json'])
    section = configuration['dataset']['train']
    assert python.result(f"""
        import json
        import ms_segformer
        from ms_segformer.datasets.seg_dataset import SegDataset
        section = json.loads({json.dumps(section)!r})
        section.pop('type')
        dataset = SegDataset(**section, split_config={{'train': {str(folder)!r}}}, mode='train')
        print(json.dumps([len(dataset), sorted(dataset[0])]))
    """) == [4, ['gt_semantic_seg', 'img', 'img_metas']]
    assert hub.requests == []
