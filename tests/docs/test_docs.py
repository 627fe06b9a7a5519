"""The documentation: it builds without a warning, its code runs, its commands and links exist."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import html
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import methods

markdown_it = pytest.importorskip("markdown_it", reason="needs the extra docs")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: Folders of docs/ that a build makes.
GENERATED = ("_build", "gallery", "reference")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
LINKED = [*PAGES, *sorted((ROOT / "results").rglob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


@functools.cache
def tokens(path: Path) -> list:
    """The page's Markdown tokens, those within paragraphs and table cells too."""
    parsed = markdown_it.MarkdownIt().enable("table").parse(path.read_text(encoding="utf-8"))
    return [part for token in parsed for part in (token, *(token.children or ()))]


def fences(path: Path, language: str) -> Iterator[tuple[str, int, bool]]:
    """Code blocks of a language: text, line that it begins after, and whether ``<!-- skip: next … -->`` precedes it."""
    skipped = False
    for token in tokens(path):
        if token.type == "html_block":
            skipped = token.content.startswith("<!-- skip: next")
        elif token.type == "fence":
            if token.info.split()[:1] == [language]:
                yield token.content, token.map[0] + 1, skipped
            skipped = False


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The HTML pages, built from a copy: no script of the gallery counts as run because an older build ran it."""
    pytest.importorskip("sphinx_gallery", reason="needs the extra docs")
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(DOCS, source / "docs", ignore=shutil.ignore_patterns(*GENERATED, "__pycache__"))
    shutil.copytree(ROOT / "examples", source / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "results").symlink_to(ROOT / "results")
    (source / "bench").mkdir()
    (source / "bench" / "analysis").symlink_to(ROOT / "bench" / "analysis")  # pages link to its CSV files
    built = source / "html"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", source / "docs", built]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, cwd=source, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return built


def test_every_script_of_the_gallery_ends_in_a_picture(site):
    scripts = sorted((ROOT / "examples").glob("plot_*.py"))
    assert len(scripts) >= 5
    for script in scripts:
        page = (site / "gallery" / f"{script.stem}.html").read_text(encoding="utf-8")
        assert re.search(rf'<img [^>]*src="[^"]*sphx_glr_{script.stem}_\d+\.png"', page)


def test_pages_load_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"', text), page


def test_settings_are_those_of_the_code(site):
    page = html.unescape(re.sub(r"<[^>]+>", " ", (site / "methods.html").read_text(encoding="utf-8")))
    words = " ".join(page.split())
    built_in = [name for name in methods.available() if methods.resolve(name).__module__.startswith("methods.")]
    for name in built_in:
        paper, quick = (methods.resolve(name).settings_of(profile) for profile in ("paper", "quick"))
        for field in dataclasses.fields(paper):
            row = f"{field.name} {getattr(paper, field.name)!r} {getattr(quick, field.name)!r}"
            assert row in words, f"{name}: {row}"


@pytest.mark.parametrize("name", NAMES)
def test_python_blocks_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for code, line, skipped in fences(ROOT / name, "python"):
        compiled = compile("\n" * line + textwrap.dedent(code), name, "exec", dont_inherit=True)
        if not skipped:
            exec(compiled, vars(module))


def test_costs_are_summed_from_published_rows(tmp_path, monkeypatch):
    pytest.importorskip("sphinx", reason="needs the extra docs")
    monkeypatch.syspath_prepend(DOCS)
    costs = importlib.import_module("generated_tables").Costs
    rows = tmp_path / "some" / "rows.csv"
    rows.parent.mkdir()
    rows.write_text(
        "dataset_title,method,profile,changes,train_per_class,test_images,fit_seconds,score_seconds,device,threads\n"
        'flowers,corel,paper,"{""lam"": 0.0}",120,1000,1799,1,cpu,2\n'
        'flowers,corel,paper,"{""lam"": 0.0}",120,1000,5398,2,cpu,2\n'
        "flowers,dsebm,any,{},all,,7,0.5,cpu,2\n"
    )
    rows.with_name("auxiliaries.csv").write_text("method,auxiliary,seconds,device,threads\ncorel,flowers,3600,cpu,4\n")
    what = "corel on flowers, m = 120, 1000 test images, profile paper, lam = 0.0"
    assert costs.rows(rows) == [
        ("``results/some``", "corel: training on flowers", "cpu, 4", "1", "3,600", "1"),
        ("``results/some``", what, "cpu, 2", "2", "3,600", "2"),
        ("``results/some``", "dsebm on flowers, m = all", "cpu, 2", "1", "7.5", "0.00208"),
    ]


def commands(path: Path) -> Iterator[list[str]]:
    """The words after ``python -m`` of every command of the benchmark in shell blocks."""
    for block, _, _ in fences(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if "-m" in words and words[words.index("-m") + 1].startswith("bench."):
                    yield words[words.index("-m") + 1 :]


@functools.cache
def known_options(program: str) -> set[str]:
    """The options that ``--help`` of a command lists."""
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))},
    )  # fmt: skip
    return set(re.findall(r"--[a-z][a-z0-9-]*", done.stdout))


@pytest.mark.parametrize("name", NAMES)
def test_commands_have_the_options_that_pages_give_them(name):
    for program, *words in commands(ROOT / name):
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= known_options(program), f"python -m {program} {shlex.join(words)}"


@pytest.mark.parametrize("name", NAMES)
def test_options_in_the_text_exist(name):
    programs = [f"bench.{path.stem}" for path in (ROOT / "bench").glob("*.py") if path.stem != "__init__"]
    known = set().union(*map(known_options, programs))
    for token in tokens(ROOT / name):
        if token.type == "code_inline" and token.content.startswith("--"):
            option = token.content.split()[0]
            if option not in DASK_OPTIONS:
                assert option in known, token.content


#: Options of ``dask worker`` that the page on clusters speaks of.
DASK_OPTIONS = {"--nthreads", "--resources", "--lifetime"}


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_pages_change_can_be_set_so(name):
    for method, setting, value in re.findall(r"--set ([a-z][\w-]*)\.(\w+)=([\w.-]+)", (ROOT / name).read_text("utf-8")):
        with contextlib.suppress(ValueError):
            value = ast.literal_eval(value)
        made = methods.create(method, device="cpu", **{setting: value})
        assert getattr(made.settings, setting) == value


def anchors(path: Path) -> set[str]:
    """What headings of a page are linked to by, as GitHub and MyST do."""
    texts = [
        following.content
        for token, following in zip(tokens(path), tokens(path)[1:], strict=False)
        if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in texts}


@pytest.mark.parametrize("path", LINKED, ids=[str(path.relative_to(ROOT)) for path in LINKED])
def test_relative_links_lead_somewhere(path):
    for token in tokens(path):
        link = token.attrs.get("href", token.attrs.get("src")) if token.type in ("link_open", "image") else None
        if link is None or re.match(r"[a-z]+:", str(link)):
            continue
        place, _, anchor = str(link).partition("#")
        target = (path.parent / place).resolve() if place else path
        if target.parent == DOCS / "gallery":  # made of a script when the pages are built
            target = ROOT / "examples" / f"{target.stem}.py"
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_places_that_contributors_are_sent_to_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    places = [place for place in re.findall(r"`([\w.-]+/[\w./-]*)`", text) if "NAME" not in place]
    assert len(places) >= 10
    for place in places:
        assert (ROOT / place).exists(), place


def test_every_page_is_in_the_contents():
    contents = " ".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.rst")).split()
    for page in DOCS.glob("*.md"):
        assert page.stem in contents
