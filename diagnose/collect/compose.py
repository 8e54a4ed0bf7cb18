"""Targets that name a Compose service -> the address and port that are dialled for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from diagnose.analysis.compose_target import located, seen_from_inside
from diagnose.collect.case import PROBE_SECONDS
from diagnose.model.compose import ComposeProject
from diagnose.model.container import Engine
from diagnose.model.fact import Fact, Known
from diagnose.model.target import Intent, Target
from diagnose.probes import compose, containers
from diagnose.probes.bounded import Asked

Ask = Callable[[tuple[str, ...]], tuple[Engine, ...]]
"""The engines of this machine, each with the containers of these services, running or not."""


def with_addresses(targets: Sequence[Target], intent: Intent, ask: Ask | None = None) -> tuple[Target, ...]:
    """The targets, those of services located. Raises NotLocatedError."""
    named = tuple(dict.fromkeys(target.service.service for target in targets if target.service))
    if not named:
        return tuple(targets)
    if containers.inside():
        return tuple(map(seen_from_inside, targets))
    project = Asked("compose project", project_here, PROBE_SECONDS).fact()
    engines = ask(named) if ask else ()
    return tuple(located(target, intent, project, engines) for target in targets)


def project_here() -> Fact[ComposeProject | None]:
    """Of the directory that we were called in; one that is gone has none."""
    try:
        directory = os.getcwd()
    except FileNotFoundError:
        return Known(None)
    return compose.look(directory, os.environ)
