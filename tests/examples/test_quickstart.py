"""The notebook `examples/quickstart.ipynb`, in a kernel of Jupyter as a user would run it, from first to last cell.

It is run for real, and not by executing its lines: what a kernel does with a result, a table or a picture at the end of
a cell is what the notebook promises.
"""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ms_segformer
from ms_segformer.datasets.example import CLASSES
from ms_segformer.metainfo import photographs

nbformat = pytest.importorskip('nbformat', reason='reading the notebook needs nbformat')

NOTEBOOK = Path(__file__).parents[2] / 'examples' / 'quickstart.ipynb'
PROXIES = ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY')


class Ran:
    """The notebook after it was run: its cells, and the folders it was started in and given for temporary files."""

    def __init__(self, folder):
        self.notebook = nbformat.read(NOTEBOOK, as_version=4)
        self.here, self.temporary = folder / 'here', folder / 'temporary'
        self.here.mkdir()
        self.temporary.mkdir()

    def of(self, text):
        """The outputs of the one cell of code that has a text: {kind of data or name of a stream: content}."""
        (cell,) = [cell for cell in self.notebook.cells if cell.cell_type == 'code' and text in cell.source]
        found = {}
        for output in cell.outputs:
            found.update(output.get('data', {}))
            if output.output_type == 'stream':
                found[output.name] = found.get(output.name, '') + output.text
        return found

    @property
    def made(self):
        """The folder that the notebook made."""
        (folder,) = self.temporary.glob('quickstart-*')
        return folder


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    nbclient = pytest.importorskip('nbclient', reason='running the notebook needs nbclient')
    for package in ('ipykernel', 'openvino', 'pandas'):
        pytest.importorskip(package, reason=f'the notebook needs {package}')
    ran = Ran(tmp_path_factory.mktemp('quickstart'))
    with pytest.MonkeyPatch.context() as patch:
        for name in PROXIES:  # nobody listens there: what asks a network fails
            patch.setenv(name, 'http://127.0.0.1:9')
        patch.setenv('OMP_NUM_THREADS', '1')
        patch.setenv('TMPDIR', str(ran.temporary))
        patch.setenv('IPYTHONDIR', str(ran.temporary / 'ipython'))
        resources = {'metadata': {'path': str(ran.here)}}
        # `execute` raises where a cell does.
        nbclient.NotebookClient(ran.notebook, timeout=600, kernel_name='python3', resources=resources).execute()
    return ran


def picture(found):
    return Image.open(io.BytesIO(base64.b64decode(found['image/png'])))


def test_no_outputs_are_kept_in_it():
    """They are a megabyte of pictures that a change of the model makes wrong."""
    stored = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in stored.cells if cell.cell_type == 'code')
    links = [link for cell in stored.cells for link in re.findall(r'\]\(([^)]+)\)', cell.source)]
    assert links and all((NOTEBOOK.parent / link).exists() for link in links)


def test_it_segments_and_shows_the_photograph(ran):
    photograph = Image.open(photographs()[0])
    result = ms_segformer.load('demo')(photographs()[0], confidence=True)
    shown = picture(ran.of("load('demo')"))
    assert shown.height == photograph.height and shown.width > photograph.width, 'the photograph and a legend'

    table = ran.of('to_pandas')
    assert '<table' in table['text/html'] and all(label in table['text/plain'] for label in result['labels'])

    largest = result.to_dicts()[0]['label']
    assert picture(ran.of('only')).size == photograph.size
    assert (np.asarray(picture(ran.of('cutout'))) == result.cutout(largest, crop=True)).all()

    unsure = ran.of('margin')
    assert picture(unsure).size == photograph.size
    assert f'{(result["margin"] < 0.1).mean():.1%}' in unsure['stdout']


def test_it_trains_on_own_classes(ran):
    assert ran.of('write_example')['stdout'].split() == list(CLASSES)
    assert picture(ran.of('write_example')).width > 180, 'an image and its label map side by side'
    said = ran.of('EasyCVTrainer')['stdout']
    assert float(re.search(r'mIoU of the validation images: (\d+\.\d)%', said)[1]) > 70, said

    folder = ran.made
    own = ms_segformer.load(folder / 'run' / 'output', engine='torch')
    assert list(own.classes) == list(CLASSES)
    expected = np.asarray(Image.open(folder / 'shapes/annotations/val/00.png'))
    assert (own(folder / 'shapes/images/val/00.jpg')['seg_map'] == expected).mean() > 0.8
    shown = picture(ran.of('own('))
    assert shown.height >= expected.shape[0] and shown.width > expected.shape[1]


def test_it_exports_the_model(ran):
    openvino = pytest.importorskip('openvino', reason='needs OpenVINO')
    folder = ran.made
    path = folder / 'exported' / 'model.xml'
    assert str(path) in ran.of('export_openvino')['text/plain']
    assert openvino.Core().read_model(path).output(0).partial_shape[1].get_length() == len(CLASSES)


def test_it_writes_into_its_temporary_folder_only(ran):
    assert list(ran.here.iterdir()) == [] and ran.made.is_dir()
