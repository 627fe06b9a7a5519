"""A method in one file or in an installed package, and every way in which that can go wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import pickle
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import methods
from methods import own

ROOT = Path(__file__).parents[2]

METHOD = """
import dataclasses
import numpy as np
from methods import OneClassMethod

@dataclasses.dataclass(frozen=True)
class Settings:
    power: float = 2.0

class Brightness(OneClassMethod):
    name = "brightness"
    profiles = {"paper": Settings(), "quick": Settings(1.0)}

    def fit(self, features):
        self.mean = features.mean()
        return self

    def score_samples(self, features):
        return -np.abs(features.mean(axis=(1, 2, 3)) - self.mean) ** self.settings.power
"""


@pytest.fixture
def write(tmp_path):
    """Write a file and return its path."""

    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return generator.integers(100, 120, (12, 3, 32, 32), dtype=np.uint8)


def blocks(path: Path) -> list[str]:
    """The complete programs among the Python examples of a document."""
    found = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
    return [block for block in found if "class " in block and "import" in block]


def check_separates(name: str, images: np.ndarray, **settings: float) -> None:
    method = methods.create(name, "quick", seed=1, device="cpu", **settings)
    scores = method.fit(images[:8]).score_samples(np.concatenate([images[8:], images[8:] + 60]))
    assert scores.shape == (8,)
    assert scores[:4].min() > scores[4:].max()


def test_documented_examples_work_as_pasted(write, images):
    examples = blocks(ROOT / "docs" / "own-method.md")
    assert len(examples) == 2
    for number, (example, class_name) in enumerate(zip(examples, ("NearestMean", "NearestNoisyMean"), strict=True)):
        path = write(example, f"pasted_{number}.py")
        check_separates(f"{path}:{class_name}", images)
        check_separates(str(path), images)
    check_separates(f"{path}:NearestNoisyMean", images, order=1.0)


def test_document_shows_the_file_and_the_command_that_runs_it():
    text = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")
    assert blocks(ROOT / "docs" / "own-method.md")[0] == (ROOT / "examples" / "nearest_mean.py").read_text("utf-8")
    (command,) = (line for line in text.splitlines() if line.startswith("python -m bench.table1 --methods examples/"))
    file, class_name = shlex.split(command)[4].split(":")
    assert methods.resolve(f"{ROOT / file}:{class_name}").name == "nearest-mean"


def test_documented_prepare_works(images):
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own-method.md").read_text("utf-8"),
                                      re.S) if "def prepare" in b)  # fmt: skip
    names: dict = {"np": np}
    exec("class Example:\n" + block, names)
    grey = names["Example"]().prepare(images)
    assert grey.shape == (12, 8, 8)
    assert grey[3, 2, 1] == pytest.approx(images[3, :, 8:12, 4:8].mean())


def test_class_is_found_by_name_or_alone(write, images):
    path = write(METHOD)
    for name in (f"{path}:Brightness", str(path)):
        check_separates(name, images)
    assert methods.resolve(str(path)) is methods.resolve(f"{path}:Brightness")


def test_settings_profiles_and_seed(write):
    path = write(METHOD)
    assert methods.create(str(path)).settings.power == 2.0
    made = methods.create(str(path), "quick", 7, "cpu")
    assert dataclasses.asdict(made.settings) == {"power": 1.0}
    assert made.seed == 7
    assert methods.create(str(path), "quick", power=3.0).settings.power == 3.0
    with pytest.raises(TypeError, match="got 'size'; it has power"):
        methods.create(str(path), size=3.0)
    with pytest.raises(TypeError, match="got 'size'; it has none"):
        methods.create(f"{ROOT}/examples/nearest_mean.py", size=3.0)


def test_a_relative_path_is_taken_from_the_working_directory(write, monkeypatch):
    path = write(METHOD)
    monkeypatch.chdir(path.parent)
    assert methods.resolve("mine.py:Brightness") is methods.resolve(f"{path}:Brightness")


@pytest.mark.parametrize("fails", ["", "\nraise KeyError"])
def test_a_file_that_changes_the_working_directory(write, monkeypatch, fails):
    path = write(f"{METHOD}\nimport os\nos.chdir('/'){fails}")
    monkeypatch.chdir(path.parent)
    for _ in range(2):
        with pytest.raises(ValueError, match="raises KeyError") if fails else contextlib.nullcontext():
            assert methods.resolve("mine.py").name == "brightness"
        assert Path.cwd() == path.parent


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no names that are not UTF-8")
def test_a_name_that_is_not_utf_8(tmp_path, images):
    path = os.fsencode(tmp_path) + b"/m\xe9thode.py"
    with open(path, "w") as file:
        file.write(METHOD)
    check_separates(os.fsdecode(path), images)


def test_two_files_of_one_name_do_not_meet(tmp_path):
    for folder, name in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(METHOD.replace('"brightness"', f'"{name}"'))
    assert methods.resolve(f"{tmp_path}/a/mine.py").name == "first"
    assert methods.resolve(f"{tmp_path}/b/mine.py").name == "second"


def test_editing_the_file_changes_digest_and_class(write):
    path = write(METHOD)
    name = f"{path}:Brightness"
    assert methods.source_digest(name) == hashlib.sha256(path.read_bytes()).hexdigest()
    before, kept = methods.source_digest(name), methods.resolve(name)
    write(METHOD.replace("power: float = 2.0", "power: float = 4.0"))
    assert methods.source_digest(name) == hashlib.sha256(path.read_bytes()).hexdigest() != before
    assert methods.create(name).settings.power == 4.0
    write(METHOD)
    assert methods.resolve(name) is kept


def test_a_fitted_method_can_be_pickled(write, images):
    method = methods.create(str(write(METHOD))).fit(images)
    again = pickle.loads(pickle.dumps(method))
    np.testing.assert_array_equal(again.score_samples(images), method.score_samples(images))


def test_a_spawned_process_finds_the_method_by_its_name(write, images):
    method = methods.create(f"{write(METHOD)}:Brightness", "quick").fit(images)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        again = pool.apply(methods.source_digest, [f"{write(METHOD)}:Brightness"])
        remade = pool.apply(methods.create, [f"{write(METHOD)}:Brightness", "quick"])
    assert again == methods.source_digest(f"{write(METHOD)}:Brightness")
    assert (type(remade), remade.settings) == (type(method), method.settings)


ONE = "from methods import OneClassMethod\n"
FULL = """
class {name}(OneClassMethod):
    name = "x"
    def fit(self, features): return self
    def score_samples(self, features): return features
"""


@pytest.mark.parametrize(
    ("text", "class_name", "message"),
    [
        ("x = 1", ":Mine", r"mine.py has no 'Mine'; it defines no subclass of OneClassMethod"),
        ("x = 1", "", r"mine.py defines no subclass of OneClassMethod"),
        (METHOD, ":Brighness", r"mine.py has no 'Brighness'; it defines Brightness"),
        (ONE + FULL.format(name="A") + FULL.format(name="B"), "", r"mine.py defines A, B; name one as .*mine.py:CLASS"),
        (METHOD, ":Settings", r"accepted are subclasses of methods.OneClassMethod, but this is the class Settings"),
        ("Mine = 3", ":Mine", r"accepted are subclasses of methods.OneClassMethod, but this is of type int"),
        ("x = 1\nx = 1 / 0", ":Mine", r"mine.py, line 2, raises ZeroDivisionError: division by zero"),
        ("x = 1\nx = (", ":Mine", r"mine.py, line 2, raises SyntaxError: '\(' was never closed"),
        ("import no_such_package_at_all", "", r"line 1, raises ModuleNotFoundError: No module named"),
        ("raise SystemExit", "", r"mine.py, line 1, raises SystemExit"),
        ("raise ValueError('two\\nlines')", "", r"mine.py, line 1, raises ValueError: two lines"),
        (ONE + "class Mine(OneClassMethod):\n    name = 'x'", ":Mine", r"Mine lacks fit, score_samples"),
        (ONE + "class Mine(OneClassMethod):\n    name = 'x'", "", r"Mine lacks fit, score_samples"),
        (
            ONE + FULL.format(name="Mine").replace('name = "x"', "pass"),
            "",
            r"Mine has no class attribute 'name', a string",
        ),
        (ONE + FULL.format(name="Mine").replace('"x"', "3"), "", r"Mine has no class attribute 'name', a string"),
        (
            ONE + FULL.format(name="Mine") + "    def __init__(self): pass",
            "",
            r"__init__ must take \(settings=None, \*, seed=0, device='auto'\)",
        ),
        (METHOD.replace("profiles = {", "profiles = {} and {"), "", r"profiles must be a dictionary with 'paper'"),
        (METHOD.replace("Settings(),", "{'a': 1},"), "", r"profiles\['paper'\]: accepted are .* frozen dataclass"),
        (METHOD.replace("(frozen=True)", ""), "", r"profiles\['paper'\]: accepted are instances of a frozen dataclass"),
        (
            METHOD.replace("Settings(1.0)", "Settings(print)"),
            "",
            r"profiles\['quick'\]: the setting 'power' is of type",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_with_its_name(write, text, class_name, message):
    name = f"{write(text)}{class_name}"
    with pytest.raises(ValueError, match=message) as caught:
        methods.create(name)
    assert str(caught.value).startswith(f"method {name!r}: ")
    assert "\n" not in str(caught.value)


def test_constructor_that_forgets_its_base(write):
    name = str(write(ONE + FULL.format(name="Mine") + "    def __init__(self, s=None, *, seed=0, device=''): pass"))
    with pytest.raises(ValueError, match=r"its __init__ must call super\(\).__init__\(settings, seed=seed"):
        methods.create(name)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file '.*absent.py'"):
        methods.resolve(f"{tmp_path}/absent.py:Mine")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ValueError, match=r"cannot read '.*folder.py' "):
        methods.resolve(f"{tmp_path}/folder.py:Mine")


def test_a_file_that_failed_once_is_run_again(write, tmp_path):
    text = f"from pathlib import Path\nassert Path({str(tmp_path / 'flag')!r}).exists()\n" + METHOD
    name = str(write(text))
    modules = set(sys.modules)
    with pytest.raises(ValueError, match="raises AssertionError"):
        methods.resolve(name)
    assert set(sys.modules) == modules
    (tmp_path / "flag").touch()
    assert methods.resolve(name).name == "brightness"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with entry points onto the path."""

    def install(entry_points: str, module: str) -> None:
        info = tmp_path / "site" / "brightness_package-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness-package\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[corel.methods]\n{entry_points}\n")
        (tmp_path / "site" / "brightness_package_for_test.py").write_text(module)
        monkeypatch.syspath_prepend(tmp_path / "site")
        own.from_packages.cache_clear()

    yield install
    monkeypatch.undo()
    sys.modules.pop("brightness_package_for_test", None)
    own.from_packages.cache_clear()


def test_an_installed_package_adds_a_method(install, images):
    assert "brightness" not in methods.available()
    install("brightness = brightness_package_for_test:Brightness", METHOD)
    assert "brightness" in methods.available()
    check_separates("brightness", images)
    assert methods.source_digest("brightness") == "brightness-package 1.5"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module_at_all:Brightness", "ModuleNotFoundError: No module named"),
        ("brightness_package_for_test:Absent", "AttributeError"),
        ("brightness_package_for_test:Settings", "accepted are subclasses of methods.OneClassMethod"),
    ],
)
def test_a_broken_package_costs_one_warning_and_nothing_else(install, value, message, recwarn):
    before = methods.available()
    install(f"broken = {value}\nbrightness = brightness_package_for_test:Brightness", METHOD)
    with pytest.warns(UserWarning, match=f"method 'broken': the entry point .* cannot be loaded: .*{message}"):
        assert methods.available() == sorted([*before, "brightness"])
    recwarn.clear()
    methods.available()
    assert not recwarn.list
    with pytest.raises(ValueError, match=f"method 'broken': the entry point .*{message}"):
        methods.resolve("broken")


def test_what_runs_is_what_was_digested(write, images, monkeypatch):
    """Python takes a file of the same size and second for the one that it has compiled before."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    scores = {}
    for sign in "-+":
        path = write(METHOD.replace("return -np", f"return {sign}np"))
        os.utime(path, (1_000_000_000, 1_000_000_000))
        scores[sign] = methods.create(str(path), "quick", device="cpu").fit(images).score_samples(images)
    np.testing.assert_array_equal(scores["+"], -scores["-"])
    assert not (path.parent / "__pycache__").exists()


def test_two_files_do_not_share_a_helper(tmp_path, images):
    """Python keeps one module of a name, so the second file would compute with the first one's helper."""
    header = "import sys\nsys.path.insert(0, {folder!r})\nfrom distance_of_mine import scale\n"
    for name, scale in (("a", 1), ("b", -1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "distance_of_mine.py").write_text(f"scale = {scale}\n")
        (tmp_path / name / "m.py").write_text(header.format(folder=str(tmp_path / name)) + METHOD)
    try:
        check_separates(str(tmp_path / "a" / "m.py"), images)
        check_separates(str(tmp_path / "a" / "m.py"), images)
        with pytest.raises(ValueError, match=r"'distance_of_mine' is that of .*/a' already.* of .*/b' another name"):
            methods.resolve(str(tmp_path / "b" / "m.py"))
    finally:
        sys.path[:] = [folder for folder in sys.path if not folder.startswith(str(tmp_path))]
        sys.modules.pop("distance_of_mine", None)
        own._helpers.pop("distance_of_mine", None)


@pytest.mark.parametrize("version", ['"one"', "1.5", "None", "True"])
def test_version_must_be_an_integer(write, version):
    path = write(METHOD.replace('name = "brightness"', f'name = "brightness"\n    version = {version}'))
    with pytest.raises(ValueError, match=r"version is .*; accepted are integers"):
        methods.resolve(str(path))


def test_a_syntax_error_is_told_where_it_is(write, monkeypatch):
    bad = write("x = 1\n\n\n\ny = (\n", "helper_with_error.py")
    monkeypatch.syspath_prepend(bad.parent)
    path = write("import helper_with_error\n")
    with pytest.raises(ValueError, match=r"mine\.py, line 1, imports .*helper_with_error\.py, whose line 5 raises Syn"):
        methods.resolve(str(path))
    with pytest.raises(ValueError, match=r"mine\.py, line 2, raises SyntaxError"):
        methods.resolve(str(write("import ast\nast.literal_eval('1 +')\n")))
    with pytest.raises(ValueError, match=r"mine\.py, line 2, raises SyntaxError"):
        methods.resolve(str(write("import ast\nx = = 3\n")))
