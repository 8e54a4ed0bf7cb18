"""What holds of everything that a user may type as a target."""

from __future__ import annotations

import shlex

from hypothesis import assume, example, given
from hypothesis import strategies as st

from diagnose.parse.target import BadTargetError, parse_target

SECRET = "hunter2"
PIECES = ["localhost", "127.0.0.1", "::1", "[::1]", "://", "http", "postgres", "80", *":@/?#%-, é"]
text = st.text(max_size=20) | st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
visible = st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Zs", "Zl", "Zp", "Cs", "Cn", "Co"))
odd = st.text(visible, max_size=4)


@given(text)
@example("\udcff:80")
@example("1" * 5000)
@example("[" + ":" * 500 + "]:80")
def test_any_text_is_a_target_or_gets_one_line(typed: str) -> None:
    refusal = ""
    try:
        target = parse_target(typed)
    except BadTargetError as error:
        refusal = str(error)
    if refusal:
        assert refusal.isprintable()
        example = shlex.split(refusal.rpartition("; for example: netdiag run ")[2])
        assert len(example) == 1
        parse_target(example[0])
    else:
        assert 1 <= target.port <= 65535
        assert target.host
        assert target.input.isprintable()


@given(odd, odd)
@example("?", "")
@example(";", "=")
def test_what_follows_the_first_segment_of_a_path_is_never_shown(before: str, after: str) -> None:
    assert SECRET not in _shown(f"http://localhost:80/a/{before}{SECRET}{after}")


@given(odd, odd, st.sampled_from(["postgres", "http", "redis", "amqp", "mysql+pymysql"]), odd)
@example("#", "?", "http", "")
def test_a_password_is_never_shown(before: str, after: str, scheme: str, user: str) -> None:
    assume(not set(user) & set(":/?#[]@"))
    typed = f"{scheme}://{user}:{before}{SECRET}{after}@localhost/db"
    assert SECRET not in _shown(typed)


@given(odd, st.sampled_from(["password", "PWD", "api_key", "access_token", "secret", "sslpassword"]))
def test_a_password_in_a_query_is_never_shown(before: str, name: str) -> None:
    assume(not set(before) & set("&;#?'\","))
    assert SECRET not in _shown(f"http://localhost:80/?a=1&{name}={before}{SECRET}&b=2")


def _shown(typed: str) -> str:
    try:
        return repr(parse_target(typed))
    except BadTargetError as error:
        return str(error)


@given(st.sampled_from(["127.0.0.1", "localhost", "[::1]", "example.org"]), st.integers(1, 65535))
def test_what_is_shown_of_a_plain_target_can_be_typed_again(host: str, port: int) -> None:
    target = parse_target(f"{host}:{port}")
    assert parse_target(target.input) == target
