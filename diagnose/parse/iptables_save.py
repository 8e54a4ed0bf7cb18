"""The text of iptables-save, of either backend: the rules of each chain in order (iptables-save(8))."""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.model.rule import iptables_arguments, string_is_open


def rules(text: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """The rules by table and chain, each as its tool prints it, without `-A CHAIN`.

    ValueError when a line is none of iptables-save: half a listing must not read as the whole.
    """
    found: dict[tuple[str, str], list[str]] = {}
    table: str | None = None
    for line in _lines(text):
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":") and table is not None:
            chain = line[1:].partition(" ")[0]
            if (table, chain) in found:
                raise ValueError(f"chain {chain!r} is listed twice")
            found[table, chain] = []
        elif line.startswith("-A ") and table is not None:
            chain, _, rule = line[3:].partition(" ")
            if (table, chain) not in found:
                raise ValueError(f"a rule of the unknown chain {chain!r}")
            found[table, chain].append(rule.rstrip(" "))  # before 1.8.7 one stands behind a rule without a target
        elif line.strip() == "COMMIT":
            table = None
        elif line and not line.startswith("#"):
            raise ValueError(f"not a line of iptables-save: {line[:60]!r}")
    if table is not None:
        raise ValueError(f"the listing of table {table} has no end")
    return {where: tuple(rules) for where, rules in found.items()}


def _lines(text: str) -> Iterator[str]:
    """The lines, where a string with line ends (a comment) ends none."""
    whole = ""
    for line in text.split("\n"):
        whole = f"{whole}\n{line}" if whole else line
        if whole.startswith("-A ") and string_is_open(whole):
            continue
        yield whole
        whole = ""
    if whole:
        raise ValueError("a string has no end")


def tells(rule: str, comment: str | None) -> bool:
    """Whether the text has the comment that the kernel has for the rule: else it is another's."""
    try:
        parts = iptables_arguments(rule)
    except ValueError:
        return False
    told = next((parts[at + 1] for at in range(len(parts) - 1) if parts[at] == "--comment"), None)
    return told == comment
