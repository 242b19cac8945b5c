"""What `/v1/segment` answers: the pipeline's result in each form, options, and refusals in words."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from ms_segformer import load

httpx = pytest.importorskip('httpx', reason='httpx is not installed')
PHOTO = Path(__file__).parents[2] / 'assets' / 'china.jpg'
JPEG = {'Content-Type': 'image/jpeg'}


@pytest.fixture(scope='module')
def client(server):
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture(scope='module')
def photo():
    """A small JPEG with several classes."""
    buffer = io.BytesIO()
    with Image.open(PHOTO) as image:
        image.resize((200, 150)).save(buffer, 'JPEG', quality=95)
    return buffer.getvalue()


@pytest.fixture(scope='module')
def segmenter():
    return load('demo', device='cpu')


@pytest.fixture(scope='module')
def expected(segmenter, photo):
    result = segmenter(photo)
    assert len(result['labels']) > 2
    return result


def ask(client, photo, accept='application/json', headers=JPEG, **options):
    return client.post('/v1/segment', content=photo, headers={**headers, 'Accept': accept}, params=options)


def test_the_segments_are_the_pipeline_s(client, photo, expected):
    answer = ask(client, photo)
    assert answer.status_code == 200 and answer.headers['content-type'] == 'application/json'
    content = answer.json()
    assert (content['model'], content['height'], content['width']) == ('demo', 150, 200)
    rows = expected.to_dicts()
    for found, row in zip(content['segments'], rows, strict=True):
        assert {key: found[key] for key in row} == row
        assert found['color'] == '#{:02x}{:02x}{:02x}'.format(*expected.palette[row['id']])
        assert found['mask']['size'] == [150, 200] and 'polygons' not in found
        np.testing.assert_array_equal(coco.decode(found['mask']), expected['seg_map'] == row['id'])
    assert answer.headers['server-timing'].startswith('decode;dur=') and answer.headers['vary'] == 'Accept'


def test_the_label_map_is_the_pipeline_s(client, photo, expected):
    answer = ask(client, photo, 'image/png')
    image = Image.open(io.BytesIO(answer.content))
    assert answer.headers['content-type'] == 'image/png' and image.mode == 'P'
    np.testing.assert_array_equal(np.asarray(image), expected['seg_map'])
    colors = np.array(image.getpalette()).reshape(-1, 3)
    ids = np.unique(expected['seg_map'])
    np.testing.assert_array_equal(colors[ids], expected.palette[ids])


@pytest.mark.parametrize('legend', [True, False])
def test_the_overlay_is_what_plot_draws(client, photo, expected, legend):
    answer = ask(client, photo, 'image/jpeg', legend=legend)
    drawn = expected.plot(photo, legend=legend)
    found = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert answer.headers['content-type'] == 'image/jpeg' and found.shape == drawn.shape
    assert np.abs(found.astype(int) - drawn).mean() < 3


def test_a_form_and_an_unnamed_kind_of_image_give_the_same(client, photo):
    expected = ask(client, photo).json()
    form = client.post('/v1/segment', files={'file': ('a.jpg', photo, 'image/jpeg')}, data={'a': 'b'})
    assert form.json() == expected
    assert ask(client, photo, headers={'Content-Type': 'application/octet-stream'}).json() == expected
    assert client.post('/v1/segment', content=photo).json() == expected


def test_classes_and_the_smallest_share_choose(client, photo, expected):
    rows = expected.to_dicts()
    largest, last = rows[0], rows[-1]
    content = ask(client, photo, classes=[last['label'], largest['label']]).json()
    assert [found['id'] for found in content['segments']] == [largest['id'], last['id']]
    share = rows[1]['share']
    content = ask(client, photo, min_share=share).json()
    assert [found['id'] for found in content['segments']] == [row['id'] for row in rows if row['share'] >= share]
    map_ = np.asarray(Image.open(io.BytesIO(ask(client, photo, 'image/png', classes=last['label']).content)))
    np.testing.assert_array_equal(map_, np.where(expected['seg_map'] == last['id'], last['id'], 255))


def test_masks_as_polygons_or_not_at_all(client, photo, expected):
    content = ask(client, photo, masks='polygons', simplify=0).json()
    for found in content['segments']:
        mask = coco.decode(coco.merge(coco.frPyObjects(found['polygons'], 150, 200)))
        assert 'mask' not in found and (mask == (expected['seg_map'] == found['id'])).mean() > 0.99
    assert all(
        'mask' not in found and 'polygons' not in found for found in ask(client, photo, masks='none').json()['segments']
    )


def test_windows_at_full_size_give_what_the_pipeline_gives(client, photo, segmenter):
    answer = ask(client, photo, 'image/png', mode='slide', full_size=True)
    expected = segmenter(photo, mode='slide', resize=False)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected['seg_map'])


def test_an_image_at_full_size_in_one_piece_is_bounded(client):
    buffer = io.BytesIO()
    Image.new('RGB', (2500, 2000)).save(buffer, 'PNG')
    answer = ask(client, buffer.getvalue(), full_size=True, mode='whole')
    problem = answer.json()
    assert answer.status_code == 422 and problem['type'] == 'urn:ms-segformer:too-many-pixels'
    assert '2500×2000' in problem['detail'] and 'mode=slide' in problem['detail'] and problem['limit'] == 2**22


@pytest.mark.parametrize(
    'accept, media_type',
    [
        (None, 'application/json'),
        ('', 'application/json'),
        ('*/*', 'application/json'),
        ('text/html,image/avif,image/webp,image/apng,image/*,*/*;q=0.8', 'image/png'),
        ('image/*', 'image/png'),
        ('image/png;q=0.1, image/jpeg', 'image/jpeg'),
        ('image/*, image/png;q=0', 'image/jpeg'),
        ('IMAGE/JPEG', 'image/jpeg'),
        ('application/json;q=0.5,*/*;q=0.1', 'application/json'),
    ],
)
def test_accept_chooses(client, photo, accept, media_type):
    request = client.build_request('POST', '/v1/segment', content=photo, headers=JPEG)
    del request.headers['accept']
    if accept is not None:
        request.headers['accept'] = accept
    assert client.send(request).headers['content-type'] == media_type


def png(width, height):
    """A PNG of a few bytes that claims a size."""
    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    chunks = [(b'IHDR', head), (b'IDAT', zlib.compress(b'\0' * 1000)), (b'IEND', b'')]
    made = [
        struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b'\x89PNG\r\n\x1a\n' + b''.join(made)


@pytest.mark.parametrize(
    'content, headers, params, status, kind, words',
    [
        (b'', JPEG, {}, 422, 'not-an-image', ['0 bytes']),
        (b'garbage', JPEG, {}, 422, 'not-an-image', ['7 bytes', 'JPEG, PNG']),
        (png(20_000, 20_000), JPEG, {}, 422, 'too-many-pixels', ['20000×20000', '33,554,432']),
        (png(100, 0), JPEG, {}, 422, 'not-an-image', []),
        (png(1000, 1000), JPEG, {}, 422, 'not-an-image', ['truncated']),
        (b'x', {'Content-Type': 'text/plain'}, {}, 415, 'media-type', ['text/plain', 'image/jpeg']),
        (b'x', {**JPEG, 'Content-Encoding': 'gzip'}, {}, 415, 'media-type', ['gzip', 'none']),
        (b'x', {'Content-Type': 'multipart/form-data'}, {}, 400, 'broken-body', ['multipart/form-data']),
        (b'x', {'Content-Type': 'multipart/form-data; boundary=a'}, {}, 400, 'broken-body', ['form']),
        (b'--a--\r\n', {'Content-Type': 'multipart/form-data; boundary=a'}, {}, 422, 'not-an-image', ['no file']),
        (b'x', {**JPEG, 'Accept': 'text/html'}, {}, 406, 'not-acceptable', ['text/html', 'image/png']),
        (b'x', JPEG, {'model': 'b7'}, 422, 'invalid-option', ['b7', 'demo']),
        (b'x', JPEG, {'mode': 'all'}, 422, 'invalid-option', ['mode', "'all'", 'slide']),
        (b'x', JPEG, {'min_share': '2'}, 422, 'invalid-option', ['min_share', "'2'"]),
        (b'x', JPEG, {'min_share': 'nan'}, 422, 'invalid-option', ['min_share']),
        (b'x', JPEG, {'full_size': 'perhaps'}, 422, 'invalid-option', ['full_size', 'perhaps']),
        (b'x', JPEG, {'clases': 'tree'}, 422, 'invalid-option', ['clases', 'no such option']),
        (b'x', JPEG, {'classes': ['tree', 'trees']}, 422, 'invalid-option', ['trees', "did you mean 'tree'"]),
        (b'x', JPEG, {'masks': 'png'}, 422, 'invalid-option', ['masks', 'rle']),
    ],
)
def test_refusals_say_what_was_given_and_what_is_accepted(client, content, headers, params, status, kind, words):
    answer = client.post('/v1/segment', content=content, headers=headers, params=params)
    problem = answer.json()
    assert answer.status_code == problem['status'] == status, problem
    assert answer.headers['content-type'] == 'application/problem+json'
    assert problem['type'] == f'urn:ms-segformer:{kind}' and problem['title']
    assert all(word in problem['detail'] for word in words), problem['detail']


@pytest.mark.parametrize('options', [{'min_share': 0.1}, {'classes': ['class 1']}])
def test_a_model_of_256_classes_has_no_id_for_what_is_left_out(options):
    from ms_segformer.serving.answers import SegmentOptions
    from ms_segformer.serving.app import _check_classes
    from ms_segformer.serving.problems import Problem

    names = tuple(f'class {number}' for number in range(256))
    _check_classes(SegmentOptions(**options), names[:255])
    with pytest.raises(Problem, match='the model has 256 classes'):
        _check_classes(SegmentOptions(**options), names)
    _check_classes(SegmentOptions(), names)


@pytest.mark.parametrize(
    'method, path, status', [('GET', '/v1/segment', 405), ('GET', '/nothing', 404), ('PUT', '/', 405)]
)
def test_wrong_paths_and_methods_are_problems_too(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status == answer.json()['status']
    assert answer.headers['content-type'] == 'application/problem+json'


@pytest.mark.parametrize('declared', [True, False])
def test_a_body_that_is_too_large_is_refused_and_the_client_reads_why(client, declared):
    def parts():
        for _ in range(40):
            yield b'x' * 2**20

    answer = client.post('/v1/segment', content=b'x' * 40 * 2**20 if declared else parts(), headers=JPEG)
    assert answer.status_code == 413 and '33,554,432' in answer.json()['detail']
    assert answer.headers['connection'] == 'close'


def test_the_models_are_described(client, segmenter):
    (model,) = client.get('/v1/models').json()['models']
    assert (model['name'], model['default'], model['precision'], model['variant']) == ('demo', True, 'float32', 'b0')
    assert [entry['label'] for entry in model['classes']] == list(segmenter.classes)
    assert all(entry['label_zh'] and entry['color'].startswith('#') for entry in model['classes'])


def test_health_readiness_and_metrics(client, photo):
    assert client.get('/healthz').json() == {'status': 'ok'}
    assert client.get('/readyz').json() == {'status': 'ready'}

    def counted(name):
        lines = client.get('/metrics').text.splitlines()
        return sum(float(line.rpartition(' ')[2]) for line in lines if line.startswith(name))

    good = 'segformer_requests_total{model="demo",status="200"}'
    phase = 'segformer_phase_seconds_count{phase="network"}'
    before = counted(good), counted(phase), counted('segformer_requests_total{model="",status="415"}')
    ask(client, photo)
    client.post('/v1/segment', content=b'x', headers={'Content-Type': 'text/plain'})
    assert (counted(good), counted(phase)) == (before[0] + 1, before[1] + 1)
    assert counted('segformer_requests_total{model="demo",status="415"}') >= 1
    assert counted('segformer_places_in_use') == 0


def test_the_pages_load_nothing_from_elsewhere(client):
    for path in ('/', '/docs'):
        answer = client.get(path)
        assert answer.status_code == 200 and 'http://' not in answer.text.replace('http://www.w3.org', '')
        assert 'https://' not in answer.text
        assert "default-src 'none'" in answer.headers['content-security-policy']
    assert client.get('/docs/files/swagger-ui-bundle.js').status_code == 200


def test_only_this_machine_and_this_site_are_served(client, photo):
    for host in ('evil.example', '10.0.0.1:8000', 'localhost.evil.example', '['):
        answer = client.get('/v1/models', headers={'Host': host})
        assert answer.status_code == 421 and 'localhost' in answer.json()['detail']
    for host in ('localhost', '127.0.0.1:1', '[::1]:8000'):
        assert client.get('/healthz', headers={'Host': host}).status_code == 200
    for site in ('cross-site', 'same-site'):
        answer = client.post('/v1/segment', content=photo, headers={**JPEG, 'Sec-Fetch-Site': site})
        assert answer.status_code == 403
    for origin, status in (('https://evil.example', 403), ('null', 403), (str(client.base_url), 200)):
        answer = client.post('/v1/segment', content=photo, headers={**JPEG, 'Origin': origin})
        assert answer.status_code == status
        assert not [name for name in answer.headers if name.startswith('access-control')]
    preflight = client.options(
        '/v1/segment', headers={'Origin': 'https://e.example', 'Access-Control-Request-Method': 'POST'}
    )
    assert preflight.status_code == 403
    assert client.get('/v1/models/').status_code == 404  # no redirection, which would repeat the Host of the request


@pytest.mark.parametrize(
    'path', ['/page/../app.py', '/page/%2e%2e/app.py', '/page//etc/passwd', '/docs/files/../core.py']
)
def test_no_file_besides_the_page_is_reachable(server, path):
    import http.client
    from urllib.parse import urlsplit

    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    connection.request('GET', path)  # httpx would tidy the path
    assert connection.getresponse().status == 404
    connection.close()


def test_a_form_that_names_a_codec_is_read_at_once(client, photo):
    """Some codecs take minutes for a field."""
    parts = [b'--b', b'Content-Disposition: form-data; name="x"', b'', b'xn--' + b'b' * 10**6]
    parts += [b'--b', b'Content-Disposition: form-data; name="file"; filename="a"', b'', photo, b'--b--', b'']
    headers = {'Content-Type': 'multipart/form-data; boundary=b; charset=idna'}
    answer = client.post('/v1/segment', content=b'\r\n'.join(parts), headers=headers, timeout=20)
    assert answer.status_code == 400 or answer.json() == ask(client, photo).json()


@pytest.mark.parametrize('size', [(1, 70_000), (70_000, 1)])
def test_a_picture_that_jpeg_cannot_hold_is_refused_before_it_is_drawn(client, size):
    buffer = io.BytesIO()
    Image.new('L', size).save(buffer, 'PNG')
    answer = ask(client, buffer.getvalue(), 'image/jpeg')
    assert answer.status_code == 406 and '65,500' in answer.json()['detail']
    assert ask(client, buffer.getvalue(), 'image/png').status_code == 200


def test_head_is_get_without_the_body(client):
    for path in ('/', '/healthz', '/page/page.js'):
        answer = client.head(path)
        assert answer.status_code == 200 and answer.content == b'' and int(answer.headers['content-length']) > 0


def test_an_offer_to_change_the_protocol_is_passed_over(client, photo):
    headers = {**JPEG, 'Connection': 'Upgrade, HTTP2-Settings', 'Upgrade': 'h2c', 'HTTP2-Settings': 'AAMAAABkAAQAAP__'}
    assert client.post('/v1/segment', content=photo, headers=headers).json() == ask(client, photo).json()
