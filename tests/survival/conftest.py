"""The command in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import publish, table1
from bench.engine.command_line import run


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple]:
    """Run ``table1`` or ``publish`` in an empty folder: status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    # the page of odd names is written, but not the files of its pictures, which take longest
    monkeypatch.setattr("bench.analysis.charts.save", lambda figures, folder: None)

    def go(program: str, *words: str) -> tuple[int, str, str]:
        main = {"table1": table1, "publish": publish}[program].main
        extra = ["--workers", "1", "--data-root", str(tmp_path / "data")] if program == "table1" else []
        status = run(f"bench.{program}", main, [*words, *extra])
        return status, *capsys.readouterr()

    return go
