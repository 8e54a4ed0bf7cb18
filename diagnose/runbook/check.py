"""What the words of a runbook mean: codes, checks, placeholders and steps that do not exist, steps that come again."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from msgspec import Struct

from diagnose.parse.origin import BadOriginError, parse_origin
from diagnose.parse.target import BadTargetError, parse_target
from diagnose.parse.yaml_tree import Place
from diagnose.runbook.model import ENDS, AskStep, Branch, Choice, Runbook, RunStep, Template, leads_to
from diagnose.runbook.nodes import MOST_PROBLEMS, Problem
from diagnose.runbook.parse import Parsed, Path, near, parse_runbook
from diagnose.runbook.template import OF_REPORT

_START = Place(1, 0)


class Catalogue(Struct, frozen=True):
    """What this version of netdiag knows."""

    codes: tuple[str, ...]
    checks: tuple[str, ...]


def checked(data: bytes, catalogue: Catalogue) -> tuple[Runbook | None, tuple[Problem, ...]]:
    """The runbook, or everything that is wrong with it in the order of the file. Never raises."""
    parsed = parse_runbook(data)
    if parsed.runbook is None:
        return None, parsed.problems
    found = _Check(parsed, parsed.runbook, catalogue).problems()
    problems = tuple(sorted({*parsed.problems, *found}))[:MOST_PROBLEMS]
    return (None if problems else parsed.runbook), problems


class _Check:
    """One runbook against the catalogue."""

    def __init__(self, parsed: Parsed, runbook: Runbook, catalogue: Catalogue) -> None:
        self.parsed = parsed
        self.runbook = runbook
        self.catalogue = catalogue
        self.ids = tuple(step.id for step in runbook.steps if step.id)

    def at(self, path: Path) -> Place:
        """Where it stands in the file."""
        return self.parsed.places.get(path, _START)

    def problems(self) -> Iterator[Problem]:
        """All of them, in no order."""
        inputs = tuple(self.runbook.inputs)
        for number, step in enumerate(self.runbook.steps):
            path: Path = ("steps", number)
            if isinstance(step, AskStep):
                yield from self._placeholders(step.ask, (*path, "ask"), inputs, "a question")
                for choice in step.choices:
                    yield from self._way(choice, (*path, "choices", choice.name))
            else:
                yield from self._run_step(step, path)
        if self.runbook.escalate.say is not None:
            allowed = (*inputs, *OF_REPORT)
            yield from self._placeholders(self.runbook.escalate.say, ("escalate", "say"), allowed, "say")
        yield from self._twice()
        if self.ids and len(set(self.ids)) == len(self.runbook.steps):
            yield from self._ways_back()
            yield from self._unreached()

    def _run_step(self, step: RunStep, path: Path) -> Iterator[Problem]:
        inputs = tuple(self.runbook.inputs)
        yield from self._placeholders(step.target, (*path, "run"), inputs, "a target")
        yield from self._target(step, (*path, "run"))
        yield from self._options(step, (*path, "with"))
        ended = False
        for number, branch in enumerate(step.branches):
            here = (*path, "branches", number)
            if ended:
                yield Problem(self.at(here), "this branch is never taken; otherwise: true stands before it")
            ended = ended or branch.when is None
            yield from self._condition(branch, (*here, "when"))
            yield from self._way(branch, here)

    def _way(self, way: Branch | Choice, path: Path) -> Iterator[Problem]:
        if way.then and way.then not in (*self.ids, *ENDS):
            known = (*self.ids, *ENDS)
            yield Problem(
                self.at((*path, "then")),
                f"no step is called {way.then!r}{near(way.then, known)}; expected a step ({', '.join(self.ids)}) "
                f"or an end ({', '.join(ENDS)})",
            )
        if way.say is not None:
            allowed = (*self.runbook.inputs, *OF_REPORT)
            yield from self._placeholders(way.say, (*path, "say"), allowed, "say")

    def _placeholders(self, template: Template, path: Path, allowed: tuple[str, ...], where: str) -> Iterator[Problem]:
        slots = [part.name for part in template.parts if not isinstance(part, str)]
        for number, name in enumerate(slots):
            if name in allowed:
                continue
            wrong = "does not belong here" if name in OF_REPORT else "is no placeholder"
            what = f"{{{name}}} {wrong}"
            known = ", ".join(f"{{{one}}}" for one in allowed)
            known = f"{where} may have {known}" if allowed else f"{where} may have none: there are no inputs"
            yield Problem(self.at((*path, number)), f"{what}{near(name, allowed)}; {known}")

    def _target(self, step: RunStep, path: Path) -> Iterator[Problem]:
        if step.target.names or not step.target.parts:
            return
        try:
            parse_target(str(step.target))
        except BadTargetError as error:
            yield Problem(self.at(path), str(error))

    def _options(self, step: RunStep, path: Path) -> Iterator[Problem]:
        options = step.options
        if options.origin is not None:
            yield from self._placeholders(options.origin, (*path, "from"), tuple(self.runbook.inputs), "from")
            yield from self._origin(options.origin, (*path, "from"))
        for key, names in (("check", options.check), ("skip", options.skip)):
            for number, name in enumerate(names):
                if name not in self.catalogue.checks:
                    yield Problem(self.at((*path, key, number)), self._no_check(name))
        for number, name in enumerate(options.skip):
            if name in options.check:
                yield Problem(self.at((*path, "skip", number)), f"{name} is in check and in skip; leave it out of one")
        if set(self.catalogue.checks) <= set(options.skip):
            yield Problem(self.at((*path, "skip")), "skip leaves no check over; leave one out")
        if options.bind and options.trace:
            yield Problem(self.at((*path, "trace")), "trace follows a packet, and bind sends none; leave one out")

    def _origin(self, origin: Template, path: Path) -> Iterator[Problem]:
        """As far as it is known before the inputs are: its kind stands before the first placeholder."""
        try:
            parse_origin("".join(part if isinstance(part, str) else "1" for part in origin.parts))
        except BadOriginError as error:
            if not origin.names or isinstance(origin.parts[0], str):
                yield Problem(self.at(path), str(error))

    def _condition(self, branch: Branch, path: Path) -> Iterator[Problem]:
        if branch.when is None:
            return
        for key, globs in (("code", branch.when.code), ("finding", branch.when.finding)):
            for number, glob in enumerate(globs):
                if not any(fnmatchcase(code, glob) for code in self.catalogue.codes):
                    yield Problem(
                        self.at((*path, key, number)),
                        f"no cause has a code like {glob!r}{near(glob, self.catalogue.codes)}; "
                        "expected a code or a pattern such as refused/*, netdiag checks lists the codes",
                    )
        for name, _ in branch.when.check:
            if name not in self.catalogue.checks:
                yield Problem(self.at((*path, "check", name)), self._no_check(name))

    def _no_check(self, name: str) -> str:
        known = self.catalogue.checks
        return f"no check is called {name!r}{near(name, known)}; expected one of {', '.join(known)}"

    def _twice(self) -> Iterator[Problem]:
        seen: set[str] = set()
        for number, step in enumerate(self.runbook.steps):
            if step.id and step.id in seen:
                yield Problem(
                    self.at(("steps", number, "id")), f"another step has the id {step.id!r}; every step has its own"
                )
            seen.add(step.id)

    def _unreached(self) -> Iterator[Problem]:
        """Steps that no way leads to; not known where a way could not be read."""
        if not self.parsed.whole or not all(all(leads_to(step)) and leads_to(step) for step in self.runbook.steps):
            return
        first = self.ids[0]
        reachable = self._reachable()
        for number, name in enumerate(self.ids):
            if name not in reachable:
                yield Problem(
                    self.at(("steps", number, "id")),
                    f"no way from the first step ({first}) leads to the step {name!r}; expected a then: {name}",
                )

    def _reachable(self) -> set[str]:
        found: set[str] = set()
        waiting = list(self.ids[:1])
        while waiting:
            step = self.runbook.step(waiting.pop())
            if step is not None and step.id not in found:
                found.add(step.id)
                waiting += leads_to(step)
        return found

    def _ways_back(self) -> Iterator[Problem]:
        """By depth, without recursion: a way to a step that is still open is a loop."""
        done: set[str] = set()
        for name in self.ids:
            if name in done:
                continue
            open_: dict[str, Iterator[tuple[Path, str]]] = {name: self._ways(name)}
            while open_:
                current = next(reversed(open_))
                place, then = next(open_[current], (None, ""))
                if place is None:
                    done.add(current)
                    del open_[current]
                elif then in open_:
                    way = " -> ".join((*list(open_)[list(open_).index(then) :], then))
                    yield Problem(self.at(place), f"this leads back to the step {then!r} ({way}); no step comes twice")
                elif then in self.ids and then not in done:
                    open_[then] = self._ways(then)

    def _ways(self, name: str) -> Iterator[tuple[Path, str]]:
        number = self.ids.index(name)
        step = self.runbook.steps[number]
        if isinstance(step, RunStep):
            for at, branch in enumerate(step.branches):
                yield ("steps", number, "branches", at, "then"), branch.then
        else:
            for choice in step.choices:
                yield ("steps", number, "choices", choice.name, "then"), choice.then
