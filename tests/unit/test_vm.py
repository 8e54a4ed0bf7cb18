"""The pure parts of the virtual machines' harness: recipe, what is missing, the list, results and their page."""

from __future__ import annotations

import signal
import tarfile
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from checks import CAUSES
from tests.vm.__main__ import SIGNALS, chosen, main
from tests.vm.fault import Expected, Fault, Remedy, likely, no_cause, proven, works
from tests.vm.faults import FAULTS
from tests.vm.kernels import KERNELS, NAMES, SUITES, kernel_named, kernels_of
from tests.vm.needs import TO_BUILD, UNAVAILABLE, Host, cache_folder, lacking
from tests.vm.push import checkout_digest, owned_by_root, sources
from tests.vm.recipe import REPOSITORY, recipe_of, requirements
from tests.vm.results import Began, Seen, Wrong, decode, is_as_expected, wrong_results
from tests.vm.session import Probes, Run, read_probes
from tests.vm.table import page

DROP = Fault("a rule drops", lambda place: None, root=proven("firewall/rule-drops"), user=no_cause(), silent=True)
HEALTHY = Fault("all is well", lambda place: None, root=works(), user=works(), kernels=("6.1", "6.12"))
HOST = Host("linux", "x86_64", uid=0, found=frozenset(TO_BUILD), free=20 << 30, cache=Path("/somewhere"))


def seen(fault: Fault, user: str, *, fixed: bool | None = None, **said: str) -> Seen:
    """A result."""
    return Seen(fault=fault.name, user=user, fixed=fixed, **said)  # type: ignore[arg-type]


BY_ROOT = seen(DROP, "root", fixed=True, verdict="unreachable", code="firewall/rule-drops", confidence="proven")
BY_USER = seen(DROP, "user", verdict="unreachable")


# the recipe


def test_a_recipe_s_hash_changes_with_anything_in_it() -> None:
    recipe = recipe_of("bookworm")
    changes = (
        {"packages": (*recipe.packages, "nano")},
        {"wheels": (*recipe.wheels, "attrs")},
        {"kernels": recipe.kernels[:1]},
        {"files": (*recipe.files, ("/etc/motd", "hello"))},
        {"quiet": ()},
        {"steps": "others"},
    )
    digests = {recipe.digest, *(replace(recipe, **change).digest for change in changes)}
    assert len(digests) == len(changes) + 1


def test_a_recipe_s_hash_is_the_same_as_long_as_nothing_changes() -> None:
    assert [recipe_of(suite).digest for suite in SUITES] == [recipe_of(suite).digest for suite in SUITES]


def test_every_kernel_is_in_the_recipe_of_its_release_and_its_own_one_comes_first() -> None:
    for suite in SUITES:
        assert [name for name, _ in recipe_of(suite).kernels] == [kernel.name for kernel in kernels_of(suite)]
        assert kernels_of(suite)[0].source == suite
    assert NAMES == ("5.10", "6.1", "6.12")
    assert all(kernel_named(kernel.name) is kernel for kernel in KERNELS)


def test_a_guest_gets_what_the_project_requires() -> None:
    pyproject = '[project]\ndependencies = ["one>=1", "two"]\n'
    assert requirements(pyproject) == ("one>=1", "two")
    assert "pytest" in recipe_of("trixie").wheels


# what is missing


@pytest.mark.parametrize(
    ("host", "build", "words"),
    [
        (replace(HOST, found=HOST.found - {"qemu-system-x86_64"}), False, ["qemu-system-x86_64", "apt-get install"]),
        (replace(HOST, found=HOST.found - {"debootstrap", "mke2fs"}), True, ["debootstrap, mke2fs", "e2fsprogs"]),
        (replace(HOST, uid=1000), True, ["as root"]),
        (replace(HOST, free=1 << 30), False, ["1.0 GiB", "NETDIAG_VM_CACHE"]),
        (replace(HOST, free=5 << 30), True, ["5.0 GiB", "needs 6"]),
        (replace(HOST, architecture="aarch64"), False, ["aarch64"]),
        (replace(HOST, system="darwin"), False, ["darwin"]),
    ],
)
def test_what_is_missing_is_said_in_one_line(host: Host, build: bool, words: list[str]) -> None:
    line = lacking(host, build=build)
    assert line
    assert "\n" not in line
    assert all(word in line for word in words), line


def test_what_only_a_build_needs_is_not_asked_of_a_run() -> None:
    assert lacking(HOST, build=True) is None
    ordinary = replace(HOST, uid=1000, found=frozenset({"qemu-system-x86_64"}), free=3 << 30)
    assert lacking(ordinary, build=False) is None


def test_images_are_kept_outside_the_checkout() -> None:
    assert cache_folder({"HOME": "/home/alice"}) == Path("/home/alice/.cache/netdiag-vm")
    assert cache_folder({"HOME": "/home/alice", "XDG_CACHE_HOME": "/big"}) == Path("/big/netdiag-vm")
    assert cache_folder({"XDG_CACHE_HOME": "/big", "NETDIAG_VM_CACHE": "/other"}) == Path("/other")


# the list


def answers(fault: Fault) -> list[tuple[str, Expected]]:
    """Every expectation of the fault, with the user it is about."""
    kinds = [(fault.root, fault.user), *fault.on.values()]
    pairs = [(user, kind) for root, ours in kinds for user, kind in (("root", root), ("user", ours))]
    return [(user, one) for user, kind in pairs for one in kind]


def test_the_list_is_long_enough_on_every_kernel() -> None:
    assert all(sum(kernel in fault.kernels for fault in FAULTS) >= 40 for kernel in NAMES)


def test_every_name_is_a_sentence_of_its_own() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    assert not [name for name in names if len(name.split()) < 4 or name.endswith(".") or "|" in name]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_the_list_is_well_formed(fault: Fault) -> None:
    codes = {cause.code for cause in CAUSES}
    for user, one in answers(fault):
        assert one.code is None or one.code in codes, one.code
        assert (one.code is None) == (one.confidence is None)
        assert one.confidence in (None, "likely", "proven"), "a possible cause is no root cause"
        assert one.remedy is not Remedy.NONE or one.code is None, "a root cause always has a remedy"
        assert one.code is not None or one.remedy is Remedy.NONE
        assert user == "user" or one.remedy is not Remedy.AGAIN or fault.confined, "root is root already"
        assert one.remedy is not Remedy.PERSON or fault.by_person, "the list does not say what a person does"
    assert fault.machine or not fault.confined
    assert set(fault.on) <= set(fault.kernels) <= set(NAMES)
    fault.target.format(port=1)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.silent], ids=lambda fault: fault.name)
@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_a_silent_drop_must_be_proven_to_root_on_every_kernel_that_can_report_it(fault: Fault, kernel: str) -> None:
    root, _ = fault.expected(kernel)
    assert {one.confidence for one in root} == {"proven"}


def test_recorded_machines_come_from_every_kernel() -> None:
    assert all(sum(fault.keep and kernel in fault.kernels for fault in FAULTS) >= 5 for kernel in NAMES)


# results


def test_a_result_is_right_where_cause_confidence_and_remedy_are() -> None:
    assert is_as_expected(BY_ROOT, DROP.root)
    for other in ({"fixed": False}, {"fixed": None}, {"confidence": "likely"}, {"code": "x"}, {"error": "it broke"}):
        assert not is_as_expected(msgspec.structs.replace(BY_ROOT, **other), DROP.root), other
    assert is_as_expected(BY_USER, DROP.user)
    assert is_as_expected(BY_USER, (*likely("firewall/silent", Remedy.AGAIN), *DROP.user))


def test_a_fault_that_never_ran_is_wrong_and_one_that_cannot_be_made_is_not() -> None:
    assert wrong_results([DROP, HEALTHY], "5.10", [BY_ROOT, BY_USER]) == []
    missing = wrong_results([DROP], "6.1", [BY_ROOT])
    assert missing == [Wrong(DROP.name, "user", "unreachable", "not run")]


def test_a_kernel_may_have_an_answer_of_its_own() -> None:
    fault = replace(DROP, on={"5.10": (likely("firewall/rule-drops"), no_cause())})
    weaker = msgspec.structs.replace(BY_ROOT, confidence="likely")
    assert wrong_results([fault], "5.10", [weaker, BY_USER]) == []
    assert [one.user for one in wrong_results([fault], "6.1", [weaker, BY_USER])] == ["root"]


def test_the_fault_at_which_a_guest_was_lost_is_told_from_those_that_ended() -> None:
    lines = [msgspec.json.encode(one).decode() + "\n" for one in (Began(DROP.name), BY_ROOT, BY_USER, Began("next"))]
    assert decode(lines) == ([BY_ROOT, BY_USER], ["next"])
    assert decode([*lines[:3], lines[2][:20]]) == ([BY_ROOT, BY_USER], [])
    assert decode(lines[:2]) == ([BY_ROOT], [DROP.name])


def test_the_probes_own_tests_are_read_from_pytest_s_report() -> None:
    xml = """<testsuites><testsuite>
    <testcase classname="tests.lab_probes.test_wire" name="test_one"/>
    <testcase classname="tests.lab_probes.test_wire" name="test_two"><failure message="1 is 2&#10;more"/></testcase>
    <testcase classname="tests.lab_probes.test_podman" name="test_three"><skipped message="no podman"/></testcase>
    </testsuite></testsuites>"""
    probes = read_probes(xml)
    assert probes.passed == 1
    assert probes.failed == ("test_wire::test_two: 1 is 2",)
    assert probes.skipped == (("test_podman::test_three", "no podman"),)


# the page


def test_the_page_shows_each_fault_on_each_kernel_as_root_and_as_user() -> None:
    old = Run("5.10", "5.10.0-32", seen=[BY_ROOT, BY_USER], probes=Probes(3, skipped=(("a", "no podman"),)))
    new = Run("6.1", "6.1.0-50", seen=[msgspec.structs.replace(BY_ROOT, fixed=False), BY_USER], probes=Probes(4))
    text = page([DROP, HEALTHY], [old, new])
    assert "| fault | 5.10 | 6.1 |\n|---|---|---|" in text
    assert "| a rule drops | proven ✓ / no cause | **WRONG** / no cause |" in text
    assert "| all is well | n/a | not run / not run |" in text
    assert "| tests/lab_probes | 3 passed, 1 skipped | 4 passed |" in text
    assert "- no podman (1 on 5.10)" in text


def test_a_user_s_other_cause_is_named_with_its_confidence() -> None:
    theirs = seen(DROP, "user", verdict="unreachable", code="firewall/silent", confidence="likely")
    fault = replace(DROP, user=likely("firewall/silent", Remedy.AGAIN))
    assert "proven ✓ / likely firewall/silent" in page([fault], [Run("6.1", seen=[BY_ROOT, theirs])])


# the command


def test_faults_are_chosen_by_words_of_their_names() -> None:
    every = {fault.name for fault in FAULTS}
    assert {fault.name for fault in chosen("")} == every
    assert {fault.name for fault in chosen("ip6tables policy")} == {
        name for name in every if "ip6tables" in name and "policy" in name
    }
    assert len(chosen("paused,bindable")) == sum("paused" in name or "bindable" in name for name in every) > 1


def test_words_that_no_fault_has_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--faults", "of no kind at all"]) == 2
    assert "of no kind at all" in capsys.readouterr().out


def test_where_something_is_missing_the_run_ends_with_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NETDIAG_VM_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tests.vm.needs._SYSTEM_FOLDERS", str(tmp_path))
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        assert main(["--kernel", "6.1", "--faults", "paused,nothing listens"]) == UNAVAILABLE
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("make vm: ")


def test_what_is_pushed_is_readable_for_everybody_in_the_guest() -> None:
    entry = tarfile.TarInfo("diagnose/cli.py")
    entry.uid, entry.mode = 1000, 0o600
    assert (owned_by_root(entry).uid, owned_by_root(entry).mode) == (0, 0o644)
    entry.mode = 0o700
    assert owned_by_root(entry).mode == 0o755


def test_the_digest_of_the_checkout_is_of_the_product_and_its_tests() -> None:
    names = {str(path.relative_to(REPOSITORY)) for path in sources()}
    assert {"netdiag_entry.py", "diagnose/cli.py", "checks/hung.md", "tests/vm/inside.py", "pyproject.toml"} <= names
    assert not [name for name in names if name.startswith((".", "fixtures/", "docs/")) or "__pycache__" in name]
    assert checkout_digest() == checkout_digest()
