"""A folder of Parquet files: what is dealt out, what is there already, and what a killed run has left."""

import json
from pathlib import Path

import pytest

pytest.importorskip('pyarrow', reason='needs pyarrow, which the extra [ray] brings')
pytest.importorskip('fsspec', reason='needs fsspec, which the extra [ray] brings')

import pyarrow as pa  # noqa: E402

from ms_segformer.results import ManifestError  # noqa: E402
from ms_segformer.results.parquet import (  # noqa: E402
    FEWEST,
    MOST,
    RECORD,
    UNFINISHED,
    ParquetFolder,
    part_of,
    part_size,
    replaced,
    to_parquet,
)
from ms_segformer.stores import StoreError, open_store  # noqa: E402

OURS = {'model': {'name': 'demo', 'sha256': 'a' * 64}, 'options': {'mode': 'whole'}}
KEYS = [f'/photos/{number}.jpg' for number in range(30)]


def rows(keys, error=None):
    return pa.table(
        {'path': pa.array(keys, pa.string()), 'error': pa.array([error and error(key) for key in keys], pa.string())}
    )


def do(folder, parts, error=None):
    """What an actor and the run do of parts."""
    for part in parts:
        path = Path(folder.unfinished) / part.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_parquet(rows(part.keys, error)))
        folder.commit(part)


def paths(folder):
    return sorted(path for name in folder.parts() for path in folder.read(name).column('path').to_pylist())


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / 'out')


def test_every_image_is_in_one_part_and_a_finished_run_has_none_left(place):
    with ParquetFolder(place, OURS) as folder:
        plan = folder.plan([*KEYS, KEYS[3]])
        assert plan.images == 30 and plan.left == 30
        assert sorted(key for part in plan.parts for key in part.keys) == sorted(KEYS)
        assert [len(part.keys) for part in plan.parts] == [FEWEST] * 3 + [30 - 3 * FEWEST]
        do(folder, plan.parts)
        assert folder.plan(KEYS).parts == []
        assert paths(folder) == sorted(KEYS)
    assert sorted(path.name for path in Path(place).iterdir()) == sorted([RECORD, *folder.parts()])


def test_a_run_that_goes_on_keeps_the_parts_of_the_first_whatever_is_done(place):
    with ParquetFolder(place, OURS) as folder:
        first = folder.plan(KEYS).parts
        do(folder, first[1:3])
    with ParquetFolder(place, OURS) as folder:
        assert folder.plan(KEYS).parts == [first[0], first[3]]


@pytest.mark.parametrize('more', [['/photos/new.jpg', *KEYS], KEYS[5:20], [*KEYS[::-1], '/x.jpg']])
def test_a_run_of_other_images_leaves_out_those_that_have_a_row(place, more):
    with ParquetFolder(place, OURS) as folder:
        do(folder, folder.plan(KEYS).parts[:2])
    with ParquetFolder(place, OURS) as folder:
        plan = folder.plan(more)
        assert {key for part in plan.parts for key in part.keys} == set(more) - set(KEYS[: 2 * FEWEST])
        do(folder, plan.parts)
        assert paths(folder) == sorted({*more, *KEYS[: 2 * FEWEST]})


def test_rows_with_an_error_are_done_again_where_that_is_asked_for_and_only_they(place):
    bad = {KEYS[2], KEYS[11]}
    with ParquetFolder(place, OURS) as folder:
        parts = folder.plan(KEYS).parts
        do(folder, parts, lambda key: 'unreadable' if key in bad else None)
        assert folder.plan(KEYS).parts == []
        again = folder.plan(KEYS, retry_failed=True).parts
        assert [(part.keys, part.again) for part in sorted(again, key=lambda part: part.keys)] == [
            ((KEYS[11],), True),
            ((KEYS[2],), True),
        ]
        assert {part.name for part in again} <= {part.name for part in parts}
        assert folder.plan(KEYS[:8], retry_failed=True).left == 1


def test_replaced_rows_keep_their_places():
    new = replaced(rows(['a', 'b', 'c'], lambda key: 'bad'), rows(['b']))
    assert new.to_pydict() == {'path': ['a', 'b', 'c'], 'error': ['bad', None, 'bad']}


def test_one_run_at_a_time_writes_there(place):
    with ParquetFolder(place, OURS), pytest.raises(ManifestError, match='another process is writing there'):
        ParquetFolder(place, OURS).__enter__()


def test_what_a_killed_run_left_unfinished_goes_and_what_it_still_writes_is_no_row(place):
    with ParquetFolder(place, OURS):
        pass
    left = Path(place) / UNFINISHED / 'abc' / 'part-0.parquet'
    left.parent.mkdir(parents=True)
    left.write_bytes(b'half')
    with ParquetFolder(place, OURS) as folder:
        assert not left.exists()
        left.parent.mkdir(parents=True)
        left.write_bytes(b'of an actor that outlived its run')
        assert folder.parts() == []
    assert [path.name for path in Path(place).iterdir()] == [RECORD]


def test_rows_of_another_model_are_not_mixed_and_no_folder_of_others_is_taken(place, tmp_path):
    with ParquetFolder(place, OURS):
        pass
    for other in (
        {**OURS, 'model': {'name': 'demo', 'sha256': 'b' * 64}},
        {**OURS, 'options': {'mode': 'slide'}},
    ):
        with pytest.raises(ManifestError, match='another model or other options .*another folder'):
            ParquetFolder(place, other).__enter__()
    (Path(place) / RECORD).write_text('{}')
    with pytest.raises(ManifestError, match='not what ms-segformer predict --ray has written'):
        ParquetFolder(place, OURS).__enter__()
    for name in ('theirs.parquet', 'manifest.jsonl', UNFINISHED):
        folder = tmp_path / f'folder of {name}'
        folder.mkdir()
        (folder / name).write_text('theirs')
        with pytest.raises(ManifestError, match=f'holds {name}'):
            ParquetFolder(str(folder), OURS).__enter__()
        assert [path.name for path in folder.iterdir()] == [name]


def test_the_same_in_a_store(place):
    with ParquetFolder('memory://bucket/rows', OURS) as folder:
        parts = folder.plan(KEYS).parts
        for part in parts[:2]:
            folder._files.pipe_file(f'{folder.unfinished}/{part.name}', to_parquet(rows(part.keys)))
            folder.commit(part)
        folder._files.pipe_file(f'{folder.unfinished}/{parts[2].name}', b'half')
    with ParquetFolder('memory://bucket/rows', OURS) as folder:
        assert folder.plan(KEYS).parts == parts[2:]
        assert paths(folder) == sorted(KEYS[: 2 * FEWEST])
        assert json.loads(folder._files.cat_file('/bucket/rows/' + RECORD)) == OURS
        assert not folder._files.exists(f'/bucket/rows/{UNFINISHED}')


def test_a_name_that_looks_like_a_pattern_or_a_chain_is_the_name_of_the_folder(tmp_path):
    """To `rm` and `mv` of fsspec it is a pattern, and to `url_to_fs` a chain of file systems."""
    for url, path in (('memory://magic/rows[1]', '/magic/rows[1]'), ('memory://magic/*', '/magic/*')):
        other = f'/magic/rows1/{UNFINISHED}/theirs.parquet'
        with ParquetFolder(url, OURS) as folder:
            folder._files.pipe_file(other, b'of another run')
            (part,) = folder.plan(KEYS[:3]).parts
            folder._files.pipe_file(f'{folder.unfinished}/{part.name}', to_parquet(rows(part.keys)))
            folder.commit(part)
        with ParquetFolder(url, OURS) as folder:
            assert folder.plan(KEYS[:3]).parts == [] and paths(folder) == KEYS[:3]
            assert sorted(folder._files.find(path)) == [f'{path}/{RECORD}', f'{path}/{part.name}']
            assert folder._files.exists(other)
    with ParquetFolder(str(tmp_path / 'rows::[1]'), OURS) as folder:
        do(folder, folder.plan(KEYS[:3]).parts)
    assert len(list((tmp_path / 'rows::[1]').glob('part-*.parquet'))) == 1


@pytest.mark.parametrize('content', [b'', b'PAR1 cut off', b'not Parquet at all'])
def test_a_damaged_file_is_named_with_what_to_do(place, content):
    with ParquetFolder(place, OURS) as folder:
        (part,) = folder.plan(KEYS[:3]).parts
        do(folder, [part])
    (Path(place) / part.name).write_bytes(content)
    with ParquetFolder(place, OURS) as folder:
        with pytest.raises(ManifestError, match=f'{part.name}: damaged, or not .*; move it away'):
            folder.plan(KEYS)
        (Path(place) / part.name).unlink()
        assert folder.plan(KEYS).left == len(KEYS)


def test_a_store_that_does_not_answer_is_said_with_the_folder(monkeypatch):
    def fail(*args, **options):
        raise RuntimeError('could not connect')

    monkeypatch.setattr(open_store('memory://gone').file_system, 'ls', fail)
    with pytest.raises(StoreError, match='gone/rows: RuntimeError: could not connect.*same command goes on'):
        ParquetFolder('memory://gone/rows', OURS).__enter__()


def test_parts_grow_with_the_number_of_images_within_bounds():
    assert [part_size(images) for images in (1, 8000, 50_000, 1_000_000)] == [FEWEST, FEWEST, 48, MOST]
    assert part_of(['a', 'b']).name != part_of(['ab']).name
