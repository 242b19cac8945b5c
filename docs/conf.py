"""Sphinx configuration of both languages; `make docs` builds each from its folder with this one file.

Sphinx with MyST and Furo, because all three still have releases and none needs the network to build or to be viewed:
Sphinx checks every internal link, takes the API reference from the docstrings and knows Chinese. MkDocs has had no
release since 1.6.1 of 2024, and its Material theme is in maintenance.
"""

from ms_segformer.version import __version__

project = 'ms-segformer'
author = copyright = 'the ms-segformer authors'
release = version = __version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
myst_heading_anchors = 3  # links to headings, as on GitHub

default_role = 'code'  # docstrings mark code by single backticks
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
napoleon_numpy_docstring = False

html_theme = 'furo'
html_title = f'ms-segformer {release}'
html_show_sourcelink = False
html_copy_source = False
html_static_path = ['_static']
html_css_files = ['drawing.css']
html_use_index = False  # no page of the theme leads there, and on a phone its tables are wider than the screen
html_domain_indices = False


def setup(app):
    app.connect('autodoc-process-docstring', returns_are_sentences, priority=400)  # before Napoleon's 500


def returns_are_sentences(app, what, name, obj, options, lines):
    """Keep Napoleon from taking what stands before a colon for a type: ours stand in the signatures."""
    for number, line in enumerate(lines[:-1]):
        if line.strip() in ('Returns:', 'Yields:'):
            text = lines[number + 1].lstrip()
            lines[number + 1] = lines[number + 1].removesuffix(text) + ': ' + text
