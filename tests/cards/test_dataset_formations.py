"""The cards' data set in each formation the hub serves, with training ids or official ones: the trainer's samples."""

import json
import re

import pytest
from hub.cards import CARDS
from hub.coco_stuff import add_coco_stuff, add_files, add_tables, make_pairs, to_official, training_files
from hub.fixtures import MODEL_ID, published_files

pytestmark = pytest.mark.forked_python

OSS = 'MsDataset.load needs oss2: pip install ms-segformer[train]'
TRAIN_IDS, OFFICIAL_IDS = [111, 145, 255], [111, 145, 161, 255]  # `to_official` adds wall-other, training id 161
FORMS = {
    'published_zips': (lambda hub, pairs, official: add_coco_stuff(hub, pairs, 'published_zips'), TRAIN_IDS),
    'zips_with_a_folder': (
        lambda hub, pairs, official: add_coco_stuff(hub, pairs, 'zips_with_a_folder', inside='coco_stuff164k'),
        TRAIN_IDS,
    ),
    'zips_of_official_maps': (
        lambda hub, pairs, official: add_coco_stuff(hub, official, 'zips_of_official_maps'),
        OFFICIAL_IDS,
    ),
    'tables': (lambda hub, pairs, official: add_tables(hub, pairs, 'tables'), TRAIN_IDS),
    'tables_of_official_maps': (
        lambda hub, pairs, official: add_tables(
            hub, official, 'tables_of_official_maps', ('img', 'annotation'), '.png'
        ),
        OFFICIAL_IDS,
    ),
}

# What the training code of the cards does, up to the first step.
SAMPLES = """
    import json
    import numpy as np
    import ms_segformer
    from modelscope.hub.snapshot_download import dataset_snapshot_download
    from modelscope.metainfo import Trainers
    from modelscope.msdatasets import MsDataset
    from modelscope.trainers import build_trainer

    def samples(name, **how):
        trainer = build_trainer(Trainers.easycv, dict(model={model!r}, work_dir={work!r} + name, **how))
        found = {{}}
        for split in ('train_dataset', 'eval_dataset'):
            dataset = getattr(trainer, split)
            labels = [dataset.load_label(index) for index in range(len(dataset))]
            found[split] = [len(dataset), np.unique(labels).tolist(),
                            list(dataset[0]['gt_semantic_seg' if split == 'train_dataset' else 'label'].shape)]
        return found

    def loaded(name):
        return [MsDataset.load(name, namespace='damo', split=split) for split in ('train', 'validation')]

    seen = {{}}
"""


def test_every_formation_gives_the_same_samples(python, hub, tmp_path):
    """By ModelScope's own client, in one process for all of them."""
    pytest.importorskip('oss2', reason=OSS)
    pytest.importorskip('pyarrow', reason='parquet files need pyarrow: pip install ms-segformer[train]')
    pairs, official = make_pairs(tmp_path / 'pairs'), to_official(make_pairs(tmp_path / 'official'))
    for add, _ in FORMS.values():
        add(hub, pairs, official)
    add_files(hub, pairs, 'plain_files')
    add_files(hub, official, 'plain_files_official')
    hub.add_model(MODEL_ID, training_files(published_files(), image_scale=(64, 48), crop=(32, 32)))
    seen = python.result(
        SAMPLES.format(model=MODEL_ID, work=str(tmp_path / 'run'))
        + f"""
    for name in {list(FORMS)!r}:
        train, validation = loaded(name)
        seen[name] = samples(name, train_dataset=train, eval_dataset=validation)
    for name in ('plain_files', 'plain_files_official'):
        seen[name] = samples(name, data_root=dataset_snapshot_download('damo/' + name))
    try:
        samples('table', train_dataset=loaded('plain_files')[0])
    except Exception as error:
        seen['table of plain files'] = f'{{type(error).__name__}}: {{error}}'
    print(json.dumps(seen))
    """
    )
    refused = seen.pop('table of plain files')
    expected = {
        **{name: ids for name, (_, ids) in FORMS.items()},
        'plain_files': TRAIN_IDS,
        'plain_files_official': OFFICIAL_IDS,
    }
    assert seen == {
        name: {'train_dataset': [4, ids, [1, 32, 32]], 'eval_dataset': [4, ids, [48, 64]]}
        for name, ids in expected.items()
    }
    assert refused.startswith('DatasetError: ') and 'holds no label maps (its columns: image). Name' in refused
    assert 'dataset_snapshot_download' in refused and '\n' not in refused


def test_the_training_code_trains_on_tables_of_official_maps(python, hub, tmp_path):
    """Verbatim, and says that it turns the ids into training ids."""
    pytest.importorskip('pyarrow', reason='parquet files need pyarrow: pip install ms-segformer[train]')
    add_tables(hub, to_official(make_pairs(tmp_path / 'pairs', count=2)), suffix='.png')
    hub.add_model(MODEL_ID, training_files(published_files(), epochs=1, image_scale=(64, 48), crop=(32, 32)))
    python.extra['TMPDIR'] = str(tmp_path)
    done = python.run('-m', 'ms_segformer.cli.main', 'run', CARDS / 'card_train.py')
    said = done.stdout + done.stderr
    assert len(re.findall('the label maps are the official ones of COCO-Stuff', said)) == 2
    assert list(tmp_path.glob('tmp*/epoch_1.pth')) and python.pip() == []
    (evaluation,) = tmp_path.glob('tmp*/last_evaluation.json')
    assert json.loads(evaluation.read_text())
