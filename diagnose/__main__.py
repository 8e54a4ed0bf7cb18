"""The entry point, light enough that Ctrl-C while the parts are still loading ends without a traceback."""

import signal


def main() -> None:
    """Loads and runs the commands."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from diagnose.cli import main as commands

    commands()


if __name__ == "__main__":
    main()
