"""The page of the server, in Chromium: what a person sees, hears and downloads."""

import io
import json
import re
import shutil
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

playwright = pytest.importorskip('playwright.sync_api', reason='needs Playwright: pip install playwright')
expect = playwright.expect
expect.set_options(timeout=20_000)  # of the machine, which may be busy, not of the page

PAGE = Path(__file__).parents[2] / 'ms_segformer' / 'serving' / 'page'
EXAMPLE = PAGE / 'example.jpg'
# Chromium itself says so in the console when a test lets a request fail.
FAILED = re.compile('Failed to load resource')
DONE = re.compile(r'^Done: \d+ classes\.$')


class Visit:
    """A window of its own, in which the page is open; records what the page does behind the scenes."""

    def __init__(self, browser, url, **options):
        self.origin = url.rstrip('/')
        self.context = browser.new_context(**{'locale': 'en-US', 'accept_downloads': True, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(20000)
        self.requests, self.errors = [], []
        self.page.on('request', lambda request: self.requests.append(request.url))
        self.page.on('pageerror', lambda error: self.errors.append(str(error)))
        self.page.on('console', lambda message: message.type == 'error' and self.errors.append(message.text))
        self.page.add_init_script(
            'addEventListener("securitypolicyviolation", (event) => console.error("policy: " + event.blockedURI))'
        )

    def open(self):
        self.page.goto(self.origin + '/')
        return self

    def close(self):
        """Closes it, having checked that the page asked nobody else and that nothing went wrong unseen."""
        self.context.close()
        assert [url for url in self.requests if not url.startswith((self.origin + '/', 'blob:', 'data:'))] == []
        assert [error for error in self.errors if not FAILED.search(error)] == []

    def show(self, file=EXAMPLE):
        """Gives the page a file and waits for the classes."""
        self.page.set_input_files('#file', file)
        expect(self.page.locator('#what')).to_have_text(DONE)
        return self

    def pixel(self, x, y):
        """The color of the canvas there."""
        script = '([x, y]) => [...document.getElementById("canvas").getContext("2d").getImageData(x, y, 1, 1).data]'
        return tuple(self.page.evaluate(script, [x, y])[:3])

    def opaque(self):
        self.page.fill('#opacity', '100')
        expect(self.page.locator('#opacity-value')).to_have_text('100%')
        frame = 'new Promise((resolve) => requestAnimationFrame(resolve))'
        self.page.evaluate(f'async () => {{ await {frame}; await {frame}; }}')

    def hover(self, x, y, width):
        """Moves the pointer to a pixel of the picture, which has this width."""
        box = self.page.locator('#canvas').bounding_box()
        scale = box['width'] / width
        self.page.mouse.move(box['x'] + (x + 0.5) * scale, box['y'] + (y + 0.5) * scale)

    def download(self, button):
        with self.page.expect_download() as waiting:
            self.page.click(button)
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


@pytest.fixture
def visit(chromium, server):
    """Opens the page; what `Visit.close` checks is checked after each test."""
    opened = []

    def open_page(**options):
        opened.append(Visit(chromium, server.url, **options))
        return opened[-1]

    yield open_page
    for one in opened:
        one.close()


@pytest.fixture(scope='module')
def answer(server):
    """What the server says of the example."""
    request = urllib.request.Request(
        server.url.rstrip('/') + '/v1/segment',
        EXAMPLE.read_bytes(),
        {'Content-Type': 'image/jpeg', 'Accept': 'application/json'},
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def middle(segment):
    """(x, y) of the pixel of a segment that is farthest from its edge."""
    mask = np.pad(coco.decode(segment['mask']), 1)
    y, x = np.unravel_index(cv2.distanceTransform(mask, cv2.DIST_L2, 3).argmax(), mask.shape)
    return int(x) - 1, int(y) - 1


def rgb(color):
    return tuple(bytes.fromhex(color[1:]))


def photograph():
    return np.asarray(Image.open(EXAMPLE).convert('RGB'))


def test_the_classes_are_drawn_in_the_colors_of_the_legend(visit, answer):
    here = visit().open().show()
    assert here.page.locator('#canvas').evaluate('(canvas) => [canvas.width, canvas.height]') == [
        answer['width'],
        answer['height'],
    ]
    here.opaque()
    for segment in answer['segments'][:3]:
        x, y = middle(segment)
        assert here.pixel(x, y) == rgb(segment['color'])
        assert here.pixel(x, y) != tuple(photograph()[y, x])
        swatch = here.page.locator(f'#rows tr[data-id="{segment["id"]}"] .swatch')
        red, green, blue = rgb(segment['color'])
        assert swatch.evaluate('(swatch) => swatch.style.backgroundColor') == f'rgb({red}, {green}, {blue})'


def test_the_slider_mixes_picture_and_colors(visit, answer):
    here = visit().open().show()
    segment = answer['segments'][0]
    x, y = middle(segment)
    mixed = 0.45 * photograph()[y, x] + 0.55 * np.array(rgb(segment['color']))
    assert np.abs(np.array(here.pixel(x, y)) - mixed).max() <= 4


def test_the_table_has_every_class_with_its_share_and_score(visit, answer):
    here = visit().open().show()
    rows = here.page.get_by_role('table', name='Classes').locator('tbody tr')
    assert rows.count() == len(answer['segments'])
    for row, segment in zip(rows.all(), answer['segments'], strict=True):
        name, share, score = row.locator('th, td').all_inner_texts()
        assert name.strip() == segment['label']
        assert share == '< 0.1%' or abs(float(share.rstrip('%')) - 100 * segment['share']) <= 0.0501
        assert abs(float(score) - segment['score']) <= 0.00501


def test_a_class_is_switched_off_and_on(visit, answer):
    here = visit().open().show()
    here.opaque()
    segment, other = answer['segments'][:2]
    x, y = middle(segment)
    box = here.page.get_by_role('checkbox', name=segment['label'], exact=True)
    box.uncheck()
    assert np.abs(np.array(here.pixel(x, y), int) - photograph()[y, x]).max() <= 4
    assert here.pixel(*middle(other)) == rgb(other['color'])
    box.check()
    assert here.pixel(x, y) == rgb(segment['color'])


def test_all_classes_are_switched_off_and_on(visit, answer):
    here = visit().open().show()
    here.opaque()
    segment = answer['segments'][0]
    here.page.click('#none')
    assert here.page.locator('#rows input:checked').count() == 0
    assert here.pixel(*middle(segment)) != rgb(segment['color'])
    here.page.click('#all')
    assert here.page.locator('#rows input:checked').count() == len(answer['segments'])
    assert here.pixel(*middle(segment)) == rgb(segment['color'])


def test_the_class_under_the_pointer_is_named(visit, answer):
    here = visit().open().show()
    for segment in answer['segments'][:3]:
        x, y = middle(segment)
        here.hover(x, y, answer['width'])
        expect(here.page.locator('#here-text')).to_have_text(f'{segment["label"]} (x {x}, y {y})')
        expect(here.page.locator('#rows tr.here')).to_have_attribute('data-id', str(segment['id']))
    here.page.mouse.move(1, 1)
    expect(here.page.locator('#here-text')).to_contain_text('Point at the picture')


def test_the_arrow_keys_read_out_the_class(visit, answer):
    here = visit().open().show()
    labels = np.full((answer['height'], answer['width']), 'no class', object)
    for segment in answer['segments']:
        labels[coco.decode(segment['mask']) == 1] = segment['label']
    here.page.focus('#canvas')
    x, y = answer['width'] // 2, answer['height'] // 2
    step = round(max(answer['width'], answer['height']) / 40)
    moves = {'ArrowLeft': (-step, 0), 'ArrowUp': (0, -step), 'Shift+ArrowRight': (1, 0), 'Shift+ArrowDown': (0, 1)}
    for key, (right, down) in [('ArrowLeft', (0, 0)), *moves.items()]:  # the first key starts in the middle
        here.page.keyboard.press(key)
        x, y = x + right, y + down
        expect(here.page.get_by_role('status')).to_have_text(f'{labels[y, x]} (x {x}, y {y})')
    for _ in range(50):
        here.page.keyboard.press('ArrowUp')
    expect(here.page.get_by_role('status')).to_contain_text('y 0)')
    expect(here.page.locator('#cross')).to_be_visible()
    here.page.keyboard.press('Tab')
    expect(here.page.locator('#cross')).to_be_hidden()


def test_the_label_map_is_downloaded(visit, answer):
    name, content = visit().open().show().download('#save-labels')
    assert name == 'example_labels.png'
    picture = Image.open(io.BytesIO(content))
    assert picture.mode == 'P' and picture.size == (answer['width'], answer['height'])
    for segment in answer['segments']:
        assert np.array_equal(np.asarray(picture) == segment['id'], coco.decode(segment['mask']) == 1)


def test_the_overlay_is_downloaded_as_it_is_seen(visit, answer):
    here = visit().open().show()
    here.opaque()
    off, on = answer['segments'][:2]
    here.page.get_by_role('checkbox', name=off['label'], exact=True).uncheck()
    name, content = here.download('#save-overlay')
    assert name == 'example_overlay.jpg'
    picture = np.asarray(Image.open(io.BytesIO(content)), int)
    assert picture.shape == (answer['height'], answer['width'], 3)
    x, y = middle(on)
    assert np.abs(picture[y, x] - rgb(on['color'])).max() <= 8
    x, y = middle(off)
    assert np.abs(picture[y, x] - photograph()[y, x]).max() <= 16


def test_the_json_is_downloaded_as_the_server_sent_it(visit, answer):
    name, content = visit().open().show().download('#save-json')
    assert name == 'example.json'
    assert json.loads(content)['segments'] == answer['segments']


def test_the_example_is_shown_with_its_photographer(visit):
    here = visit().open()
    here.page.click('#example')
    expect(here.page.locator('#what')).to_have_text(DONE)
    expect(here.page.get_by_text('Photograph by danielbuechele, CC BY 2.0')).to_be_visible()
    here.show()
    expect(here.page.get_by_text('Photograph by danielbuechele, CC BY 2.0')).to_be_hidden()


HAND_OVER = """async (how) => {
    const picture = await (await fetch('page/example.jpg')).blob();
    const data = new DataTransfer();
    data.items.add(new File([picture], 'street.jpg', { type: 'image/jpeg' }));
    if (how === 'paste') document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }));
    else document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.mark.parametrize('how', ['paste', 'drop'])
def test_a_picture_is_pasted_or_dropped(visit, how):
    here = visit().open()
    here.page.evaluate(HAND_OVER, how)
    expect(here.page.locator('#what')).to_have_text(DONE)
    assert here.download('#save-json')[0] == 'street.json'


def test_a_picture_is_taken_with_the_camera(visit):
    here = visit().open()
    here.page.get_by_role('button', name='Take a picture').click()
    here.page.get_by_role('dialog', name='Camera').get_by_role('button', name='Take a picture').click()
    expect(here.page.locator('#what')).to_have_text(re.compile('Done|none of its classes'))
    expect(here.page.locator('#camera')).to_be_hidden()
    assert here.page.locator('#canvas').evaluate('(canvas) => canvas.width') >= 320


def test_a_photograph_taken_sideways_is_shown_upright(visit, answer, tmp_path):
    """EXIF orientation 6: what is stored lies on its left side."""
    sideways = Image.open(EXAMPLE).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(tmp_path / 'sideways.jpg', exif=exif, quality=95)
    here = visit().open().show(tmp_path / 'sideways.jpg')
    size = here.page.locator('#canvas').evaluate('(canvas) => [canvas.width, canvas.height]')
    assert size == [answer['width'], answer['height']]
    expect(here.page.locator('#plain')).to_be_hidden()
    here.page.click('#none')
    difference = np.array([here.pixel(x, y) for x in (50, 300, 600) for y in (20, 200, 400)], int)
    difference -= np.array([photograph()[y, x] for x in (50, 300, 600) for y in (20, 200, 400)])
    assert np.median(np.abs(difference)) <= 8


def test_what_the_browser_cannot_show_is_drawn_on_a_plain_ground(visit, answer, tmp_path):
    Image.open(EXAMPLE).save(tmp_path / 'scan.tif')
    here = visit().open().show(tmp_path / 'scan.tif')
    expect(here.page.get_by_text('This browser cannot show the picture')).to_be_visible()
    segment = answer['segments'][0]
    assert here.pixel(*middle(segment)) == rgb(segment['color'])
    here.page.click('#none')
    assert here.pixel(*middle(segment)) == rgb('#eef0f2')
    name, content = here.download('#save-overlay')
    assert name == 'scan_overlay.jpg' and Image.open(io.BytesIO(content)).size == (answer['width'], answer['height'])


def test_a_file_that_is_no_picture_is_refused_in_words(visit, tmp_path):
    (tmp_path / 'notes.jpg').write_bytes(b'These are notes.\n' * 20)
    here = visit().open().show()
    here.page.set_input_files('#file', tmp_path / 'notes.jpg')
    alert = here.page.get_by_role('alert')
    expect(alert).to_contain_text('The file cannot be read as a picture.')
    expect(here.page.locator('#problem-detail')).not_to_be_empty()
    expect(here.page.locator('#result')).to_be_hidden()
    expect(here.page.get_by_role('button', name='Try again')).to_be_hidden()
    here.show()
    expect(here.page.locator('#problem')).to_be_hidden()


def test_a_file_of_another_kind_is_not_even_sent(visit, tmp_path):
    (tmp_path / 'notes.txt').write_text('These are notes.')
    here = visit().open()
    here.page.set_input_files('#file', tmp_path / 'notes.txt')
    expect(here.page.get_by_role('alert')).to_contain_text('notes.txt is text/plain, not a picture.')
    assert not any('segment' in url for url in here.requests)


def refusal(kind, status, **headers):
    body = {'type': f'urn:ms-segformer:{kind}', 'title': kind, 'status': status, 'detail': 'Words of the server.'}
    return {
        'status': status,
        'headers': {'Content-Type': 'application/problem+json', **headers},
        'body': json.dumps(body),
    }


def test_a_busy_server_is_asked_again(visit):
    here = visit()
    calls = []

    def busy_once(route):
        calls.append(route.request.url)
        if len(calls) == 1:
            route.fulfill(**refusal('busy', 503, **{'Retry-After': '1'}))
        else:
            route.continue_()

    here.page.route('**/v1/segment*', busy_once)
    here.open().page.set_input_files('#file', EXAMPLE)
    expect(here.page.get_by_role('status')).to_contain_text('The server is busy')
    expect(here.page.locator('#how-far')).to_have_text('in 1 s')
    expect(here.page.locator('#what')).to_have_text(DONE)
    assert len(calls) == 2


def test_a_server_that_starts_is_waited_for(visit):
    here = visit()
    answers = iter([refusal('starting', 503, **{'Retry-After': '1'})])

    def starting_once(route):
        refused = next(answers, None)
        if refused:
            route.fulfill(**refused)
        else:
            route.continue_()

    here.page.route('**/v1/models', starting_once)
    here.open()
    expect(here.page.locator('#what')).to_contain_text('still loading its models')
    expect(here.page.locator('#doing')).to_be_hidden()
    here.show()


@pytest.mark.parametrize(
    ('kind', 'status', 'title'),
    [('internal', 500, '服务器出错。'), ('timeout', 503, '处理这张图像的时间过长。'), ('odd', 418, 'odd')],
    ids=['internal', 'timeout', 'unknown'],
)
def test_other_errors_are_said_and_can_be_tried_again(visit, kind, status, title):
    here = visit(locale='zh-CN')
    here.page.route('**/v1/segment*', lambda route: route.fulfill(**refusal(kind, status)), times=1)
    here.open().page.set_input_files('#file', EXAMPLE)
    expect(here.page.locator('#problem-title')).to_have_text(title)
    expect(here.page.locator('#problem-detail')).to_have_text('Words of the server.')
    expect(here.page.locator('#problem-detail')).to_have_attribute('lang', 'en')
    here.page.get_by_role('button', name='重试').click()
    expect(here.page.locator('#what')).to_contain_text('完成')


def test_a_server_that_is_gone_is_said(visit):
    here = visit().open()
    here.page.route('**/v1/segment*', lambda route: route.abort('connectionrefused'), times=1)
    here.page.set_input_files('#file', EXAMPLE)
    expect(here.page.get_by_role('alert')).to_contain_text('The server cannot be reached.')
    here.page.get_by_role('button', name='Try again').click()
    expect(here.page.locator('#what')).to_have_text(DONE)


@pytest.mark.parametrize('damage', ['{"height": 4', '{"height": 4, "width": 4, "segments": [{"mask": {}}]}'])
def test_a_damaged_answer_is_said(visit, damage):
    here = visit()
    here.page.route('**/v1/segment*', lambda route: route.fulfill(body=damage, content_type='application/json'))
    here.open().page.set_input_files('#file', EXAMPLE)
    expect(here.page.get_by_role('alert')).to_contain_text('The answer of the server cannot be read.')


def test_waiting_is_canceled(visit):
    here = visit()
    here.page.route('**/v1/segment*', lambda route: None, times=1)  # never answered
    here.open().page.set_input_files('#file', EXAMPLE)
    here.page.get_by_role('button', name='Cancel').click()
    expect(here.page.get_by_role('alert')).to_contain_text('Canceled.')
    here.page.get_by_role('button', name='Try again').click()
    expect(here.page.locator('#what')).to_have_text(DONE)


def test_a_new_picture_takes_the_place_of_one_under_way(visit, tmp_path):
    here = visit()
    here.page.route('**/v1/segment*', lambda route: None, times=1)
    here.open()
    with here.page.expect_request('**/v1/segment*'):
        here.page.set_input_files('#file', EXAMPLE)
    shutil.copy(EXAMPLE, tmp_path / 'second.jpg')
    here.show(tmp_path / 'second.jpg')
    assert here.download('#save-json')[0] == 'second.json'
    expect(here.page.locator('#problem')).to_be_hidden()


def test_the_page_speaks_chinese(visit, server, answer):
    here = visit(locale='zh-CN').open()
    assert here.page.title() == 'ms-segformer：图像中每个像素的类别'
    assert here.page.locator('html').get_attribute('lang') == 'zh-CN'
    expect(here.page.get_by_role('button', name='选择文件')).to_be_visible()
    here.page.set_input_files('#file', EXAMPLE)
    expect(here.page.locator('#what')).to_have_text(f'完成：{len(answer["segments"])} 个类别。')
    with urllib.request.urlopen(server.url.rstrip('/') + '/v1/models') as reply:
        classes = next(model for model in json.load(reply)['models'] if model['default'])['classes']
    for segment in answer['segments']:
        name = classes[segment['id']].get('label_zh') or segment['label']
        expect(here.page.locator(f'#rows tr[data-id="{segment["id"]}"] label')).to_have_text(name)
    here.page.get_by_role('button', name='English').click()
    expect(here.page.get_by_role('checkbox', name=answer['segments'][0]['label'], exact=True)).to_be_visible()
    expect(here.page.locator('#what')).to_have_text(DONE)


@pytest.mark.parametrize(('locale', 'language'), [('fr-FR', 'en'), ('zh-TW', 'zh-CN')])
def test_other_languages_get_the_nearest(visit, locale, language):
    assert visit(locale=locale).open().page.locator('html').get_attribute('lang') == language


def test_both_languages_say_the_same_things(visit):
    from ms_segformer.serving.problems import KINDS  # the extra 'serve', without which the tests here are skipped

    keys = visit().open().page.evaluate("async () => (await import('/page/words.js')).KEYS")
    assert keys['en'] == keys['zh'] and len(keys['en']) > 50
    assert {f'problems {kind}' for kind in KINDS} <= set(keys['en'])


def test_a_model_is_chosen_where_there_are_several(visit, server):
    here = visit()
    with urllib.request.urlopen(server.url.rstrip('/') + '/v1/models') as reply:
        known = next(model for model in json.load(reply)['models'] if model['default'])
    both = {'models': [dict(known, name='other', default=False), known]}
    here.page.route('**/v1/models', lambda route: route.fulfill(json=both))
    asked = []

    def note(route):
        asked.append(route.request.url.split('model=')[1])
        route.continue_(url=re.sub('model=.*', f'model={known["name"]}', route.request.url))

    here.page.route('**/v1/segment*', note)
    here.open()
    choice = here.page.get_by_label('Model')
    expect(choice).to_have_value(known['name'])
    here.show()
    choice.select_option('other')
    expect(here.page.locator('#what')).not_to_have_text(DONE)
    expect(here.page.locator('#what')).to_have_text(DONE)
    assert asked == [known['name'], 'other']


DECODE = """async (answer) => {
    const { LabelMap } = await import('/page/labels.js');
    const labels = new LabelMap(answer);
    return { at: [...labels.at], sample: [...labels.sample(answer.width, answer.height)] };
}"""


def test_masks_are_decoded_as_coco_encodes_them(visit):
    page = visit().open().page
    rng = np.random.default_rng(3)
    cases = [(1, 1, 1, 1), (7, 5, 3, 1), (64, 48, 9, 3), (200, 301, 300, 20), (5, 900, 2, 900)]
    for height, width, classes, block in cases:
        ids = rng.integers(0, classes + 1, (-(-height // block), -(-width // block)))
        ids = np.kron(ids, np.ones((block, block), int))[:height, :width]
        segments = []
        for number in range(1, classes + 1):
            mask = coco.encode(np.asfortranarray(ids == number).view(np.uint8))
            mask = {'size': [height, width], 'counts': mask['counts'].decode()}
            segments.append({'id': number - 1, 'color': '#112233', 'mask': mask})
        found = page.evaluate(DECODE, {'height': height, 'width': width, 'segments': segments})
        assert np.array_equal(np.array(found['at']).reshape(width, height).T, ids)
        assert np.array_equal(np.array(found['sample']).reshape(height, width), ids)


def test_nothing_is_wider_than_the_window(visit):
    here = visit().open()
    wide = 'document.documentElement.scrollWidth - document.documentElement.clientWidth'
    for state in ('empty', 'shown'):
        for width in (1280, 390, 320):
            here.page.set_viewport_size({'width': width, 'height': 800})
            assert here.page.evaluate(wide) == 0, (state, width)
        here.show()
    assert here.page.locator('#canvas').bounding_box()['width'] > 0.85 * 320


CONTRASTS = """() => {
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = (element) => {
        for (; element; element = element.parentElement) {
            const color = numbers(getComputedStyle(element).backgroundColor);
            if (color.length === 3 || color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    const weak = [];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.checkVisibility() || element.disabled) continue;
        const [a, b] = [light(numbers(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) weak.push([element.id || element.tagName, (a + 0.05) / (b + 0.05)]);
    }
    return weak;
}"""


def test_words_stand_out_from_their_ground(visit):
    """The contrast that WCAG 2.2 asks for at level AA."""
    here = visit().open().show()
    for scheme in ('light', 'dark'):
        here.page.emulate_media(color_scheme=scheme)
        assert here.page.evaluate(CONTRASTS) == [], scheme
