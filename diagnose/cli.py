"""The commands; the only place that joins the parts."""


def main() -> None:
    """Entry point."""
