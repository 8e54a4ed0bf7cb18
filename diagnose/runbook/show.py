"""A runbook as Markdown for a wiki: how the case is recognised, a diagram (Mermaid), and every branch in words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.render.markdown import code_span, escaped
from diagnose.render.printable import printable
from diagnose.runbook.model import ENDS, AskStep, Branch, Choice, Runbook, RunStep, Slot, Step, Template
from diagnose.runbook.words import condition, destination, options

_LABEL = 60
"""Characters of a label in the diagram."""
_END_SHAPES = {"works": '(["it works"])', "fix": '(["fix"])', "escalate": '(["escalate"])'}


def show(runbook: Runbook) -> str:
    """The whole page."""
    return "\n".join(_page(runbook)) + "\n"


def _page(runbook: Runbook) -> Iterator[str]:
    yield f"# {escaped(runbook.title)}"
    yield ""
    yield f"Runbook {code_span(runbook.name)}. netdiag carries it out: `netdiag runbook run {runbook.name}`"
    yield ""
    if runbook.when:
        yield "## When to use it"
        yield ""
        yield from (printable(line) for line in runbook.when.rstrip().splitlines())
        yield ""
    if runbook.inputs:
        yield "## What it asks for"
        yield ""
        yield "| input | question | default |"
        yield "|---|---|---|"
        for name, given in runbook.inputs.items():
            default = "" if given.default is None else code_span(given.default).replace("|", "\\|")
            yield f"| {code_span(name)} | {escaped(given.ask)} | {default} |"
        yield ""
    yield "## The steps"
    yield ""
    yield from _diagram(runbook)
    yield ""
    for step in runbook.steps:
        yield from _step(runbook, step)
    yield "## How it ends"
    yield ""
    yield from _ends(runbook)


def _step(runbook: Runbook, step: Step) -> Iterator[str]:
    yield f"### {escaped(step.id)}"
    yield ""
    if isinstance(step, AskStep):
        yield f"Ask: {_marked(step.ask)}"
    else:
        yield f"Diagnose {code_span(' '.join(('netdiag run', *options(step.options), str(step.target))))}"
    yield ""
    ways: tuple[Branch | Choice, ...] = step.branches if isinstance(step, RunStep) else step.choices
    for number, way in enumerate(ways, 1):
        fits = condition(way)
        yield f"{number}. {'Otherwise' if fits == 'otherwise' else f'If {escaped(fits)}'}: **{_goes(runbook, way)}**"
        if way.say is not None:
            yield f"   {_marked(way.say)}"
    if isinstance(step, RunStep) and all(branch.when is not None for branch in step.branches):
        yield f"{len(ways) + 1}. Otherwise: **{escaped(destination('escalate', runbook.escalate.to))}**"
    yield ""


def _marked(template: Template) -> str:
    """A text in one line, with its placeholders as code."""
    parts = (code_span(f"{{{one.name}}}") if isinstance(one, Slot) else escaped(_flat(one)) for one in template.parts)
    return "".join(parts).strip()


def _flat(text: str) -> str:
    return " ".join(text.split("\n"))


def _goes(runbook: Runbook, way: Branch | Choice) -> str:
    return escaped(destination(way.then, runbook.escalate.to))


def _ends(runbook: Runbook) -> Iterator[str]:
    yield "- **works** (exit code 0): nothing is left to do."
    yield "- **fix** (exit code 1): the cause is named, with its proof and the commands that fix it."
    to = f" to {escaped(runbook.escalate.to)}" if runbook.escalate.to else ""
    said = f" {_marked(runbook.escalate.say)}" if runbook.escalate.say is not None else ""
    attached = f" Attach: {', '.join(runbook.escalate.attach)}." if runbook.escalate.attach else ""
    yield f"- **escalate**{to} (exit code 3): the path so far goes with it.{said}{attached}"


def _diagram(runbook: Runbook) -> Iterator[str]:
    """Nodes have names of our own; what the author wrote is a label, and no label has a character of the diagram's."""
    names = {step.id: f"s{number}" for number, step in enumerate(runbook.steps, 1)}
    used: set[str] = set()
    yield "```mermaid"
    yield "flowchart TD"
    for step in runbook.steps:
        if isinstance(step, AskStep):
            yield f'    {names[step.id]}{{"{_label(str(step.ask))}"}}'
        else:
            asked = " ".join((*options(step.options), str(step.target)))
            yield f'    {names[step.id]}["{_label(f"{step.id}: {asked}")}"]'
    for step in runbook.steps:
        ways: tuple[Branch | Choice, ...] = step.branches if isinstance(step, RunStep) else step.choices
        for way in ways:
            used.add(way.then)
            label = way.name if isinstance(way, Choice) else condition(way)
            yield f'    {names[step.id]} -->|"{_label(label)}"| {names.get(way.then, way.then)}'
        if isinstance(step, RunStep) and all(branch.when is not None for branch in step.branches):
            used.add("escalate")
            yield f'    {names[step.id]} -->|"otherwise"| escalate'
    for end in ENDS:
        if end in used:
            yield f"    {end}{_END_SHAPES[end]}"
    yield "```"


def _label(text: str) -> str:
    """Entities for everything but words and harmless signs (Mermaid, "Entity codes to escape characters")."""
    line = " ".join(printable(" ".join(text.split())).split())
    short = line if len(line) <= _LABEL else f"{line[: _LABEL - 3].rstrip()}..."
    return re.sub(r"[^\w ,.:/?()'-]", lambda found: f"#{ord(found[0])};", short)
