"""The report as JUnit XML, a test case a target, as CI servers read it (Jenkins' junit-10.xsd)."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from diagnose.model.report import Report
from diagnose.render.printable import printable
from diagnose.render.text import Style, render_text

_WIDTH = 100


def render_junit(reports: Sequence[Report]) -> str:
    """A test suite: a target that works passes, one with a cause fails, one without a cause is an error."""
    cases = [_case(report) for report in reports]
    seconds = f"{sum(report.duration_ms for report in reports) / 1000:.3f}"
    counts: dict[str, str] = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
    }
    root = ElementTree.Element("testsuites", {"name": "netdiag", **counts, "time": seconds})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "netdiag", **counts, "skipped": "0", "time": seconds})
    if reports:
        suite.set("timestamp", reports[0].started_at.removesuffix("Z").partition(".")[0])
        suite.set("hostname", _xml(reports[0].vantage.hostname))
    suite.extend(cases)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(report: Report) -> ElementTree.Element:
    name = f"{report.target.input} {report.intent.value}"
    if report.vantage.origin:
        name += f" from {report.vantage.origin}"
    case = ElementTree.Element(
        "testcase", name=_xml(name), classname=f"netdiag.{report.intent.value}", time=f"{report.duration_ms / 1000:.3f}"
    )
    text = _xml(render_text([report], Style(_WIDTH)))
    cause = report.root_cause
    if report.verdict.works:
        ElementTree.SubElement(case, "system-out").text = text
    elif cause is not None:
        ElementTree.SubElement(case, "failure", message=_xml(cause.title), type=cause.code).text = text
    else:
        message = f"{report.answered}: no cause could be named"
        ElementTree.SubElement(case, "error", message=_xml(message), type=report.verdict.value).text = text
    return case


def _xml(text: str) -> str:
    """The text without the characters that XML 1.0 has not (section 2.2), each of them as an escape."""
    return "\n".join(map(printable, text.split("\n")))
