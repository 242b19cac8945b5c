"""Build script; every setting is in setup.cfg. It only gathers the configurations into the package."""
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigurations(build_py):
    """Copies `configuration/<model name>/` into the built package, where `metainfo.configuration_dir` looks."""

    def run(self):
        super().run()
        if self.editable_mode:
            return  # an editable install reads the folder at the top of the checkout
        for source in sorted(Path('configuration').glob('*/*')):
            target = Path(self.build_lib, 'ms_segformer', 'configuration', source.parent.name, source.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(source), str(target))


setup(cmdclass={'build_py': BuildWithConfigurations})
