"""The unit and the container in /proc/PID/cgroup, as real machines write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnose.model.process import Container
from diagnose.parse.cgroup import Membership, membership

ID = "3f4e" * 16
OTHER = "a0b1" * 16


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/foo.service/sub/group", "foo.service"),
        ("/user.slice/user-1000.slice/session-3.scope", None),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope", None),
        ("/init.scope", None),
        ("/", None),
    ],
)
def test_the_unit_is_the_innermost_service(path: str, unit: str | None) -> None:
    assert membership(f"0::{path}\n") == Membership(unit=unit)


def test_a_users_own_unit_is_told_with_its_user() -> None:
    path = "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service"
    assert membership(f"0::{path}\n") == Membership("syncthing.service", 1000)


@pytest.mark.parametrize(
    ("path", "engine"),
    [
        (f"/docker/{ID}", "docker"),
        (f"/system.slice/docker-{ID}.scope", "docker"),
        (f"/ecs/0a1b2c/{ID}", "docker"),
        (f"/machine.slice/libpod-{ID}.scope", "podman"),
        (f"/machine.slice/libpod-{ID}.scope/container", "podman"),
        (f"/libpod_parent/libpod-{ID}", "podman"),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", "podman"),
        (f"/system.slice/nerdctl-{ID}.scope", "containerd"),
        (f"/default/{ID}", "containerd"),
        (f"/system.slice/cri-containerd-{ID}.scope", "containerd"),
        (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope", "kubernetes"),
        (f"/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope", "kubernetes"),
        (f"/kubepods/burstable/pod0a-1b/{ID}", "kubernetes"),
        (f"/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}", "kubernetes"),
        (f"/somewhere/{ID}", "unknown"),
    ],
)
def test_a_container_is_told_by_engine_and_id(path: str, engine: str) -> None:
    assert membership(f"0::{path}\n").container == Container(engine, ID)


@pytest.mark.parametrize(
    ("path", "engine", "name"),
    [
        ("/lxc/web", "lxc", "web"),
        ("/lxc.payload.web/system.slice", "lxc", "web"),
        ("/machine.slice/machine-web.scope/payload", "systemd-nspawn", "web"),
        ("/machine.slice/systemd-nspawn@web.service/payload", "systemd-nspawn", "web"),
    ],
)
def test_a_system_container_is_told_by_its_name(path: str, engine: str, name: str) -> None:
    assert membership(f"0::{path}\n").container == Container(engine, name, name)


@pytest.mark.parametrize(
    "path",
    [
        f"/machine.slice/libpod-conmon-{ID}.scope",
        f"/kubepods.slice/crio-conmon-{ID}.scope",
        "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
        "/lxc.monitor.web",
        "/lxc",
        "/system.slice/docker.service",
        "/docker",
    ],
)
def test_what_runs_beside_a_container_is_not_in_it(path: str) -> None:
    assert membership(f"0::{path}\n").container is None


def test_version_1_is_read_over_all_hierarchies() -> None:
    text = f"12:pids:/docker/{ID}\n11:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n"
    assert membership(text) == Membership(container=Container("docker", ID))


def test_of_nested_containers_the_outer_one_is_told() -> None:
    assert membership(f"0::/docker/{ID}/kubelet/{OTHER}\n").container == Container("docker", ID)


def test_a_service_inside_a_container_is_no_unit_of_this_machine() -> None:
    assert membership("0::/lxc.payload.web/system.slice/nginx.service\n").unit is None


def test_a_container_that_a_unit_started_is_told_with_the_unit() -> None:
    found = membership(f"0::/system.slice/web.service/libpod-payload-{ID}\n")
    assert found == Membership("web.service", None, Container("podman", ID))


@given(st.text(max_size=200))
def test_any_text_is_read_without_a_crash(text: str) -> None:
    assert isinstance(membership(text), Membership)
