"""The entry point, light enough that Ctrl-C while the parts are still loading ends without a traceback."""

import gc
import signal


def main() -> None:
    """Loads and runs the commands."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # what is loaded now stays: to look through it again and again takes a tenth of a quick run
    from diagnose.cli import main as commands

    gc.freeze()
    gc.enable()
    commands()


if __name__ == "__main__":
    main()
