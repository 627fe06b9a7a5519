"""What a number is said to come from."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.engine import provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def commit_of(tmp_path, monkeypatch):
    """The commit that a copy of the package at a place below a repository is said to be of."""
    git(tmp_path, "init", "-q", ".")
    (tmp_path / "theirs.py").write_text("")

    def place(*folders: str) -> Path:
        path = tmp_path.joinpath(*folders, "bench", "engine", "provenance.py")
        path.parent.mkdir(parents=True)
        shutil.copy(provenance.__file__, path)
        monkeypatch.setattr(provenance, "__file__", str(path))
        return path

    yield place
    provenance.git_commit.cache_clear()


@pytest.fixture(autouse=True)
def fresh():
    provenance.git_commit.cache_clear()


def test_commit_of_its_own_source(commit_of, tmp_path):
    path = commit_of()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "ours")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.git_commit() == head
    path.write_text(path.read_text() + "\n")
    provenance.git_commit.cache_clear()
    assert provenance.git_commit() == f"{head}-dirty"


def test_an_installed_copy_does_not_name_the_repository_around_it(commit_of, tmp_path):
    commit_of(".venv", "site-packages")
    git(tmp_path, "add", "theirs.py")
    git(tmp_path, "commit", "-qm", "theirs")
    assert provenance.git_commit() == f"version {provenance.package_version()}"


def test_a_hook_of_another_repository_changes_nothing(commit_of, tmp_path, monkeypatch):
    commit_of()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "ours")
    head = git(tmp_path, "rev-parse", "HEAD")
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert provenance.git_commit() == head


def test_without_git(commit_of, monkeypatch):
    commit_of()
    monkeypatch.setenv("PATH", "")
    assert re.fullmatch(r"version \S+", provenance.git_commit())


def test_versions_name_what_shapes_results():
    assert {"python", "torch", "numpy"} <= set(provenance.versions())
