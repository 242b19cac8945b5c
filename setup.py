"""Build script; the metadata are in setup.cfg. Here: the configurations, and the optional C kernel."""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py


class BuildWithData(build_py):
    """Copies `configuration/<model name>/` and a photograph into the built package, where `metainfo` looks for them."""

    def run(self):
        super().run()
        if self.editable_mode:
            return  # an editable install reads the folder at the top of the checkout
        for source in (*sorted(Path('configuration').glob('*/*')), Path('assets', 'china.jpg')):
            target = Path(self.build_lib, 'ms_segformer', source)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(source), str(target))


kernel = Extension(
    'ms_segformer.postprocess._segment',
    ['ms_segformer/postprocess/_segment.c'],
    py_limited_api=True,
    extra_compile_args=[] if sys.platform == 'win32' else ['-O3', '-Wno-psabi'],
    optional=True,
)  # without a compiler torch does the same, more slowly

setup(cmdclass={'build_py': BuildWithData}, ext_modules=[kernel], options={'bdist_wheel': {'py_limited_api': 'cp310'}})
