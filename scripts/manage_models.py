"""Look after the model cache; what can be asked of it stands in `manage_options.py`."""

from __future__ import annotations

import gc
import os.path
import sys

HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - pathlib takes longer than all of --help
sys.path.insert(0, os.path.dirname(HERE))  # noqa: PTH120 - so that it runs from any folder

from scripts.manage_options import parser  # Python keeps what it has compiled of a module, not of a script


def main(argv: list[str] | None = None, *, manager=None) -> int:
    """Run one command and return its exit code. `manager`: another cache than the product's."""
    words = sys.argv[1:] if argv is None else argv
    try:
        args = parser(*words[:1]).parse_args(words)
    except SystemExit as done:  # argparse has printed help or the mistake
        return int(done.code or 0)
    from scripts import manage_commands

    return manage_commands.run(args, manager)


if __name__ == "__main__":
    gc.set_threshold(100_000)  # importing and reading records leaves little garbage: a twentieth of `info`
    code = main()
    gc.freeze()  # nor does the collector walk everything once more at the end: a tenth
    sys.exit(code)
