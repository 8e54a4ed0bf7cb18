"""Command lines and texts of others with *** in the place of everything that is not recognised as harmless.

An allow-list: what a secret is called is never asked, because no list of such names is ever complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from msgspec import Struct

from diagnose.model.hidden import MASK
from diagnose.parse import harmless, programs, values
from diagnose.parse.harmless import anything

_ASSIGNMENT = f"{MASK}={MASK}"
"""What is shown of NAME=VALUE in front of a program."""
_SET = r"[A-Za-z_][A-Za-z0-9_]*="
_PROGRAM = r"[a-z]{1,8}[0-9]{0,2}(?:[._+-][a-z]{1,8}[0-9]{0,2}){0,3}(?:[.-][0-9]{1,2}){0,3}"
"""Names of programs are often no words: xfsdump, gvfsd-http, ssh-agent, gcc-12."""
_SHELLS = ("csh", "login", "su", "tcsh", "tmux")
_SUFFIXES = frozenset(("bin", "cjs", "js", "mjs", "php", "pl", "py", "pyc", "rb", "sh", "ts"))
_SHELL = (
    r"""(?s)[0-9]?[<>]{1,2}&?[0-9-]?|&&|\|\||;;|[;&|()]|(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s;&|()<>'"\\])+|['"\\]"""
)
_MOST_WORDS = 256
"""So many words of a command are looked at: more do not help to recognise it."""
_OPERATORS = frozenset(("&&", "||", ";", ";;", "|", "&", "("))
_PROSE = r"\"[^\"]*\"?|(?<![^\s(\[])'[^']*'|[^\s\"]+"
_EDGES = "()[]{},.;:!?`"
_PLAIN = r"[A-Za-z]+(?:['-][A-Za-z]+)*"
_QUOTES = r"['\"\\]"


def mask_command(argv: Sequence[str]) -> str:
    """A command line, joined by blanks, of which only what is harmless is shown.

    Done again to what it returns, split at the blanks, it changes nothing.
    """
    words = list(argv)
    while words and not words[-1]:
        words.pop()
    if not words:
        return ""
    # a title that the process gave itself, or a whole command in the place of the program's name
    words = [*words[0].split(), *words[1:]]
    if len(words) > _MOST_WORDS:
        words[_MOST_WORDS:] = [MASK]
    return " ".join(_Reader().read(words))


def mask_text(text: str) -> str:
    """A message of another program: its plain words, and addresses, ports and paths; no quotations, no assignments."""
    return re.sub(_PROSE, lambda found: _of_prose(found[0]), text)


def mask_path(text: str) -> str:
    """A path with *** in the place of each part that is not made of words."""
    return harmless.path(text)


def mask_program(name: str, executable: str | None) -> str:
    """The name of a program, which a process may have given itself: as it is if its file bears it, or by its words."""
    base = (executable or "").replace("\\", "/").rpartition("/")[2].removesuffix(" (deleted)")
    if name == base[: len(name)] or _is_program(name):
        return name
    return mask_command([name])


def _is_program(name: str) -> bool:
    return name in programs.ROWS or harmless.is_name(name) or bool(re.fullmatch(_PROGRAM, name))


class _Row(Struct, frozen=True):
    """What is harmless behind the name of one program."""

    commands: frozenset[str] = frozenset()
    options: dict[str, str] = {}
    operands: tuple[str, ...] = ()
    rest: str = ""


_UNKNOWN = _Row()
_ANY_PROGRAM = _Row(operands=("program",))


@lru_cache(maxsize=64)
def _row(name: str) -> _Row:
    name = _aliases().get(name, name)
    return _parsed(programs.ROWS.get(name, ""))


@lru_cache(maxsize=1)
def _aliases() -> dict[str, str]:
    return {
        other: name
        for name, others in programs.SAME.items()
        for other in (_pairs(others) if " " in name and " " in others else others.split())
    }


def _pairs(text: str) -> list[str]:
    words = text.split()
    return [f"{first} {second}" for first, second in zip(words[::2], words[1::2], strict=True)]


def _parsed(text: str) -> _Row:
    commands, options, operands, rest = [], {}, [], ""
    for item in text.split():
        if item.startswith("-"):
            name, _, kind = item.rpartition(":") if ":" in item else (item, "", "")
            options[name] = kind
        elif item.startswith("<"):
            kind = item.strip("<>*")
            rest = kind if item.endswith("*") else rest
            operands += [] if item.endswith("*") else [kind]
        else:
            commands.append(item)
    return _Row(frozenset(commands), options, tuple(operands), rest)


class _Reader:
    """Reads a command line from left to right, and knows what the next argument is to the program."""

    def __init__(self) -> None:
        self._row = _ANY_PROGRAM
        self._name = ""
        self._operands = 0
        self._commands = 0
        self._expected = ""
        """The kind of the value that the option before asked for."""
        self._unsure = False
        """The option before is not known: what follows may be its value."""
        self._title: frozenset[str] | None = None
        self._in_shell = False
        self._first = True

    def read(self, words: list[str]) -> Iterator[str]:
        """The words as they may be shown."""
        for place, word in enumerate(words):
            if self._expected == "shell":
                self._expected, self._row, self._in_shell = "", _ANY_PROGRAM, True
                yield from self._shell(" ".join(words[place:]))
                return
            yield self._word(word)

    def _shell(self, text: str) -> Iterator[str]:
        """The words of a command for a shell, where another program may follow."""
        words = re.findall(_SHELL, text)
        if len(words) > _MOST_WORDS:
            words[_MOST_WORDS:] = [MASK]
        redirected = False
        for word in words:
            if word in _OPERATORS:
                self._begin(_ANY_PROGRAM)
                yield word
            elif word[0] in "<>" or word[-1:] in "<>" or word == ")":
                redirected = word != ")" and word[-1] in "<>"
                yield word
            elif redirected:
                redirected = False
                yield anything(_unquoted(word)) or MASK
            elif self._expected == "shell":
                self._expected, self._row = "", _ANY_PROGRAM
                yield from self._shell(_unquoted(word))
            else:
                yield self._word(_unquoted(word) or MASK)

    def _begin(self, row: _Row, name: str = "") -> None:
        self._row, self._name = row, name
        self._operands = self._commands = 0
        self._expected, self._unsure, self._title = "", False, None

    def _word(self, word: str) -> str:
        first, self._first = self._first, False
        if first and word.startswith("-") and (_key(word[1:]) == "sh" or word[1:] in _SHELLS):
            return f"-{self._program(word[1:])}"  # a login shell
        if self._title is not None:
            return self._of_title(word)
        expected, self._expected = self._expected, ""
        if expected and (expected in _OPAQUE or not _is_option(word)):
            return self._shown(expected, word)
        if _is_option(word):
            return self._option(word)
        return self._operand(word)

    # ------ programs and operands

    def _program(self, word: str) -> str:
        if "=" in word and (word == _ASSIGNMENT or re.match(_SET, word)):
            self._operands -= 1  # the program is still to come
            return _ASSIGNMENT
        separated = word.replace("\\", "/") if harmless.is_rooted(word) else word
        folder, slash, base = separated.rpartition("/")
        name = base.removesuffix(":")
        shown = base if _is_program(name) else MASK
        key = _key(name)
        self._begin(_row(key), key)
        if base.endswith(":") and shown != MASK:
            self._title = frozenset(programs.TITLES.get(key, "").split())
        if not slash:
            return shown
        return f"{harmless.path(word[: len(folder)])}{word[len(folder)]}{shown}"

    def _operand(self, word: str) -> str:
        row = self._row
        if word in row.commands and self._operands == 0 and self._commands < 3 and not self._unsure:
            self._commands += 1
            longer = f"{self._name} {word}"
            if longer in programs.ROWS or longer in _aliases():
                done = self._commands
                self._begin(_row(longer), _aliases().get(longer, longer))
                self._commands = done
            return word
        kind = row.operands[self._operands] if self._operands < len(row.operands) else row.rest
        unsure, self._unsure = self._unsure, False
        self._operands += 1
        return anything(word) if unsure and kind != "hidden" else self._shown(kind, word)

    def _of_title(self, word: str) -> str:
        """A word of the title that a process gave itself (setproctitle)."""
        assert self._title is not None
        if word in self._title:
            return word
        if harmless.is_rooted(word):
            return self._program(word)
        return values.in_title(word)

    # ------ options

    def _option(self, word: str) -> str:
        self._unsure = False
        if word == "--":
            return word
        name, equals, value = word.partition("=")
        if name in self._row.options and not equals:
            self._expected = self._row.options[name]
            return word
        if equals and self._row.options.get(name):
            return f"{name}={self._shown(self._row.options[name], value)}"
        return self._long(name, equals, value) if word.startswith("--") else self._short(word)

    def _long(self, name: str, equals: str, value: str) -> str:
        words = name[2:]
        shown = name if harmless.is_option_name(words) else f"--{MASK}"
        kind = values.kind_of(words) if shown == name else ""
        if equals:
            return f"{shown}={value if value in values.SWITCHED or not value else self._shown(kind, value)}"
        self._expected = kind
        self._unsure = not kind and not values.is_flag(words)
        return shown

    def _short(self, word: str) -> str:
        attached = [name for name, kind in self._row.options.items() if kind and word.startswith(name)]
        if attached and not word.startswith("--"):
            name = max(attached, key=len)
            value = word[len(name) :]
            equals = "=" if value.startswith("=") else ""
            kind = self._row.options[name]
            kind = "hidden" if kind in ("shell", "modulerun") else kind
            return f"{name}{equals}{self._shown(kind, value[len(equals) :])}"
        if not (word[1].isascii() and word[1].isalpha()):
            return f"-{MASK}"
        self._unsure = len(word) == 2
        return word if len(word) == 2 else f"{word[:2]}{MASK}"

    # ------ values

    def _shown(self, kind: str, word: str) -> str:
        """A value of this kind."""
        match kind:
            case "program":
                return self._program(word)
            case "script" | "modulerun" | "jar":
                shown = _READ_AS[kind](word)
                key = _key(word.replace("\\", "/").rpartition("/")[2]) if kind != "jar" and shown != MASK else ""
                self._begin(_row(key), key)
                return shown
            case "code":
                self._begin(_UNKNOWN)
                return MASK
            case "hidden":
                return MASK
            case "directive" if self._in_shell:
                return MASK
        if not word or word == MASK:
            return word
        if len(word) > 400 or not word.isascii() or not word.isprintable():
            return MASK
        return values.KINDS[kind](word) if kind in values.KINDS else anything(word)


_READ_AS = {"script": values.script, "modulerun": values.module, "jar": values.path}
"""Kinds behind which the arguments of another program begin."""
_OPAQUE = frozenset(("hidden", "code"))
"""Kinds of which even a value that begins with a hyphen is one."""


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-")


def _unquoted(word: str) -> str:
    """A word of a shell without its quotes."""
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"" and word[0] not in word[1:-1]:
        return word[1:-1]
    return re.sub(_QUOTES, "", word) if re.search(_QUOTES, word) else word


def _key(name: str) -> str:
    """By which name a program, a script or a module has its row: python for python3.11."""
    bare = name.removesuffix(".exe")
    if bare in programs.ROWS or bare in _aliases():
        return _aliases().get(bare, bare)
    stem, dot, extension = bare.rpartition(".")
    bare = stem if dot and extension in _SUFFIXES else bare
    if bare not in programs.ROWS and bare not in _aliases():
        bare = bare.rstrip("0123456789.").rstrip("-_.") if bare[-1:].isdigit() else bare
    return _aliases().get(bare, bare)


# ------ prose


def _of_prose(word: str) -> str:
    if word[0] in "\"'" and len(word) > 1:
        inner = word[1:-1]
        return word if anything(inner) == inner else f"{word[0]}{MASK}{word[0]}"
    core = word.strip(_EDGES)
    start = word.find(core) if core else len(word)
    before, behind = word[:start], word[start + len(core) :]
    if word.startswith(("[", ":")) and harmless.is_endpoint(word.rstrip(".,;")):
        return word
    if not core or core == MASK or harmless.is_endpoint(core, single=False) or harmless.is_port(core):
        return word
    if re.fullmatch(_PLAIN, core) and all(map(harmless.is_word, re.split(r"['-]", core))):
        return word
    return f"{before}{anything(core)}{behind}"
