"""What holds of advice from a Compose project, whatever the project says."""

from __future__ import annotations

from hypothesis import given

from diagnose.analysis.compose import (
    add_host_gateway,
    correct_container_port,
    dial_by_name,
    listen_everywhere,
    project_of,
    publish,
    publish_at,
    start,
    told_by_name,
)
from diagnose.model.snapshot import Snapshot
from tests.properties.snapshots import snapshots


@given(snapshots)
def test_no_project_crashes_the_advice_and_no_remedy_opens_a_port_to_the_world(snapshot: Snapshot) -> None:
    assert (told_by_name(snapshot) is None) == (dial_by_name(snapshot) is None)
    project = project_of(snapshot)
    for service in project.services if project else ():
        listen_everywhere(snapshot, service)
        add_host_gateway(snapshot, service)
        start(snapshot, service)
        published = publish(snapshot, service, 8080)
        if published and service.port_spot:
            assert all(":8080" in one.text and "0.0.0.0:" not in one.text for one in published.edits)
        for entry in service.ports:
            correct_container_port(snapshot, service, entry, 8080)
            publish_at(snapshot, service, entry, "::1")
