"""What `check` says: each error with its line and its column, several at once."""

from __future__ import annotations

import pytest

from diagnose.runbook.check import checked
from tests.runbooks.books import CATALOGUE, SMALL, lines

HEAD = "schema: netdiag.runbook/1\nname: a\ntitle: A\n"
STEPS = HEAD + "inputs:\n  db: {ask: Which?}\nsteps:\n"
ONE = "  - id: one\n    run: '{db}'\n    branches:\n"


def with_branch(branch: str) -> str:
    return STEPS + ONE + f"      - {branch}\n      - {{otherwise: true, then: works}}\n"


def test_a_right_runbook_has_no_error() -> None:
    assert lines(SMALL) == []
    assert lines(with_branch("{when: {code: 'refused/*'}, then: escalate}")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the text
        ("", "F:1:1: the file is empty"),
        ("a: b: c\n", "F:1:5: this is no YAML"),
        ("a:\n\tb: 1\n", "F:2:1: this is no YAML: a tab in the indentation"),
        ("a: [1\nb: 2\n", "F:2:2: this is no YAML"),
        ("schema: \x00\n", "F:1:9: the character '\\x00' is not allowed"),
        (SMALL + "---\na: 1\n", "F:21:1: a second document"),
        (SMALL.replace("title:", "name: again\ntitle:"), "F:3:1: the key 'name' stands here again; it is on line 2"),
        (SMALL.replace("title: S", "title: &a S"), "F:3:8: an anchor (&a)"),
        (SMALL.replace("title: Something does not answer", "title: *a"), "F:3:8: an alias (*a)"),
        (SMALL.replace("title: S", "title: !!python/object:os.system S"), "F:3:8: a tag"),
        (SMALL.replace("title:", "? [a]\n: 1\ntitle:"), "F:3:3: a key that is a list or a mapping"),
        ("a: " + "[" * 40 + "]" * 40 + "\n", "F:1:20: nested deeper than 16 levels"),
        # the shape
        ("- a\n", "F:1:1: a runbook is a mapping with the keys schema, name"),
        (
            SMALL.replace("runbook/1", "runbook/2"),
            "F:1:9: the schema is 'netdiag.runbook/2'; this version reads netdiag.runbook/1",
        ),
        (SMALL.replace("name: small", "name: Small Book"), "F:2:7: 'Small Book' is no name of a runbook"),
        (
            SMALL.replace("title: Something does not answer\n", ""),
            "F:1:1: the runbook has no title; title: is required",
        ),
        (
            SMALL.replace("title: Something does not answer", "title:"),
            "F:3:7: a text was expected for title, and this is empty",
        ),
        (
            SMALL.replace("title: Something does not answer", "title: [a]"),
            "F:3:8: a text was expected for title, and this is a list",
        ),
        (
            SMALL.replace("inputs:", "input:"),
            "F:4:1: a runbook has no key 'input', did you mean inputs?; expected one of schema",
        ),
        (SMALL.replace('ask: "Which', 'aks: "Which'), "F:5:12: the input server has no key 'aks', did you mean ask?"),
        (SMALL.replace('server: {ask: "Which one?", ', "server: {"), "F:5:11: the input server has no ask"),
        (SMALL.replace("  server: {", "  Server: {"), "F:5:3: 'Server' is no name of an input"),
        (SMALL.replace("  server: {", "  verdict: {"), "F:5:3: 'verdict' is what a diagnosis fills in"),
        (HEAD + "steps: []\n", "F:4:8: steps is an empty list"),
        (HEAD + "steps: {}\n", "F:4:8: steps is a list, each item a step, and this is a mapping"),
        (HEAD + "steps: [{id: a}]\n", "F:4:9: the step a has neither run nor ask"),
        (
            SMALL.replace('    run: "{server}"\n', '    run: "{server}"\n    ask: Why?\n'),
            "F:7:5: the step reach has both run and ask",
        ),
        (
            SMALL.replace("    ask: Does", "    with: {bind: true}\n    ask: Does"),
            "F:18:5: with does not belong to ask; expected choices",
        ),
        (SMALL.replace("id: reach", "id: works"), "F:7:9: 'works' is an end and no id of a step"),
        (SMALL.replace("id: reach", "id: Reach it"), "F:7:9: 'Reach it' is no id of a step"),
        (SMALL.replace("      - otherwise: true\n", "      - otherwise: false\n"), "F:15:20: otherwise is false"),
        (
            SMALL.replace("      - otherwise: true\n        then", "      - then"),
            "F:15:9: the branch has neither when nor otherwise",
        ),
        (with_branch("{when: {}, then: fix}"), "F:10:16: when is empty; expected one of code, finding"),
        (with_branch("{when: {code: [], verdict: reachable}, then: fix}"), "F:10:23: code is an empty list"),
        (with_branch("{when: {codes: a/b}, then: fix}"), "F:10:17: when has no key 'codes', did you mean code?"),
        (
            with_branch("{when: {verdict: broken}, then: fix}"),
            "F:10:26: 'broken' is no verdict; expected one of reachable",
        ),
        (
            with_branch("{when: {confidence: [proven, sure]}, then: fix}"),
            "F:10:38: 'sure' is no confidence; expected one of proven",
        ),
        (
            with_branch("{when: {check: firewall}, then: fix}"),
            "F:10:24: check is a mapping such as {firewall: [skipped]}",
        ),
        (with_branch("{when: {check: {firewall: [gone]}}, then: fix}"), "F:10:36: 'gone' is no outcome"),
        (with_branch("{when: {verdict: reachable}}"), "F:10:9: the branch has no then"),
        (
            SMALL.replace("attach: [bundle]", "attach: [bundel]"),
            "F:20:60: 'bundel' is no attachment, did you mean bundle?",
        ),
        (
            SMALL.replace('    run: "{server}"\n', '    run: "{server}"\n    with: {timeout: soon}\n'),
            "F:9:21: timeout is a number of seconds",
        ),
        (
            SMALL.replace('    run: "{server}"\n', '    run: "{server}"\n    with: {bind: perhaps}\n'),
            "F:9:18: bind is true or false",
        ),
        # the words
        (with_branch("{when: {code: 'refuse/*'}, then: fix}"), "F:10:23: no cause has a code like 'refuse/*'"),
        (
            with_branch("{when: {code: ['refused/*', refused/nothing-listenin]}, then: fix}"),
            "F:10:37: no cause has a code like 'refused/nothing-listenin', did you mean refused/nothing-listening?",
        ),
        (with_branch("{when: {finding: nothing}, then: fix}"), "F:10:26: no cause has a code like 'nothing'"),
        (
            with_branch("{when: {check: {firewal: [skipped]}}, then: fix}"),
            "F:10:25: no check is called 'firewal', did you mean firewall?",
        ),
        (with_branch("{when: {verdict: reachable}, then: tow}"), "F:10:44: no step is called 'tow'"),
        (
            SMALL.replace('{"yes": escalate, "no": works}', '{"yes": escalat, "no": works}'),
            "F:19:22: no step is called 'escalat', did you mean escalate?",
        ),
        (
            SMALL.replace("{root_cause.title}", "{root_cause.titel}"),
            "F:13:21: {root_cause.titel} is no placeholder, did you mean root_cause.title?; say may have {server}",
        ),
        (SMALL.replace("{root_cause.title}", "{server.title}"), "F:13:21: {server.title} is no placeholder"),
        (
            SMALL.replace("Seen: {root", "See} {root"),
            "F:13:18: a } that belongs to no placeholder; write }} for the character",
        ),
        (
            SMALL.replace("It was {server}.", "It was {servers}."),
            "F:20:39: {servers} is no placeholder, did you mean server?",
        ),
        (
            SMALL.replace('run: "{server}"', 'run: "{verdict}:80"'),
            "F:8:11: {verdict} does not belong here; a target may have {server}",
        ),
        (SMALL.replace('run: "{server}"', "run: nowhere"), "F:8:10: 'nowhere' has no port"),
        (
            SMALL.replace('    run: "{server}"\n', '    run: "{server}"\n    with: {from: "container"}\n'),
            "F:9:18: --from 'container' names no place to look from",
        ),
        (
            SMALL.replace('    run: "{server}"\n', '    run: "{server}"\n    with: {from: "pod:{server}"}\n'),
            "F:9:18: --from knows no 'pod'",
        ),
        (
            SMALL.replace('    run: "{server}"\n', '    run: "{server}"\n    with: {check: [firewal]}\n'),
            "F:9:20: no check is called 'firewal', did you mean firewall?",
        ),
        (
            SMALL.replace('    run: "{server}"\n', '    run: "{server}"\n    with: {check: hung, skip: hung}\n'),
            "F:9:31: hung is in check and in skip",
        ),
        (
            SMALL.replace('    run: "{server}"\n', '    run: "{server}"\n    with: {bind: true, trace: true}\n'),
            "F:9:24: trace follows a packet, and bind sends none",
        ),
        # the way
        (
            SMALL.replace("then: ask", "then: works"),
            "F:17:9: no way from the first step (reach) leads to the step 'ask'",
        ),
        (
            SMALL.replace('"yes": escalate', '"yes": reach'),
            "F:19:22: this leads back to the step 'reach' (reach -> ask -> reach)",
        ),
        (SMALL.replace("then: fix", "then: reach"), "F:14:15: this leads back to the step 'reach' (reach -> reach)"),
        (SMALL.replace("id: ask", "id: reach"), "F:17:9: another step has the id 'reach'"),
        (
            SMALL.replace(
                "        then: escalate\n", "        then: escalate\n      - {when: {verdict: reachable}, then: fix}\n"
            ),
            "F:17:9: this branch is never taken",
        ),
    ],
)
def test_an_error_has_its_line_its_column_and_what_was_expected(text: str, expected: str) -> None:
    assert any(line.startswith(expected) for line in lines(text)), "\n".join(lines(text))


@pytest.mark.parametrize("style", ["|", ">", ""])
def test_a_placeholder_in_a_text_of_several_lines_has_its_own_line(style: str) -> None:
    text = SMALL.replace(
        'say: "Seen: {root_cause.title}"', f"say: {style}\n          Seen {{server}}\n          and {{servr}} here"
    )
    assert [line.partition(": ")[0] for line in lines(text)] == ["F:15:15"]


def test_the_same_placeholder_twice_is_two_errors_at_two_places() -> None:
    text = SMALL.replace("Seen: {root_cause.title}", "{nix} and {{nix}} and {nix}")
    assert [line.partition(": ")[0] for line in lines(text)] == ["F:13:15", "F:13:37"]


def test_several_errors_come_at_once_in_the_order_of_the_file() -> None:
    text = SMALL.replace("title:", "titel:").replace("refused/*", "refuse/*").replace("{root_cause.title}", "{nix}")
    found = [line.split(": ")[0] for line in lines(text.replace("works}", "work}"))]
    assert found == ["F:1:1", "F:3:1", "F:12:22", "F:13:21", "F:19:38"]


def test_steps_that_nothing_leads_to_and_loops_are_found_next_to_errors_of_the_shape() -> None:
    text = SMALL.replace("title:", "titel:").replace("then: ask", "then: reach")
    found = [line.partition(": ")[0] for line in lines(text)]
    assert found == ["F:1:1", "F:3:1", "F:11:15", "F:17:9"]


def test_a_step_that_cannot_be_read_makes_no_false_errors_of_its_neighbours() -> None:
    text = SMALL.replace('    run: "{server}"\n', "")
    assert [line for line in lines(text) if "no way" in line or "leads back" in line] == []


def test_a_file_with_a_byte_order_mark_and_carriage_returns_is_read() -> None:
    data = b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode()
    assert checked(data, CATALOGUE)[1] == ()
    wrong = b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").replace("{root_cause.title}", "{nix}").encode()
    assert [problem.line("F").split(": ")[0] for problem in checked(wrong, CATALOGUE)[1]] == ["F:13:21"]


def test_bytes_that_are_no_text_and_files_that_are_too_large_are_one_error() -> None:
    assert checked(b"name: a\ntitle: \xff\n", CATALOGUE)[1][0].line("F").startswith("F:2:8: this byte is not UTF-8")
    assert "bytes; a runbook has no more than" in checked(b"#" * (1 << 18) + b"\n", CATALOGUE)[1][0].text


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
    )
    found = lines(bomb)
    assert found[0].startswith("F:1:1: ") or found[0].startswith("F:1:4: an anchor")
    assert len(found) <= 100


def test_a_choice_may_say_something_and_numbers_may_stand_for_targets() -> None:
    text = SMALL.replace('"no": works', '"no": {then: works, say: "Then {server} is well: {verdict}."}')
    assert lines(text) == []
    assert lines(SMALL.replace('run: "{server}"', "run: 5432")) == []
    assert lines(SMALL.replace('{"yes": escalate, "no": works}', "{yes: escalate, no: works}")) == []
