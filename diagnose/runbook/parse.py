"""Nodes -> Runbook: the shape of the file; what its words mean is for check.py."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from msgspec import Struct

from diagnose.model.report import CheckOutcome, Verdict
from diagnose.parse import yaml_tree
from diagnose.parse.yaml_tree import Node, Place, Scalar
from diagnose.runbook.model import (
    ENDS,
    SCHEMA,
    AskStep,
    Branch,
    Choice,
    Escalate,
    Input,
    Runbook,
    RunStep,
    Step,
    Template,
    When,
    With,
)
from diagnose.runbook.nodes import MOST_PROBLEMS, Document, Problem, Text, read_document
from diagnose.runbook.template import RESERVED, read_template

Path = tuple[str | int, ...]
"""Where in the runbook: ("steps", 0, "branches", 1, "then"); a placeholder by its number behind its text's path."""

NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
INPUT = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
STEP = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
LONGEST_NAME = 64
MOST_STEPS = 200
LONGEST_GLOB = 200
ATTACHABLE = ("bundle",)
CONFIDENCES = ("proven", "likely", "possible")
VERDICTS = tuple(one.value for one in Verdict)
OUTCOMES = tuple(one.value for one in CheckOutcome)
_TRUE = ("true", "True", "TRUE")
_FALSE = ("false", "False", "FALSE")
_NAMED = "lower-case letters, digits and single hyphens, for example database-on-localhost"

T = TypeVar("T")


class Parsed(Struct, frozen=True):
    """What could be read."""

    runbook: Runbook | None
    places: Mapping[Path, Place]
    problems: tuple[Problem, ...]
    whole: bool
    """Whether every step and every way between steps is in the runbook, right or wrong."""


def parse_runbook(data: bytes) -> Parsed:
    """Reads as much as can be read, and says of the rest what was expected. Never raises."""
    document = read_document(data)
    reader = _Reader(document)
    runbook = None if document.root is None else reader.runbook(document.root)
    return Parsed(runbook, reader.places, tuple(sorted(set(reader.problems)))[:MOST_PROBLEMS], reader.whole)


class _Fields:
    """The keys of one mapping."""

    def __init__(self, reader: _Reader, node: Node, path: Path, known: tuple[str, ...], what: str) -> None:
        self.reader = reader
        self.start = node.start
        self.path = path
        self.found: dict[str, tuple[Scalar, Node]] = {}
        if not isinstance(node, yaml_tree.Mapping):
            reader.wrong(node, f"{what} is a mapping with the keys {_listed(known)}, and this is {_kind(node)}")
            return
        for key, value in node.pairs:
            if key.value in known:
                self.found[key.value] = (key, value)
                reader.places[(*path, key.value)] = key.start
            else:
                reader.problem(
                    key.start, f"{what} has no key {key.value!r}{near(key.value, known)}; {_expected(known)}"
                )

    def node(self, name: str) -> Node | None:
        """The value of a key."""
        return self.found[name][1] if name in self.found else None

    def get(self, name: str, read: Callable[[Node, Path], T | None], default: T) -> T:
        """The value, read; the default where the key is missing or what stands there is wrong."""
        node = self.node(name)
        value = None if node is None else read(node, (*self.path, name))
        return default if value is None else value

    def need(self, *names: str, what: str) -> None:
        """A problem for each of these keys that is missing."""
        for name in names:
            if name not in self.found:
                self.reader.problem(self.start, f"{what} has no {name}; {name}: is required")


class _Reader:
    """Reads one document."""

    def __init__(self, document: Document) -> None:
        self.text: Text = document.text
        self.problems = list(document.problems)
        self.places: dict[Path, Place] = {}
        self.whole = not document.problems

    def problem(self, place: Place, text: str) -> None:
        """Notes it."""
        self.problems.append(Problem(place, text))

    def wrong(self, node: Node, text: str) -> None:
        """Notes it at a node."""
        self.problem(node.start, text)

    # the parts of a runbook

    def runbook(self, root: Node) -> Runbook | None:
        """None: there is nothing of one."""
        known = ("schema", "name", "title", "when", "inputs", "steps", "escalate")
        fields = _Fields(self, root, (), known, "a runbook")
        if not isinstance(root, yaml_tree.Mapping):
            return None
        fields.need("schema", "name", "title", "steps", what="the runbook")
        fields.get("schema", self._schema, "")
        return Runbook(
            name=fields.get("name", self._name, ""),
            title=fields.get("title", self._line, ""),
            when=fields.get("when", self.prose, ""),
            inputs=fields.get("inputs", self._inputs, {}),
            steps=fields.get("steps", self._steps, ()),
            escalate=fields.get("escalate", self._escalate, Escalate()),
        )

    def _schema(self, node: Node, path: Path) -> str | None:
        text = self.prose(node, path)
        if text is not None and text != SCHEMA:
            self.wrong(node, f"the schema is {text!r}; this version reads {SCHEMA}")
        return text

    def _name(self, node: Node, path: Path) -> str | None:
        text = self.prose(node, path)
        if text is not None and not (NAME.fullmatch(text) and len(text) <= LONGEST_NAME):
            self.wrong(node, f"{text!r} is no name of a runbook; it has {_NAMED}")
        return text

    def _inputs(self, node: Node, path: Path) -> dict[str, Input] | None:
        if not isinstance(node, yaml_tree.Mapping):
            self.wrong(node, f"inputs is a mapping from names to {{ask: ..., default: ...}}, and this is {_kind(node)}")
            return None
        found: dict[str, Input] = {}
        for key, value in node.pairs:
            name = key.value
            self.places[(*path, name)] = key.start
            if not INPUT.fullmatch(name) or len(name) > LONGEST_NAME:
                self.problem(
                    key.start,
                    f"{name!r} is no name of an input; it has a-z, 0-9, - and _, a letter first",
                )
            elif name in RESERVED:
                self.problem(key.start, f"{name!r} is what a diagnosis fills in; give the input another name")
            fields = _Fields(self, value, (*path, name), ("ask", "default"), f"the input {name}")
            if isinstance(value, yaml_tree.Mapping):
                fields.need("ask", what=f"the input {name}")
            found[name] = Input(fields.get("ask", self._line, ""), fields.get("default", self._datum, None))
        return found

    def _steps(self, node: Node, path: Path) -> tuple[Step, ...] | None:
        items = self._list(node, "steps", "a step")
        if len(items) > MOST_STEPS:
            self.wrong(node, f"there are {len(items)} steps; a runbook has no more than {MOST_STEPS}")
            items = items[:MOST_STEPS]
        found: list[Step] = []
        for item in items:
            step = self._step(item, (*path, len(found)))
            self.whole &= step is not None
            found += [] if step is None else [step]
        return tuple(found)

    def _step(self, node: Node, path: Path) -> Step | None:
        """None: it is neither a diagnosis nor a question."""
        known = ("id", "run", "with", "branches", "ask", "choices")
        fields = _Fields(self, node, path, known, "a step")
        if not isinstance(node, yaml_tree.Mapping):
            return None
        fields.need("id", what="the step")
        name = fields.get("id", self._step_id, "")
        self.places.setdefault((*path, "id"), node.start)
        asks, runs = "ask" in fields.found, "run" in fields.found
        if asks == runs:
            both = "has both run and ask" if asks else "has neither run nor ask"
            self.wrong(node, f"the step {name or '?'} {both}; expected run: with branches, or ask: with choices")
            return None
        for key in ("with", "branches") if asks else ("choices",):
            if key in fields.found:
                stands = "ask" if asks else "run"
                fit = "choices" if asks else "with and branches"
                self.problem(fields.found[key][0].start, f"{key} does not belong to {stands}; expected {fit}")
        if asks:
            fields.need("choices", what=f"the step {name}")
            return AskStep(
                name, fields.get("ask", self._template, Template()), fields.get("choices", self._choices, ())
            )
        fields.need("branches", what=f"the step {name}")
        return RunStep(
            name,
            fields.get("run", self._template, Template()),
            fields.get("with", self._options, With()),
            fields.get("branches", self._branches, ()),
        )

    def _step_id(self, node: Node, path: Path) -> str | None:
        text = self.prose(node, path)
        if text is None:
            return None
        self.places[path] = node.start
        if not STEP.fullmatch(text) or len(text) > LONGEST_NAME:
            self.wrong(node, f"{text!r} is no id of a step; it has lower-case letters, digits, - and _")
        elif text in ENDS:
            self.wrong(node, f"{text!r} is an end and no id of a step; the ends are {_listed(ENDS)}")
        return text

    def _options(self, node: Node, path: Path) -> With | None:
        known = ("bind", "from", "check", "skip", "timeout", "trace")
        fields = _Fields(self, node, path, known, "with")
        return With(
            bind=fields.get("bind", self._flag, False),
            origin=fields.get("from", self._template, None),
            check=fields.get("check", self._texts, ()),
            skip=fields.get("skip", self._texts, ()),
            timeout=fields.get("timeout", self._timeout, None),
            trace=fields.get("trace", self._flag, False),
        )

    def _branches(self, node: Node, path: Path) -> tuple[Branch, ...] | None:
        items = self._list(node, "branches", "a branch")
        found: list[Branch] = []
        for item in items:
            branch = self._branch(item, (*path, len(found)))
            self.whole &= branch is not None and bool(branch.then)
            found += [] if branch is None else [branch]
        return tuple(found)

    def _branch(self, node: Node, path: Path) -> Branch | None:
        fields = _Fields(self, node, path, ("when", "otherwise", "say", "then"), "a branch")
        if not isinstance(node, yaml_tree.Mapping):
            return None
        fields.need("then", what="the branch")
        conditional, rest = "when" in fields.found, "otherwise" in fields.found
        if conditional == rest:
            both = "has both when and otherwise" if rest else "has neither when nor otherwise"
            self.wrong(node, f"the branch {both}; it has one: when: with conditions, or otherwise: true")
        if rest and fields.get("otherwise", self._flag, True) is False:
            self.wrong(fields.found["otherwise"][1], "otherwise is false; it is always true, or leave the branch out")
        self.places[path] = node.start
        when = fields.get("when", self._when, When()) if conditional else None
        return Branch(when, fields.get("then", self._then, ""), fields.get("say", self._template, None))

    def _when(self, node: Node, path: Path) -> When | None:
        known = ("code", "finding", "verdict", "confidence", "check", "not_checked")
        fields = _Fields(self, node, path, known, "when")
        if isinstance(node, yaml_tree.Mapping) and not node.pairs:
            self.wrong(node, f"when is empty; {_expected(known)}; a branch for all the rest has otherwise: true")
        return When(
            code=fields.get("code", self._globs, ()),
            finding=fields.get("finding", self._globs, ()),
            verdict=fields.get("verdict", self._one_of("verdict", VERDICTS), ()),
            confidence=fields.get("confidence", self._one_of("confidence", CONFIDENCES), ()),
            check=fields.get("check", self._outcomes, ()),
            not_checked=fields.get("not_checked", self._globs, ()),
        )

    def _outcomes(self, node: Node, path: Path) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
        if not isinstance(node, yaml_tree.Mapping) or not node.pairs:
            self.wrong(
                node,
                f"check is a mapping such as {{firewall: [skipped]}}, and this is {_kind(node)}",
            )
            return None
        found: list[tuple[str, tuple[str, ...]]] = []
        for key, value in node.pairs:
            self.places[(*path, key.value)] = key.start
            outcomes = self._one_of("outcome", OUTCOMES)(value, (*path, key.value, "outcomes"))
            found.append((key.value, outcomes or ()))
        return tuple(found)

    def _choices(self, node: Node, path: Path) -> tuple[Choice, ...] | None:
        if not isinstance(node, yaml_tree.Mapping) or not node.pairs:
            self.wrong(
                node,
                f'choices is a mapping such as {{"yes": inside}}, and this is {_kind(node)}',
            )
            return None
        return tuple(self._choice(key, value, (*path, key.value)) for key, value in node.pairs)

    def _choice(self, key: Scalar, node: Node, path: Path) -> Choice:
        if not key.value.strip() or not key.value.isprintable():
            self.problem(key.start, f"{key.value!r} is no answer; a short text that can be typed was expected")
        if not isinstance(node, yaml_tree.Mapping):
            return Choice(key.value, self._then(node, (*path, "then")) or "")
        fields = _Fields(self, node, path, ("then", "say"), "a choice")
        fields.need("then", what=f"the choice {key.value}")
        return Choice(key.value, fields.get("then", self._then, ""), fields.get("say", self._template, None))

    def _escalate(self, node: Node, path: Path) -> Escalate | None:
        fields = _Fields(self, node, path, ("to", "say", "attach"), "escalate")
        return Escalate(
            fields.get("to", self._line, None),
            fields.get("say", self._template, None),
            fields.get("attach", self._one_of("attachment", ATTACHABLE), ()),
        )

    # values

    def prose(self, node: Node, path: Path) -> str | None:
        """A text; None, and a problem, where there is none."""
        if isinstance(node, Scalar) and not node.null and node.value.strip():
            return node.value
        self.wrong(node, f"a text was expected for {path[-1]}, and this is {_kind(node)}")
        return None

    def _line(self, node: Node, path: Path) -> str | None:
        """A text of one line."""
        text = self.prose(node, path)
        if text is not None and "\n" in text.rstrip("\n"):
            self.wrong(node, f"{path[-1]} has several lines; one line was expected")
        return None if text is None else text.strip()

    def _datum(self, node: Node, path: Path) -> str | None:
        """A value that may be empty where it is quoted."""
        if isinstance(node, Scalar) and not node.null:
            return node.value
        self.wrong(node, f"a value was expected for {path[-1]}, and this is {_kind(node)}")
        return None

    def _template(self, node: Node, path: Path) -> Template | None:
        text = self.prose(node, path)
        if text is None or not isinstance(node, Scalar):
            return None
        template, slots, braces = read_template(text.rstrip())  # a block of YAML ends in a line break
        for number, (name, offset) in enumerate(slots):
            written = f"{{{name}}}"
            self.places[(*path, number)] = self.text.find(node, written, text[:offset].count(written))
        for brace in braces:
            written = text[brace.offset]
            place = self.text.find(node, written, text[: brace.offset].count(written))
            self.problem(place, f"a {written} that belongs to no placeholder; write {written * 2} for the character")
        self.places[path] = node.start
        return template

    def _then(self, node: Node, path: Path) -> str | None:
        text = self.prose(node, path)
        self.places[path] = node.start
        return text

    def _flag(self, node: Node, path: Path) -> bool | None:
        value = node.value if isinstance(node, Scalar) and not node.style else ""
        if value in (*_TRUE, *_FALSE):
            return value in _TRUE
        self.wrong(node, f"{path[-1]} is true or false, and this is {_kind(node)}")
        return None

    def _timeout(self, node: Node, path: Path) -> float | None:
        try:
            seconds = float(node.value) if isinstance(node, Scalar) and not node.style else -1.0
        except ValueError:
            seconds = -1.0
        if 0.01 <= seconds <= 3600:
            return seconds
        self.wrong(node, f"{path[-1]} is a number of seconds between 0.01 and 3600, and this is {_kind(node)}")
        return None

    def _texts(self, node: Node, path: Path) -> tuple[str, ...] | None:
        """A value or a list of them."""
        items = node.items if isinstance(node, yaml_tree.Sequence) else (node,)
        if not items:
            self.wrong(node, f"{path[-1]} is an empty list; a value or a list of values was expected")
        found: list[str] = []
        for item in items:
            text = self.prose(item, path)
            if text is not None:
                self.places[(*path, len(found))] = item.start
                found.append(text)
        return tuple(found) or None

    def _globs(self, node: Node, path: Path) -> tuple[str, ...] | None:
        found = self._texts(node, path)
        if found and any(len(one) > LONGEST_GLOB for one in found):
            self.wrong(node, f"{path[-1]} has a pattern of more than {LONGEST_GLOB} characters")
            return None
        return found

    def _one_of(self, what: str, known: tuple[str, ...]) -> Callable[[Node, Path], tuple[str, ...] | None]:
        def read(node: Node, path: Path) -> tuple[str, ...] | None:
            found = self._texts(node, path)
            for number, one in enumerate(found or ()):
                if one not in known:
                    place = self.places[(*path, number)]
                    self.problem(place, f"{one!r} is no {what}{near(one, known)}; expected one of {_listed(known)}")
            return found

        return read

    def _list(self, node: Node, what: str, of: str) -> tuple[Node, ...]:
        if not isinstance(node, yaml_tree.Sequence):
            self.wrong(node, f"{what} is a list, each item {of}, and this is {_kind(node)}")
            return ()
        if not node.items:
            self.wrong(node, f"{what} is an empty list; at least one item, {of}, was expected")
        return node.items


def _kind(node: Node) -> str:
    match node:
        case Scalar() if node.null or not node.value.strip():
            return "empty"
        case Scalar():
            return repr(node.value if len(node.value) <= 60 else f"{node.value[:57]}...")
        case yaml_tree.Sequence():
            return "a list"
        case yaml_tree.Mapping():
            return "a mapping"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _expected(known: tuple[str, ...]) -> str:
    return f"expected {'one of ' if len(known) > 1 else ''}{_listed(known)}"


def near(wrong: str, known: Iterable[str]) -> str:
    """A known word that is much like this one, as a question."""
    near = difflib.get_close_matches(wrong[:LONGEST_GLOB], list(known), 1)
    return f", did you mean {near[0]}?" if near else ""
