"""Compose projects: the one in whose terms a failure is told, and what is dialled for a target that names a service."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from diagnose.analysis.compose import labels_of
from diagnose.analysis.compose_target import everyone, located, seen_from_inside
from diagnose.collect.case import PROBE_SECONDS
from diagnose.model.compose import ComposeProject
from diagnose.model.container import ComposeService, Containers, Engine
from diagnose.model.fact import Fact, Known
from diagnose.model.target import Intent, Target
from diagnose.pace import patient
from diagnose.probes import compose, containers
from diagnose.probes.bounded import Asked
from diagnose.probes.connect import IS_LINUX

_ENGINE_SECONDS = patient(1.5, 8.0)


def with_addresses(targets: Sequence[Target], intent: Intent, *, ask: bool, inside: bool) -> tuple[Target, ...]:
    """The targets, those of services located. Raises NotLocatedError.

    `ask`: else no engine is asked anything. `inside`: --from looks from a network namespace of its own.
    """
    if inside or containers.inside():
        return tuple(map(seen_from_inside, targets))
    project = Asked("compose project", _project_here, PROBE_SECONDS)
    told = _engines(targets, ask=ask)
    here = project.fact()
    return tuple(located(target, intent, here, told.get(target.port, ())) for target in targets)


def _engines(targets: Sequence[Target], *, ask: bool) -> Mapping[int, tuple[Engine, ...]]:
    """By the port that was asked for, what the engines say of the services that were."""
    if not IS_LINUX:
        return {}
    from diagnose.probes import engines  # 0.1 s, for services only

    names: dict[int, set[str]] = {}
    for target in targets:
        if target.service:
            names.setdefault(target.service.port, set()).add(target.service.service)
    questions = tuple(engines.Question(port, names=frozenset(some)) for port, some in names.items())
    return engines.look(lambda: questions, _ENGINE_SECONDS, ask=ask)


class ProjectLook:
    """Under way from the moment that it is made: the project of the directory that we were called in."""

    def __init__(self) -> None:
        self._here = Asked("compose project", _project_here, PROBE_SECONDS)
        self._labelled: dict[tuple[ComposeService, ...], Fact[ComposeProject | None]] = {}

    def by_port(self, seen: Mapping[int, Fact[Containers]]) -> dict[int, Fact[ComposeProject | None]]:
        """For each port that project, or the one that the containers were made from which have to do with it."""
        return {port: self._of(found, port) for port, found in seen.items()}

    def _of(self, seen: Fact[Containers], port: int) -> Fact[ComposeProject | None]:
        here = self._here.fact()
        found = everyone(seen.value.engines) if isinstance(seen, Known) else ()
        labels = labels_of(sorted(found, key=lambda one: not one.publishes(port)))
        own = here.value if isinstance(here, Known) else None
        if not labels or (own is not None and any(one.project == own.name for one in labels)):
            return here
        if labels not in self._labelled:
            look = Asked("compose project", lambda: compose.of_labels(labels, os.environ), PROBE_SECONDS)
            self._labelled[labels] = look.fact()
        return here if self._labelled[labels] == Known(None) else self._labelled[labels]


def _project_here() -> Fact[ComposeProject | None]:
    """A directory that is gone has none."""
    try:
        directory = os.getcwd()
    except FileNotFoundError:
        return Known(None)
    return compose.look(directory, os.environ)
