"""The benchmark: one protocol, many cells, and a command for each table."""

import importlib.util
import sys
from pathlib import Path


def _beside(root: Path, name: str) -> bool:
    """Whether the package that Python would import by ``name`` is the one that lies beside this one."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent.parent == root


# A folder of one's own methods may well be called methods: in the working directory it is found before a package that
# is installed in place (pip install -e).
_ROOT = Path(__file__).resolve().parents[1]
if not all(_beside(_ROOT, name) for name in ("corel", "methods")):
    sys.path.insert(0, str(_ROOT))

# While Python still locates the module of ``python -m bench.COMMAND``, sys.argv[0] is "-m". From here on Ctrl-C is
# answered in one line: the slow imports come after this.
if sys.argv[:1] == ["-m"]:
    from bench.engine.command_line import leave_quietly_while_loading

    leave_quietly_while_loading()
