"""Where below the output an image's results lie, and what tells one image from another."""

import os

import pytest

from ms_segformer.preprocessors.image import ImageError
from ms_segformer.results import find_input

HERE = '/somewhere/here'


@pytest.mark.parametrize(
    'location, place',
    [
        ('a.jpg', 'a.jpg'),
        ('./photos/../photos/more/a.png', 'photos/more/a.png'),
        (f'{HERE}/b/a.jpg', 'b/a.jpg'),
        ('../a.jpg', 'somewhere/a.jpg'),
        ('/data/x.jpg', 'data/x.jpg'),
        (f'{HERE}side/a.jpg', 'somewhere/hereside/a.jpg'),
        ('file:///data/a%20b.jpg', 'data/a b.jpg'),
        ('//[', '['),
        ('http://example.com/x/a.jpg', 'example.com/x/a.jpg'),
        ('https://u:p@example.com:8080/x/a.jpg#f', 'example.com_8080/x/a.jpg'),
        ('http://example.com/../x/%2e%2e//./%2Fetc%2Fpasswd', 'example.com/x/_etc_passwd'),
        ('http://example.com', 'example.com/index'),
        ('http://[::1]/a.png', '[__1]/a.png'),
        ('http://example.com/a.jpg?size=2', 'example.com/a-add424e1.jpg'),
        ('http://example.com/a%00b%0a.jpg', 'example.com/a_b_.jpg'),
    ],
)
def test_results_mirror_the_images(monkeypatch, location, place):
    monkeypatch.setattr(os, 'getcwd', lambda: HERE)
    assert '/'.join(find_input(location).place) == place


def test_a_long_query_is_a_short_digest_and_tells_urls_apart():
    places = {find_input(f'http://example.com/a.jpg?{"x" * 3000}{i}').place for i in range(3)}
    assert len(places) == 3 and all(len(place[-1]) < 20 for place in places)


def test_dots_behind_a_link_are_where_the_system_finds_them(tmp_path, monkeypatch):
    (tmp_path / 'elsewhere' / 'deep').mkdir(parents=True)
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    os.symlink('../elsewhere/deep', 'link')
    for path, content in (('x.png', b'1'), ('../elsewhere/x.png', b'22')):
        with open(path, 'wb') as file:
            file.write(content)
    here, there = find_input('x.png'), find_input('link/../x.png')
    assert (here.version['size'], there.version['size']) == (1, 2)
    assert here.key != there.key == find_input('../elsewhere/x.png').key == str(tmp_path / 'elsewhere' / 'x.png')
    assert find_input('link/..').key == str(tmp_path / 'elsewhere')


def test_a_slash_behind_a_name_is_not_the_file(tmp_path):
    (tmp_path / 'x.png').write_bytes(b'1')
    slash = find_input(f'{tmp_path}/x.png/')
    assert slash.key != find_input(f'{tmp_path}/x.png').key and slash.version is None and slash.place[-1] == 'x.png'


def test_a_symbolic_link_is_an_image_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.jpg').write_bytes(b'12')
    (tmp_path / 'link.jpg').symlink_to('a.jpg')
    a, link = find_input('a.jpg'), find_input('link.jpg')
    assert a.key != link.key and link.place == ('link.jpg',) and a.file == link.file
    assert a.version == {'size': 2, 'mtime_ns': (tmp_path / 'a.jpg').stat().st_mtime_ns}


def test_a_link_that_leads_elsewhere_later_is_another_version(tmp_path):
    for name in 'ab':
        (tmp_path / name).write_bytes(name.encode())
        os.utime(tmp_path / name, (1, 1))
    versions = []
    for name in 'ab':
        (tmp_path / 'link.jpg').unlink(missing_ok=True)
        (tmp_path / 'link.jpg').symlink_to(name)
        versions.append(find_input(f'{tmp_path}/link.jpg').version)
    assert versions[0] != versions[1]


def test_what_is_no_file_has_no_version(tmp_path):
    os.mkfifo(tmp_path / 'pipe.jpg')
    assert find_input(str(tmp_path / 'nowhere.jpg')).refusal == f'{tmp_path}/nowhere.jpg: no such file'
    for name in ('pipe.jpg', 'x' * 300, 'a\0.jpg'):
        found = find_input(f'{tmp_path}/{name}')
        assert 'no such file' not in (found.refusal or '') and found.version is None and found.file is None


def test_a_data_url_is_known_by_its_digest():
    one, other = find_input('data:image/png;base64,AAAA'), find_input('data:image/png;base64,BBBB')
    assert one.key != other.key and one.key.startswith('sha256:') and len(one.name) < 100


def test_a_url_that_cannot_be_fetched_is_an_image_error():
    with pytest.raises(ImageError, match='127.0.0.1:9/a.jpg: cannot be fetched'):
        find_input('http://127.0.0.1:9/a.jpg').source().read()
