"""The arguments of ``bench.table1``. Nothing slow is imported here: a wrong option is answered at once."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from bench.engine import provenance
from bench.engine.command_line import (
    Parser,
    number,
    positive_int,
    run_count,
    thread_count,
    torch_device,
    train_per_class,
    whole_number,
)

PROGRAM = "bench.table1"

#: The options that shape numbers, in the order of a recorded command. The others say where and how one machine runs.
_SHAPING = (
    "datasets", "methods", "set", "train_per_class", "test_images", "auxiliary", "runs", "classes", "profile",
    "threads", "seed",
)  # fmt: skip


class FileParser(Parser):
    """A parser that takes ``@FILE`` in place of arguments: shell words on any number of lines, ``#`` for comments."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(fromfile_prefix_chars="@", **settings)

    def convert_arg_line_to_args(self, line: str) -> list[str]:
        try:
            return shlex.split(line, comments=True)
        except ValueError as error:
            self.error(f"@FILE: cannot read the line {line.strip()!r} ({error})")

    def parse_args(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:  # type: ignore[override]
        for word in sys.argv[1:] if arguments is None else arguments:
            if word.startswith("@"):
                try:
                    open(word[1:], "rb").close()
                except OSError as error:
                    self.error(f"@FILE: cannot read {word[1:]!r} ({error.strerror}); accepted is a file of arguments")
        try:
            return super().parse_args(arguments)
        except UnicodeDecodeError:
            self.error("@FILE: the file is not text in UTF-8")
        except RecursionError:
            self.error("@FILE: the file names itself")


hours = number("finite numbers above 0", lambda value: 0 < value < math.inf)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Give a command the option ``--version``."""
    parser.add_argument("--version", action="version", version=f"corel {provenance.package_version()}")


def table1_parser() -> FileParser:
    """Make the parser of ``bench.table1``."""
    parser = FileParser(
        prog=f"python -m {PROGRAM}",
        description="Compute one-vs-all AUCs under the protocol of the paper's §5.2 and print them as a table. "
        "Finished cells are kept in OUT/cells.sqlite and never run again.",
        epilog="@FILE stands for the arguments in a file: python -m bench.table1 @results/NAME/command repeats a "
        "published table.",
    )
    add = parser.add_argument
    add("--datasets", nargs="+", default=["digits"], metavar="NAME",
        help="any of digits, cifar10, cifar20, cifar100, tiny-imagenet, imagenet, folder:PATH (default: digits)",
    )  # fmt: skip
    add("--methods", nargs="+", metavar="NAME",
        help="names, sklearn:NAME[@ENCODER], pyod:NAME[@ENCODER], FILE.py:CLASS (default: all available)")  # fmt: skip
    add("--set", action="append", default=[], metavar="METHOD.SETTING=VALUE",
        help="change a setting, as often as wanted: several values of one setting give a row each, several settings "
        "of one method combine")  # fmt: skip
    add("--train-per-class", nargs="+", type=train_per_class, default=[120], metavar="M",
        help="training images per class: numbers, or all (default: 120)")  # fmt: skip
    add("--test-images", type=positive_int, metavar="N",
        help="score N test images alone, drawn by class, the same for every method (default: all)")  # fmt: skip
    add("--auxiliary", nargs="+", metavar="NAME",
        help="datasets whose unlabelled training images the shared representation learns from, a row each (default: "
        "the paper's choice for each dataset; digits and folders use their own)")  # fmt: skip
    add("--runs", type=run_count, default=5, help="draws of M images per class (default: 5)")
    add("--classes", nargs="+", metavar="CLASS",
        help="the classes to run, each once: names, or numbers from 0 where no class has such a name (default: all)",
    )  # fmt: skip
    add("--profile", default="quick", help="quick or paper (default: quick)")
    add("--list", action="store_true", help="list methods with their settings, and datasets, and run nothing")
    add("--dry-run", action="store_true", help="say what would run and about how long it would take, and run nothing")
    add("--from", nargs="+", dest="published", default=[], metavar="DIR",
        help="take the finished cells of published tables (results/NAME) or of other runs as finished")  # fmt: skip
    add("--retry-failed", action="store_true", help="try cells again that failed before")
    add("--limit-hours", type=hours, metavar="H", help="start no new cells after H hours")
    add("--data-root", default="data", metavar="DIR", help="folder of the datasets (default: data)")
    add("--download", action="store_true", help="fetch CIFAR files that are not there")
    add("--device", type=torch_device, default="auto", help="auto, cpu or cuda (default: auto)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=positive_int, metavar="N",
        help="processes that run cells; 1: this process alone (default: cores / threads, 1 on a GPU)")  # fmt: skip
    where.add_argument("--scheduler", metavar="ADDRESS",
        help="run cells on the Dask cluster at ADDRESS; it must see OUT and the data")  # fmt: skip
    add("--threads", type=thread_count, metavar="N",
        help="CPU threads of a cell; results may differ in the last digits with another number "
        "(default: 1 in the quick profile, every core in the paper's)")  # fmt: skip
    add("--seed", type=whole_number, default=0, help="base seed of every draw and training (default: 0)")
    add("--out", default="runs", metavar="DIR", help="folder for the results (default: runs)")
    add_version(parser)
    return parser


def portable_command(options: argparse.Namespace) -> str:
    """The command line of ``bench.table1`` that gives the same numbers on any machine."""
    return recorded_command([PROGRAM], options, table1_parser().parse_args([]), _SHAPING)


def recorded_command(
    first: Sequence[str], options: argparse.Namespace, defaults: argparse.Namespace, shaping: Sequence[str]
) -> str:
    """The command line with those of the options in ``shaping`` that differ from ``defaults``.

    ``first`` is the program and its positional arguments. An option whose values are a list is given once with all of
    them, but ``--set`` once for each.
    """
    words = ["python", "-m", *first]
    for name in shaping:
        value = getattr(options, name)
        if value != getattr(defaults, name):
            for group in value if name == "set" else [value]:
                words += [f"--{name.replace('_', '-')}", *map(str, group if isinstance(group, list) else [group])]
    return shlex.join(words)


def command_file(command: str, place: str) -> str:
    """The content of the file that repeats ``command`` as ``python -m bench.table1 @place``, an option a line."""
    lines = [[f"# Repeat it with: python -m {PROGRAM} @{place}"]]
    try:
        words = shlex.split(command)[3:]
    except ValueError as error:
        raise ValueError(f"command: cannot read {command!r} as words of a shell ({error})") from None
    for word in words:
        if word.startswith("--"):
            lines.append([word])
        else:
            lines[-1].append(shlex.quote(word))
    return "\n".join(" ".join(line) for line in lines) + "\n"
