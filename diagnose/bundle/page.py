"""The report as one page for a browser."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from diagnose.model.report import Report
from diagnose.render.text import Style, render_text

_STYLE = "body{margin:2rem;font:1rem/1.5 monospace;color-scheme:light dark}pre{white-space:pre-wrap}"


def render_page(reports: Sequence[Report]) -> str:
    """The terminal's report, self-contained; nothing in it is loaded from anywhere."""
    title = escape(", ".join(report.target.input for report in reports))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>netdiag: {title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<main><pre>{escape(render_text(reports, Style(width=100)))}</pre></main>\n</body>\n</html>\n"
    )
