"""`python -m diagnose`: the command, without the current folder among the places that modules are taken from."""

import os
import sys


def main() -> None:
    """Runs the command; netdiag_entry lies beside this package."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if __name__ == "__main__" and not sys.flags.safe_path and os.path.realpath(sys.path[0]) != os.path.realpath(root):
        del sys.path[0]  # `-m` has put the current folder there, where anybody's checks.py may lie
    from netdiag_entry import main as command

    command()


if __name__ == "__main__":
    main()
