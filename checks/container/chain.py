"""The chain from the host's port to the process in the container, drawn up to the link that is broken."""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.analysis.publication import DIALS_INSIDE, Publication, bridge_address, holder_of
from diagnose.model.attempt import Attempt
from diagnose.model.fact import Known
from diagnose.model.finding import Evidence
from diagnose.model.firewall import Walk
from diagnose.model.network import Endpoint
from diagnose.model.snapshot import Snapshot

_ARROW = " -> "


def drawn(snapshot: Snapshot, attempt: Attempt, one: Publication, walk: Walk | None, broken: str) -> Evidence:
    """Link by link, and what is wrong with the last; what is not known of a link is left out."""
    links = [str(attempt.endpoint), *_ways(snapshot, attempt, one, walk), *_bridges(snapshot, one)]
    at = bridge_address(one) or (walk.arrives if walk is not None else None)
    links += [str(at)] if at is not None else []
    return Evidence(_ARROW.join((*links, f"container {one.name}", f"broken: {broken}")), "the chain, link by link")


def unopened(attempt: Attempt, one: Publication, broken: str) -> Evidence:
    """Where the host's port itself is not open."""
    entry = f"{Endpoint(one.entry.address, one.entry.port)} of container {one.name}"
    return Evidence(_ARROW.join((str(attempt.endpoint), entry, f"broken: {broken}")), "the chain, link by link")


def _ways(snapshot: Snapshot, attempt: Attempt, one: Publication, walk: Walk | None) -> Iterator[str]:
    """The program that dials the container, or the rule that leads to it."""
    holder = holder_of(snapshot, attempt.address, attempt.port)
    if one.forwarder is not None:
        yield f"{one.forwarder.program} (pid {one.forwarder.pid})"
    elif walk is not None and walk.arrives is not None:
        yield f"NAT to {walk.arrives}"
    elif holder is not None:
        relays = holder.program in DIALS_INSIDE
        yield f"{holder.program} (pid {holder.pid})" + ("" if relays else ", which keeps the port")


def _bridges(snapshot: Snapshot, one: Publication) -> Iterator[str]:
    """The host's own end of the container's network."""
    gateways = {g for each in (one.described.attachments if one.described else ()) for g in each.gateways}
    if isinstance(snapshot.links, Known):
        for interface in snapshot.links.value.interfaces:
            if gateways.intersection(interface.addresses):
                yield f"bridge {interface.name}" + ("" if interface.up else " (down)")
