"""How Sphinx builds the site: strict, offline, formulas as MathML, tutorials executed."""

from __future__ import annotations

import os
import pathlib
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tutorials run side by side

import inventory  # noqa: E402  # a room of docs/_ext

project = "robustvision"
author = "robustvision developers"
copyright = author
version = release = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "api_pages",
    "cli_pages",
    "code_map",
    "docstrings",
    "front_page",
    "mathml",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = False
default_role = "py:obj"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False
napoleon_use_ivar = True
napoleon_use_admonition_for_examples = False
napoleon_preprocess_types = False

sphinx_gallery_conf = {
    "examples_dirs": "../tutorials",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"\.py",
    "nested_sections": False,
    "within_subsection_order": "FileNameSortKey",
    "subsection_order": [f"../tutorials/{name}" for name in inventory.PACKAGES],
    "show_memory": False,
    "show_signature": False,
    "plot_gallery": True,
    "abort_on_example_error": True,
    "parallel": 2,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "image_scrapers": ("matplotlib",),
    "remove_config_comments": True,
    "reset_modules": ("matplotlib", "gallery.reset"),
}

html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}
html_favicon = html_logo = "_static/logo.svg"
html_title = "robustvision"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_toc_level": 2,
    "logo": {"text": "robustvision"},
    "navigation_with_keys": False,
    "header_links_before_dropdown": 8,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
