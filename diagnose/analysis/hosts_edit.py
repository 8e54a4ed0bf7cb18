"""Remedies that change the hosts file, or another file of lines, in place.

In place, by a shell's own redirection: `sed -i` and editors rename a new file over the old one, which fails with
EBUSY where an engine has mounted the file into a container. The file is the script's $0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from diagnose.model.finding import Command, Edit, Remedy, Risk
from diagnose.model.names import HostsEntry

_PLAIN = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%/ -]*")
"""What may stand as it is between single quotes, and in the replacement of a sed command that '|' delimits."""
_STRIP_MARK = 'kept=$(LC_ALL=C sed \'1s/^\\xEF\\xBB\\xBF//\' "$0") && printf \'%s\\n\' "$kept" > "$0"'
_PUT_MARK = 'kept=$(cat "$0") && printf \'\\357\\273\\277%s\\n\' "$kept" > "$0"'


def append(path: str, line: str, summary: str, *, create: bool = False, stays: bool = True) -> Remedy:
    """Adds a line; `create`: the file is missing, and must be readable for everybody afterwards."""
    readable = (Command(("chmod", "644", path), needs_root=True),) if create else ()
    safe = _may_be_typed(path, line)
    # the newline in front is for a file whose last line has none
    return Remedy(
        summary=summary,
        commands=(_shell(path, f"printf '\\n%s\\n' '{line}' >> \"$0\""), *readable) if safe else (),
        undo=(_shell(path, f'kept=$(grep -vxF \'{line}\' "$0"); printf \'%s\\n\' "$kept" > "$0"'),) if safe else (),
        survives_reboot=stays,
        edits=(Edit(path, None, line),),
    )


def put_a_file(path: str, line: str, kind: str, *, mounted: bool, stays: bool) -> Remedy:
    """Puts a file with this line where something else stands: it is moved aside, or unmounted where it is a mount."""
    noun = kind.split()[-1]
    if mounted:
        return Remedy(
            summary=f"Unmount the {noun}: the file below it counts again. What mounts it (a unit, a container's "
            "options) must name a file instead",
            commands=(Command(("umount", path), needs_root=True),) if _may_be_typed(path) else (),
            risk=Risk.DISRUPTIVE,
            survives_reboot=False,
        )
    aside, safe = f"{path}.moved-aside", _may_be_typed(path, line)
    return Remedy(
        summary=f"Move the {noun} aside and put a file with a line for localhost in its place",
        commands=(
            Command(("mv", "-T", "--backup=numbered", path, aside), needs_root=True),
            _shell(path, f"printf '%s\\n' '{line}' > \"$0\""),
            Command(("chmod", "644", path), needs_root=True),
        )
        if safe
        else (),
        undo=(Command(("mv", "-T", "--backup=numbered", aside, path), needs_root=True),) if safe else (),
        survives_reboot=stays,
        edits=(Edit(path, None, line),),
    )


def remove_byte_order_mark(path: str, first_line: str, *, stays: bool) -> Remedy:
    """Takes EF BB BF from the start of the file; harmless where it is gone already."""
    safe = _may_be_typed(path)
    return Remedy(
        summary="Take the mark out; the rest of the file stays as it is",
        commands=(_shell(path, _STRIP_MARK),) if safe else (),
        undo=(_shell(path, _PUT_MARK),) if safe else (),
        survives_reboot=stays,
        edits=(Edit(path, 1, first_line),),
    )


def take_name_home(path: str, host: str, lines: Sequence[HostsEntry], *, add: bool, stays: bool) -> Remedy:
    """Takes the name out of the lines that map it elsewhere, and adds a loopback line where none is there yet."""
    home = f"127.0.0.1 {host}"
    after = {entry.line: _without(entry, host) for entry in lines}
    before = {entry.line: f"{entry.address} {' '.join(entry.names)}" for entry in lines}
    safe = _may_be_typed(path, home, *before.values())
    added = f"'{home}' " if add else ""
    numbers = ", ".join(str(number) for number in after)
    return Remedy(
        summary=f"Take {host} out of line {numbers} of {path}" + (", and map it to 127.0.0.1" if add else ""),
        commands=(_shell(path, f'kept=$(sed \'{_replacing(after)}\' "$0") && printf \'%s\\n\' "$kept" {added}> "$0"'),)
        if safe
        else (),
        undo=(_shell(path, _undo_take_home(before, home if add else None)),) if safe else (),
        survives_reboot=stays,
        edits=(
            *(Edit(path, number, text) for number, text in after.items()),
            *((Edit(path, None, home),) if add else ()),
        ),
    )


def _undo_take_home(before: Mapping[int, str], added: str | None) -> str:
    drop = f" | grep -vxF '{added}'" if added else ""
    return f'kept=$(sed \'{_replacing(before)}\' "$0"{drop}) && printf \'%s\\n\' "$kept" > "$0"'


def _without(entry: HostsEntry, host: str) -> str:
    """The line without the name; behind a # where it had no other."""
    others = [name for name in entry.names if name.lower() != host.lower()]
    return f"{entry.address} {' '.join(others)}" if others else f"# {entry.address} {' '.join(entry.names)}"


def _replacing(lines: Mapping[int, str]) -> str:
    """A sed script that replaces whole lines by number."""
    return ";".join(f"{number}s|.*|{text}|" for number, text in sorted(lines.items()))


_LINE = r"'[A-Za-z0-9_:][A-Za-z0-9_.:%/ -]*'"
_LINES = r"'[0-9]+s\|\.\*\|(# )?[A-Za-z0-9_.:%/ -]*\|(;[0-9]+s\|\.\*\|(# )?[A-Za-z0-9_.:%/ -]*\|)*'"
_SCRIPTS = (
    rf"""printf '%s\\n' {_LINE} > "\$0\"""",
    rf"""printf '\\n%s\\n' {_LINE} >> "\$0\"""",
    rf"""kept=\$\(grep -vxF {_LINE} "\$0"\); printf '%s\\n' "\$kept" > "\$0\"""",
    rf"""kept=\$\(sed {_LINES} "\$0"( \| grep -vxF {_LINE})?\) && printf '%s\\n' "\$kept" ({_LINE} )?> "\$0\"""",
)
"""The forms of the scripts above: the texts in them stand between single quotes, and hold none."""


def is_own_script(script: str) -> bool:
    """Whether it is a script of this module, with nothing in it but plain texts in their places."""
    return script in (_STRIP_MARK, _PUT_MARK) or any(re.fullmatch(form, script) for form in _SCRIPTS)


def _may_be_typed(path: str, *texts: str) -> bool:
    """Whether a POSIX shell has this file, and the texts need no quoting beyond single quotes."""
    return path.startswith("/") and all(_PLAIN.fullmatch(text) for text in texts)


def _shell(path: str, script: str) -> Command:
    return Command(("sh", "-c", script, path), needs_root=True)
