"""The benchmark: one protocol, many cells, and a command for each table."""

import sys

# So while ``python -m bench.COMMAND`` is being found: its libraries, which take seconds, come after this.
if sys.argv[:1] == ["-m"]:
    from bench.engine.command_line import leave_quietly_while_loading

    leave_quietly_while_loading()
