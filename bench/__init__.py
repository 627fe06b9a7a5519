"""The benchmark: one protocol, many cells, and a command for each table."""

import sys

# While Python still locates the module of ``python -m bench.COMMAND``, sys.argv[0] is "-m". From here on Ctrl-C is
# answered in one line: the slow imports come after this.
if sys.argv[:1] == ["-m"]:
    from bench.engine.command_line import leave_quietly_while_loading

    leave_quietly_while_loading()
