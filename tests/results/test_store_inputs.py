"""Images in stores: who they are, how they are found, and when they are read."""

import itertools

import pytest

from ms_segformer.download import MAX_BYTES
from ms_segformer.errors import ArgumentError
from ms_segformer.preprocessors.image import ImageError
from ms_segformer.results import StoreManifest, find_in_stores, inputs, store_inputs
from ms_segformer.results.manifest import record_of
from ms_segformer.stores import Store, open_store

NUMBER = itertools.count()


@pytest.fixture
def folder():
    """The URL of a folder in the memory of this process, with four images and two other objects."""
    url = f'memory://photos/{next(NUMBER)}'
    for name in ('a.jpg', 'b.PNG', 'deep/er/c.webp', 'deep/d.jpg', 'notes.txt', '.hidden/e.jpg'):
        put(f'{url}/{name}')
    return url


def put(url, content=b'image'):
    open_store(url).put(url, content)


def names(folder, *locations):
    found = find_in_stores(locations)
    return [each.key[len(folder) + 1 :] for location in locations for each in found.inputs[location]], found.problems


def test_a_folder_gives_the_images_below_it(folder):
    everything = ['a.jpg', 'b.PNG', 'deep/d.jpg', 'deep/er/c.webp']
    assert names(folder, folder) == names(folder, f'{folder}/') == (everything, [])
    assert names(folder, f'{folder}/deep') == (everything[2:], [])


@pytest.mark.parametrize(
    'pattern, found',
    [
        ('*.jpg', ['a.jpg']),
        ('**/*.jpg', ['.hidden/e.jpg', 'a.jpg', 'deep/d.jpg']),
        ('deep/?.jpg', ['deep/d.jpg']),
        ('[ab].*', ['a.jpg', 'b.PNG']),
        ('*/er/*', ['deep/er/c.webp']),
    ],
)
def test_a_pattern_gives_what_it_matches(folder, pattern, found):
    assert names(folder, f'{folder}/{pattern}') == (found, [])


def test_a_name_that_looks_like_a_pattern_is_a_name_first(folder):
    put(f'{folder}/shot[1].jpg')
    assert names(folder, f'{folder}/shot[1].jpg') == (['shot[1].jpg'], [])


def test_what_is_not_there_is_said(folder):
    found = find_in_stores([f'{folder}/x.jpg', f'{folder}/x*.jpg', f'{folder}/x/', 'memory://b*/a.jpg'])
    (missing,) = found.inputs[f'{folder}/x.jpg']
    assert missing.refusal == f'{folder}/x.jpg: there is no such object, folder or bucket'
    assert [problem.partition(': ')[2] for problem in found.problems] == [
        'nothing matches this pattern',
        'no images in this folder, or no such bucket',
        'the name of a bucket is no pattern; name each bucket',
    ]


def test_other_locations_are_passed_over():
    found = find_in_stores(
        ['a.jpg', '/b.jpg', 'http://host/c.jpg', 'data:image/png;base64,', 'nothing://x', 'file:///y']
    )
    assert found.inputs == {} and found.problems == []


def test_of_many_objects_named_in_one_folder_one_listing_is_asked_for(folder, monkeypatch):
    for number in range(60):
        put(f'{folder}/many/{number}.jpg')
    asked = []
    for method in ('info', 'below'):
        original = getattr(Store, method)

        def note(self, *args, _method=method, _original=original):
            asked.append(_method)
            return _original(self, *args)

        monkeypatch.setattr(Store, method, note)
    named = [f'{folder}/many/{number}.jpg' for number in range(61)]
    found, problems = names(folder, *named)
    assert found == [f'many/{number}.jpg' for number in range(61)] and problems == [] and asked == ['below']
    refusals = [find_in_stores(named).inputs[url][0].refusal for url in named[59:]]
    assert refusals == [None, f'{folder}/many/60.jpg: there is no such object']
    asked.clear()
    assert len(names(folder, *named[: store_inputs.NAMED - 1])[0]) == store_inputs.NAMED - 1
    assert asked == ['info'] * (store_inputs.NAMED - 1)


def test_results_of_earlier_runs_are_no_images(folder):
    with StoreManifest(folder) as manifest:
        content = b'labels'
        entry = {
            'input': {'path': '/a.jpg'},
            'outputs': {'deep/a_labels.png': record_of(content), 'deep/b_labels.png': record_of(content)},
            'model': {'name': 'b0', 'sha256': 'f'},
            'options': {},
            'error': None,
        }
        manifest.append({**entry, 'writing': True, 'before': {}})
        manifest.put(dict.fromkeys(entry['outputs'], content))
        manifest.append(entry)
        manifest.compact([])
    put(f'{folder}/deep/b_labels.png', b'corrected by hand')
    for location in (folder, f'{folder}/deep', f'{folder}/**/*.*', f'{folder}/deep/*'):
        found = find_in_stores([location])
        keys = [each.key[len(folder) + 1 :] for each in found.inputs[location]]
        assert found.results == 1 and 'deep/a_labels.png' not in keys and 'deep/b_labels.png' in keys


def test_a_password_in_a_url_is_refused_and_not_repeated():
    for url in ('s3://AKIA:hush@bucket/a.jpg', 's3://hush@bucket/a.jpg', 'SFTP://me:hush@host/a.jpg'):
        with pytest.raises(ArgumentError, match='a name or password stands before the @') as raised:
            find_in_stores([url])
        assert 'hush' not in str(raised.value) and 'AKIA' not in str(raised.value)


def test_the_place_of_an_object_mirrors_its_name():
    def place(url):
        return inputs.Input(url, 'store', url).place

    assert place('s3://bucket/shots/a b%20#1?.jpg') == ('bucket', 'shots', 'a b%20#1_.jpg')
    assert place('s3://bucket//../x:y.jpg') == ('bucket', 'x_y.jpg')


def test_an_object_is_read_once_when_it_is_asked_for(folder, monkeypatch):
    (image,) = find_in_stores([f'{folder}/a.jpg']).inputs[f'{folder}/a.jpg']
    put(f'{folder}/a.jpg', b'changed since')
    source = image.source()
    assert source.read() == b'changed since'
    assert source.version == {**image.version, **record_of(b'changed since')}
    assert 'last_modified' in image.version and image.version['size'] == 5
    again = image.source(source.version)
    with pytest.raises(ImageError):
        again.read()
    assert again.unchanged
    monkeypatch.setattr(Store, 'read', lambda self, url, most=MAX_BYTES: pytest.fail('reads'))
    put(f'{folder}/empty.jpg', b'')
    (empty,) = find_in_stores([f'{folder}/empty.jpg']).inputs[f'{folder}/empty.jpg']
    assert empty.source().read() == b''


def test_a_listing_and_a_look_at_one_object_give_one_version(folder):
    by_name = find_in_stores([f'{folder}/a.jpg']).inputs[f'{folder}/a.jpg'][0]
    assert by_name in find_in_stores([folder]).inputs[folder]


def test_an_object_that_has_gone_or_is_too_large_is_said(folder, monkeypatch):
    (image,) = find_in_stores([f'{folder}/a.jpg']).inputs[f'{folder}/a.jpg']
    open_store(folder).remove([f'{folder}/a.jpg'])
    with pytest.raises(ImageError, match='a.jpg: cannot be fetched .there is no such object, or no such bucket'):
        image.source().read()
    with pytest.raises(Exception, match='larger than 0 MiB'):
        open_store(folder).read(f'{folder}/b.PNG', 4)


def test_a_video_is_refused(folder):
    put(f'{folder}/clip.mp4')
    (video,) = find_in_stores([f'{folder}/clip.mp4']).inputs[f'{folder}/clip.mp4']
    assert video.refusal == f'{folder}/clip.mp4: a video is read from a file; download it first'
