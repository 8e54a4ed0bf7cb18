"""The catalogue: every cause has its page, its stage and its place, and nothing promised is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from checks import CAUSES, CHECKS
from diagnose.model.check import Check
from diagnose.model.finding import Cause, Stage
from diagnose.render.explain import section

PAGES = Path(__file__).parents[2] / "checks"
PARTS = ["What it means", "How it is known", "How to fix it", "When the diagnosis is wrong"]
PUBLISHED = [
    "in-use/listener",
    "in-use/overlapping-address",
    "in-use/time-wait",
    "in-use/outbound-connection",
    "in-use/privileged-port",
    "in-use/address-not-local",
    "refused/nothing-listening",
    "refused/other-port",
    "refused/other-address",
    "refused/other-family",
    "refused/udp-only",
    "firewall/rule-drops",
    "firewall/rule-rejects",
    "firewall/policy-drops",
    "firewall/silent",
    "resolution/prefers-other-family",
    "resolution/not-found",
    "resolution/hosts-file-broken",
    "resolution/localhost-elsewhere",
    "resolution/ipv6-disabled",
    "resolution/odd-address",
    "container/own-localhost",
    "container/other-namespace",
    "loopback/interface-down",
    "loopback/address-missing",
    "loopback/route-missing",
    "loopback/routed-elsewhere",
    "hung/accept-queue-full",
    "hung/process-stopped",
    "hung/not-accepting",
]
"""Scripts branch on these codes: none is ever renamed or reused."""
ORDER = ["in-use", "refused", "firewall", "resolution", "container", "loopback", "hung", "sandbox"]

every_cause = pytest.mark.parametrize("cause", CAUSES, ids=lambda one: one.code)
every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda one: one.name)


def page(check: str) -> str:
    return (PAGES / f"{check.replace('-', '_')}.md").read_text(encoding="utf-8")


def test_the_checks_run_in_the_published_order() -> None:
    assert [check.name for check in CHECKS][: len(ORDER)] == ORDER


def test_no_published_code_is_gone() -> None:
    assert len(PUBLISHED) == 30
    assert set(PUBLISHED) - {cause.code for cause in CAUSES} == set()


def test_no_code_stands_for_two_causes() -> None:
    codes = [cause.code for cause in CAUSES]
    assert len(codes) == len(set(codes))


@every_check
def test_the_codes_of_a_check_begin_with_its_name(check: Check) -> None:
    assert all(re.fullmatch(rf"{check.name}/[a-z0-9]+(-[a-z0-9]+)*", cause.code) for cause in check.causes)


@every_cause
def test_a_cause_has_its_place_on_the_packets_path(cause: Cause) -> None:
    assert cause.stage in Stage


@every_cause
def test_a_cause_has_a_one_line_summary(cause: Cause) -> None:
    assert 10 <= len(cause.summary) <= 100
    assert cause.summary.isprintable()
    assert not cause.summary.endswith(".")


@every_cause
def test_a_cause_is_explained_in_exactly_four_parts(cause: Cause) -> None:
    text = section(page(cause.code.partition("/")[0]), cause.code)
    assert text is not None, "netdiag explain would have nothing to print"
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == [cause.code, *PARTS]


@every_cause
def test_each_part_of_an_explanation_says_something(cause: Cause) -> None:
    text = section(page(cause.code.partition("/")[0]), cause.code) or ""
    _, *parts = re.split(r"^### .*$", text, flags=re.MULTILINE)
    assert all(len(part.strip()) > 80 for part in parts)
    assert sum(len(part.strip()) for part in parts) > 400


@every_check
def test_a_page_explains_no_cause_that_the_check_does_not_have(check: Check) -> None:
    headings = re.findall(r"^## (.*)$", page(check.name), re.MULTILINE)
    assert headings == [cause.code for cause in check.causes]


@every_check
def test_a_page_can_be_read_on_a_terminal(check: Check) -> None:
    text = page(check.name)
    assert text.replace("\n", "").isprintable()
    assert re.match(rf"# {check.name}\b", text)


def test_there_is_no_page_without_a_check() -> None:
    assert {path.stem.replace("_", "-") for path in PAGES.glob("*.md")} == {check.name for check in CHECKS}
