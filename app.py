"""A page made with Gradio, as ModelScope Studio starts it: a photograph in; overlay, classes and label map out.

    pip install -r requirements.txt
    python app.py

The environment variable MS_SEGFORMER_MODEL names the model: a hub id, b0 to b5, a model directory, or demo. Where the
page is served is said by Gradio's own variables, GRADIO_SERVER_NAME and GRADIO_SERVER_PORT. Without Gradio there is
`ms-segformer serve`, which has more to it.
"""

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

# Gradio reads these when it is imported: nothing is told to its makers, and what visitors send has a folder of its own.
os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
if 'GRADIO_TEMP_DIR' not in os.environ:
    os.environ['GRADIO_TEMP_DIR'] = tempfile.mkdtemp(prefix='ms-segformer-')

import gradio as gr  # noqa: E402

import ms_segformer  # noqa: E402
from ms_segformer.datasets.class_names import names_in  # noqa: E402

MODEL = os.environ.get('MS_SEGFORMER_MODEL') or 'damo/cv_segformer-b0_image_semantic-segmentation_coco-stuff164k'
MAX_PIXELS = 2**25  # of a photograph
MAX_FILE = '32mb'
MAX_SIDE = 1600  # of the overlay, in pixels; the label map has the size of the photograph
WAITING = 16  # visitors that may wait for their turn; one is served at a time
KEPT = 1800  # seconds that files of visitors are kept
EXAMPLE = Path(__file__).parent / 'assets' / 'china.jpg'
LANGUAGES = {'en': 'English', 'zh': '中文'}
TEXTS = {
    'en': {
        'title': f'## SegFormer\nSegments a photograph with `{MODEL}`. Photographs are deleted within the hour.',
        'language': 'Language',
        'photo': 'Photograph',
        'button': 'Segment',
        'overlay': 'Segments',
        'table': 'Classes',
        'label_map': 'Label map (PNG: the value of a pixel is the id of its class)',
        'headers': ['id', 'class', 'share, %', 'score'],
        'none': 'Choose a photograph first.',
        'failed': 'It did not work',
    },
    'zh': {
        'title': f'## SegFormer\n用 `{MODEL}` 分割一张照片。照片在一小时内删除。',
        'language': '语言',
        'photo': '照片',
        'button': '分割',
        'overlay': '分割结果',
        'table': '类别',
        'label_map': '标签图（PNG，像素值为类别编号）',
        'headers': ['编号', '类别', '占比（%）', '得分'],
        'none': '请先选择一张照片。',
        'failed': '出错了',
    },
}


class Model:
    """The pipeline, opened once: in the background when the page starts, or by the first visitor who needs it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pipeline: ms_segformer.SegformerPipeline | None = None
        self._lock = threading.Lock()

    def get(self) -> 'ms_segformer.SegformerPipeline':
        """It, opened.

        Raises:
            SegformerError, OSError: it cannot be; the next call tries again.
        """
        with self._lock:
            if self._pipeline is None:
                pipeline = ms_segformer.load(self._name)
                pipeline.prepare_model()
                self._pipeline = pipeline
            return self._pipeline

    def open(self) -> None:
        """Open it; what is wrong is printed, and shown to whoever asks for a result."""
        try:
            self.get()
            print(f'{self._name} is ready', flush=True)
        except (ms_segformer.SegformerError, OSError) as error:
            print(f'{self._name} cannot be opened: {error}', flush=True)


model = Model(MODEL)


def segment(photo: str | None, language: str) -> tuple[Any, list[list[Any]], str]:
    """(overlay, rows of the table, path of the label map) of a photograph.

    Args:
        photo: path of the file.
        language: of the names of COCO-Stuff's classes: English or 中文.
    """
    code = next((code for code, name in LANGUAGES.items() if name == language), 'en')
    texts = TEXTS[code]
    if photo is None:
        raise gr.Error(texts['none'], title=texts['failed'], print_exception=False)
    try:
        pipeline = model.get()
        result = pipeline(photo, with_masks=False, with_image=True, max_pixels=MAX_PIXELS)
        overlay = result.plot(language=code, max_side=MAX_SIDE)
        folder = tempfile.mkdtemp(dir=os.environ['GRADIO_TEMP_DIR'])
        name = f'{Path(photo).stem}_labels.png'
        label_map = result.save(os.path.join(folder, name), content='labels')
    except (ms_segformer.SegformerError, OSError) as error:
        said = str(error).replace(photo, Path(photo).name)
        raise gr.Error(said, title=texts['failed'], print_exception=False) from error
    names = names_in(code, pipeline.classes)
    rows = [
        [row['id'], names[row['id']], round(100 * row['share'], 2), round(row['score'], 3)] for row in result.to_dicts()
    ]
    return overlay, rows, str(label_map)


def preferred(request: gr.Request) -> str:
    """The language of a visitor, by what the browser asks for."""
    return LANGUAGES['zh' if request.headers.get('accept-language', '').lower().startswith('zh') else 'en']


def build() -> gr.Blocks:
    """The page."""
    texts = TEXTS['en']
    with gr.Blocks(title='SegFormer', analytics_enabled=False, delete_cache=(KEPT // 2, KEPT)) as page:
        with gr.Row():
            title = gr.Markdown(texts['title'])
            language = gr.Radio(list(LANGUAGES.values()), value='English', label=texts['language'], scale=0)
        with gr.Row():
            with gr.Column():
                # The file as it was sent: ms_segformer decodes it, within its bounds, and says what is wrong with it.
                photo = gr.Image(label=texts['photo'], type='filepath', sources=['upload', 'clipboard'], height=480)
                photo.preprocess = lambda payload: payload and payload.path
                button = gr.Button(texts['button'], variant='primary')
                if EXAMPLE.is_file():
                    gr.Examples([[str(EXAMPLE)]], [photo], cache_examples=False)
            with gr.Column():
                overlay = gr.Image(label=texts['overlay'], format='jpeg', interactive=False, buttons=['download'])
                label_map = gr.DownloadButton(texts['label_map'])
        table = gr.Dataframe(
            headers=texts['headers'],
            datatype=['number', 'str', 'number', 'number'],
            label=texts['table'],
            interactive=False,
        )

        def translate(name: str) -> list[Any]:
            texts = TEXTS[next(code for code, each in LANGUAGES.items() if each == name)]
            return [
                texts['title'],
                gr.Radio(label=texts['language']),
                gr.Image(label=texts['photo']),
                gr.Button(texts['button']),
                gr.Image(label=texts['overlay']),
                gr.DownloadButton(texts['label_map']),
                gr.Dataframe(label=texts['table'], headers=texts['headers']),
            ]

        language.change(
            translate,
            language,
            [title, language, photo, button, overlay, label_map, table],
            api_visibility='private',
            show_progress='hidden',
        )
        page.load(preferred, None, language, api_visibility='private', show_progress='hidden')
        button.click(segment, [photo, language], [overlay, table, label_map], api_name='segment', concurrency_limit=1)
    return page.queue(max_size=WAITING)


def main() -> None:
    """Serve the page until Ctrl-C."""
    threading.Thread(target=model.open, daemon=True).start()
    fonts = ('system-ui', 'sans-serif')
    build().launch(
        share=False,
        theme=gr.themes.Default(font=fonts, font_mono=('ui-monospace', 'monospace')),
        max_file_size=MAX_FILE,
        footer_links=['api'],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
    )


if __name__ == '__main__':
    main()
