"""What the container engines of this machine tell of the containers that have to do with a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import NamedTuple

from msgspec.structs import replace

from diagnose.model.container import Engine, EngineContainer
from diagnose.model.fact import PASSIVE, Fact, Known, Reason, Unknown
from diagnose.pace import patient
from diagnose.parse.engine import Listed, described, listed
from diagnose.probes.bounded import Asked
from diagnose.probes.engines import places
from diagnose.probes.engines.asking import Conversation, NoAnswerError, NotThereError
from diagnose.probes.engines.places import Place

__all__ = ["NoSuchContainerError", "Question", "find", "look"]

_SLACK = patient(0.1)
"""Seconds for an engine that stopped answering to be given up by its own clock."""
_QUIET, _EXPOSING = 64, 32
"""So many of those that do not run, and of those that only have the port inside, are asked for: newest first."""
_FEW, _PATIENCE = 20, 0.08
"""So many of these in any case, and the others for so many seconds."""


class NoSuchContainerError(LookupError):
    """No engine has it, or several do; the message is one line for the user."""


class Question(NamedTuple):
    """Which containers have to do with a target."""

    port: int
    addresses: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()

    def points_to(self, row: Listed) -> bool:
        """Whether it is that container: by its id, which may be cut short, name, address or published port."""
        by_id = any(row.id.startswith(one) for one in self.ids)
        return by_id or bool(self.names & row.names or self.addresses & row.addresses or self.port in row.published)

    def concerns(self, row: Listed, container: EngineContainer) -> bool:
        """Whether it is worth a reader's while, now that all is known of it."""
        ports = {port for one in container.published for port in (one.port, one.container_port)}
        return self.points_to(row) or self.port in row.exposed or self.port in ports


class _Told(NamedTuple):
    engine: str
    containers: tuple[tuple[Listed, EngineContainer], ...]
    unseen: int

    def about(self, place: Place, question: Question) -> Engine:
        found = [one for row, one in self.containers if question.concerns(row, one)]
        ordered = sorted(found, key=lambda one: one.container.id)
        return Engine(self.engine, place.shown, Known(tuple(ordered)), self.unseen)


def look(
    questions: Callable[[], Sequence[Question]], seconds: float, *, ask: bool = True
) -> dict[int, tuple[Engine, ...]]:
    """By port, what each engine says within so many seconds; those that are here, whether they can be asked or not.

    The questions are called for when the first engine has told what containers there are. `ask`: else none is asked.
    """
    if not ask:
        engines = tuple(Engine(one.engine, one.shown, PASSIVE) for one in places.look(connect=False))
        return {question.port: engines for question in questions()}
    asked = [(place, place.trouble or _asked(place, questions, seconds)) for place in places.look()]
    told = [(place, one if isinstance(one, Unknown) else one.fact()) for place, one in asked]
    return {question.port: tuple(_about(*one, question) for one in told) for question in questions()}


def find(name: str, seconds: float) -> Fact[EngineContainer]:
    """The container of that name, or whose id begins so. Raises NoSuchContainerError."""
    here = places.look()
    answers = {place: place.trouble or _one(place, name, seconds) for place in here}
    found = [one.value for one in answers.values() if isinstance(one, Known) and one.value]
    if len({one.container.id for one in found}) > 1:
        ids = ", ".join(f"{one.container.engine} {one.container.id[:12]}" for one in found)
        raise NoSuchContainerError(f"several containers are called {name!r}: {ids}")
    if found:
        return Known(found[0])
    for place, answer in answers.items():
        if isinstance(answer, Unknown):
            return replace(answer, detail=f"{place.engine} at {place.shown}: {answer.detail}")
    asked = " or ".join(place.shown for place in here)
    raise NoSuchContainerError(
        f"no container is called {name!r} at {asked}" if asked else "no container engine is here"
    )


def _one(place: Place, name: str, seconds: float) -> Fact[EngineContainer | None]:
    return Asked("the engine", lambda: _named(place, name, seconds), seconds + _SLACK).fact()


def _named(place: Place, name: str, seconds: float) -> Fact[EngineContainer | None]:
    try:
        conversation = Conversation(place.address, seconds)
        return Known(described(conversation.container(name), conversation.engine))
    except NotThereError:
        return Known(None)
    except NoAnswerError as error:
        return error.unknown
    except ValueError as error:
        return Unknown(Reason.UNPARSABLE, str(error))


def _asked(place: Place, questions: Callable[[], Sequence[Question]], seconds: float) -> Asked[_Told]:
    return Asked("the engine", lambda: _told(place, questions, seconds), seconds + _SLACK)


def _told(place: Place, questions: Callable[[], Sequence[Question]], seconds: float) -> Fact[_Told]:
    try:
        conversation = Conversation(place.address, seconds)
        rows = listed(conversation.containers())
        return Known(_described(conversation, rows, tuple(questions())))
    except NoAnswerError as error:
        return error.unknown
    except ValueError as error:
        return Unknown(Reason.UNPARSABLE, str(error))


def _described(conversation: Conversation, rows: Sequence[Listed], questions: Sequence[Question]) -> _Told:
    """As many as there is time for, the likely ones first."""
    likely = [row for row in rows if any(one.points_to(row) for one in questions)]
    others = [row for row in rows if not any(one.points_to(row) for one in questions)]
    quiet = [row for row in others if _hides_its_ports(row, conversation)]
    exposing = [
        row
        for row in others
        if not _hides_its_ports(row, conversation) and any(one.port in row.exposed for one in questions)
    ]
    found: list[tuple[Listed, EngineContainer]] = []
    wanted = [*likely, *quiet[:_QUIET], *exposing[:_EXPOSING]]
    unseen = len(likely) + len(quiet) + len(exposing) - len(wanted)
    patient_until = monotonic() + _PATIENCE
    for at, row in enumerate(wanted):
        if conversation.over or (at >= len(likely) + _FEW and monotonic() > patient_until):
            unseen += len(wanted) - at
            break
        try:
            found.append((row, described(conversation.container(row.id), conversation.engine)))
        except NotThereError:
            continue  # removed meanwhile
    return _Told(conversation.engine, tuple(found), unseen)


def _hides_its_ports(row: Listed, conversation: Conversation) -> bool:
    """Whether only its own description tells what it publishes: podman's list has the ports of all."""
    return conversation.engine != "podman" and not row.tells_its_ports


def _about(place: Place, told: Fact[_Told], question: Question) -> Engine:
    match told:
        case Known(value=found):
            return found.about(place, question)
        case Unknown() as unknown:
            return Engine(place.engine, place.shown, unknown)
