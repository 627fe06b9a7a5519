"""Settings of Sphinx. ``tox -e docs`` builds the pages; nothing is fetched from the network."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for generated_tables

project = "corel"
author = "The corel authors"
release = version = installed_version("corel")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "generated_tables",
]
exclude_patterns = ["_build", "pictures/*.md"]
# a name in :func:`…` and the like that is not documented here is an error; other projects' names stay plain text
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!(corel|methods|bench)\.).*")]

autodoc_typehints = "none"  # the docstrings give types, shapes and dtypes
autosummary_generate = True
templates_path = ["templates"]
numpydoc_show_class_members = False
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"plot_\w+\.py",
    "ignore_pattern": r"(nearest_mean|patch_corel|whitened_mean)\.py",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "reference_url": {"corel": None},
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "corel"
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False, "navbar_align": "left"}
html_sidebars = {page: [] for page in ("index", "getting-started")}  # they have no section
