"""What the user typed -> a target, or one line that says what was wrong."""

from __future__ import annotations

import pytest

from diagnose.parse.target import BadTargetError, parse_target

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "host", "port", "scheme"),
    [
        ("127.0.0.1:62893", "127.0.0.1", 62893, None),
        ("localhost:62893", "localhost", 62893, None),
        ("[::1]:62893", "::1", 62893, None),
        (":62893", "localhost", 62893, None),
        ("62893", "localhost", 62893, None),
        ("example.org:443", "example.org", 443, None),
        ("my_service.internal.:80", "my_service.internal.", 80, None),
        ("127.1:80", "127.1", 80, None),
        ("localhost:00080", "localhost", 80, None),
        ("[::0001]:1", "::1", 1, None),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80, None),
        ("[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1", 80, None),
        ("http://[fe80::1%25eth0]:80/", "fe80::1%eth0", 80, "http"),
        ("localhost:65535", "localhost", 65535, None),
        ("http://localhost:3000/x", "localhost", 3000, "http"),
        ("http://localhost", "localhost", 80, "http"),
        ("HTTPS://Example.org/a?b=c", "Example.org", 443, "https"),
        ("http://[::1]:8080/", "::1", 8080, "http"),
        ("http://[::1]/", "::1", 80, "http"),
        ("ws://localhost/socket", "localhost", 80, "ws"),
        ("postgres://u:p@localhost/db", "localhost", 5432, "postgres"),
        ("postgresql+psycopg2://u:p@localhost/db", "localhost", 5432, "postgresql+psycopg2"),
        ("postgres://u:p@[::1]:5433/db", "::1", 5433, "postgres"),
        ("redis://localhost/0", "localhost", 6379, "redis"),
        ("redis://:p@localhost:6380/0", "localhost", 6380, "redis"),
        ("mongodb://localhost", "localhost", 27017, "mongodb"),
        ("amqp://guest:guest@localhost/%2f", "localhost", 5672, "amqp"),
        ("jdbc:postgresql://localhost/db?user=a", "localhost", 5432, "postgresql"),
        ("jdbc:sqlserver://localhost:1433;user=sa;encrypt=true", "localhost", 1433, "sqlserver"),
    ],
)
def test_a_target_in_any_usual_form_is_read(text: str, host: str, port: int, scheme: str | None) -> None:
    target = parse_target(text)
    assert (target.host, target.port, target.scheme, target.transport) == (host, port, scheme, "tcp")


@pytest.mark.parametrize(
    ("text", "what_was_wrong"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("localhost", "no port"),
        ("localhost:", "port is missing"),
        ("localhost:0", "not between 1 and 65535"),
        ("localhost:70000", "not between 1 and 65535"),
        ("localhost:65536", "not between 1 and 65535"),
        ("localhost:-1", "not a number"),
        ("localhost:http", "not a number"),
        ("localhost:٣٤", "not a number"),
        ("localhost:99999999999999999999", "not a number"),
        ("::1:80", "brackets"),
        ("::1", "brackets"),
        ("a:b:80", "more than one colon"),
        ("[::1]", "no port behind the bracket"),
        ("[::1", "no port behind the bracket"),
        ("[::1]80", "no port behind the bracket"),
        ("[127.0.0.1]:80", "no IPv6 address"),
        ("[localhost]:80", "no IPv6 address"),
        ("[fe80::1%]:80", "no interface name"),
        ("[fe80::1%a/b]:80", "no interface name"),
        ("local host:80", "space or a control character"),
        ("localhost\n:80", "space or a control character"),
        ("localhost:80\x1b[31m", "space or a control character"),
        ("local\u202ehost:80", "space or a control character"),
        ("-x:80", "neither a name nor an address"),
        ("a..b:80", "neither a name nor an address"),
        ("a/b:80", "neither a name nor an address"),
        (f"{'a' * 254}:80", "neither a name nor an address"),
        ("http://", "no host"),
        ("http://:80/", "no host"),
        ("redis:///0", "no host"),
        ("http://localhost:x/", "not a number"),
        ("http://localhost:99999/", "not between 1 and 65535"),
        ("http://[::1/", "no URL"),
        ("foo://localhost", "no default one"),
        ("mongodb://a,b/db", "several servers"),
        ("mongodb+srv://cluster/db", "SRV"),
    ],
)
def test_a_bad_target_gets_one_line_with_what_was_wrong_and_an_example(text: str, what_was_wrong: str) -> None:
    with pytest.raises(BadTargetError) as refused:
        parse_target(text)
    message = str(refused.value)
    assert what_was_wrong in message
    assert "netdiag run " in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        f"postgres://u:{SECRET}@localhost/db",
        f"postgres://u:{SECRET}@@localhost/db",
        f"postgres://u:a@{SECRET}@localhost/db",
        f"postgres://u:a:{SECRET}@localhost/db",
        f"postgres://u:a%40{SECRET}@localhost/db",
        f"postgres://u:!$&'()*+,;={SECRET}@localhost/db",
        f"postgres://user@corp:{SECRET}@localhost/db",
        f"redis://:{SECRET}@localhost",
        f"http://u:{SECRET}@localhost/",
        f"https://{SECRET}@localhost/",
        f"jdbc:mysql://sa:{SECRET}@localhost/db",
        f"jdbc:postgresql://localhost/db?user=a&password={SECRET}",
        f"jdbc:sqlserver://localhost:1433;user=sa;password={SECRET};encrypt=true",
        f"http://localhost:80/?a=1&api_key={SECRET}&b=2",
        f"http://localhost:80/#access_token={SECRET}",
    ],
)
def test_the_password_never_leaves_the_parser(text: str) -> None:
    target = parse_target(text)
    assert target.host == "localhost"
    assert SECRET not in repr(target)


def test_a_password_that_is_not_escaped_is_masked_though_it_hides_the_host() -> None:
    assert SECRET not in repr(parse_target(f"postgres://user@corp:/{SECRET}@@localhost/db"))


@pytest.mark.parametrize(
    "text",
    [
        f"postgres://u:{SECRET}@localhost:port/db",
        f"postgres://u:{SECRET}@localhost:0/db",
        f"postgres://u:a/{SECRET}@localhost/db",
        f"postgres://u:a#{SECRET}@localhost/db",
        f"postgres://u:a?{SECRET}@localhost/db",
        f"postgres://u:{SECRET}@/db",
        f"foo://u:{SECRET}@localhost",
        f"mongodb://u:{SECRET}@a,b/db",
        f"mongodb+srv://u:{SECRET}@cluster/db",
        f"JDBC:mysql://u:{SECRET}@localhost/db",
        f"postgres://u:{SECRET} @localhost/db",
        f"Server=localhost;User=sa;Password={SECRET};",
        f"host=localhost port=5432 password={SECRET}",
        f"localhost:6379,password={SECRET},ssl=true",
        f"localhost:6379,ssl=true,password={SECRET}",
        f"Server=localhost;Password=a#{SECRET};",
        f"host=localhost password='a {SECRET}'",
        f"user:{SECRET}@localhost",
        f"user:{SECRET}@localhost:5432",
        f"user:{SECRET}@tcp(localhost:3306)/db",
        f"//user:{SECRET}@localhost:80",
        f"jdbc:oracle:thin:sys/{SECRET}@localhost:1521:orcl",
    ],
)
def test_the_password_of_a_bad_target_is_not_in_the_error_line(text: str) -> None:
    with pytest.raises(BadTargetError) as refused:
        parse_target(text)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:62893",
        ":80",
        "[::1]:80",
        "http://localhost:3000/a/b?c=d#e",
        "http://localhost:3000/@vite/client",
        "https://localhost/@scope/package",
        "http://localhost:3000/?mail=a@b",
        "redis://u@localhost/0",
    ],
)
def test_a_target_without_a_secret_is_shown_as_it_was_typed(text: str) -> None:
    assert parse_target(text).input == text
