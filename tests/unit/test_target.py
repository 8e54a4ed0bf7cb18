"""What the user typed -> a target, or one line that says what was wrong."""

from __future__ import annotations

import shlex
from time import monotonic

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
        ("cafe\u0301.local:80", "caf\u00e9.local", 80, None),
        ("भारत.example:80", "भारत.example", 80, None),
        ("tcp://127.0.0.1:3000", "127.0.0.1", 3000, "tcp"),
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
        ("localhost:", "no port: it is missing"),
        ("127.0.0.1:08080", "begins with a zero"),
        ("\uff10:80", "only look like ASCII"),
        ("localhost\uff1a80", "only look like ASCII"),
        ("127\u30020.0.1:80", "only look like ASCII"),
        ("https://\uff4cocalhost/", "only look like ASCII"),
        ("\u0301a:80", "combining mark"),
        ("udp://127.0.0.1:53", "names UDP"),
        ("UDP4://127.0.0.1:53", "names UDP"),
        ("sctp://127.0.0.1:53", "another transport"),
        ("unix:/run/docker.sock", "a socket of this machine"),
        ("unix:///run/docker.sock", "a socket of this machine"),
        ("http+unix://%2Frun%2Fdocker.sock/v1", "a socket of this machine"),
        ("file:///etc/hosts", "a file"),
        ("/run/postgresql/.s.PGSQL.5432", "a path"),
        ("tcp:127.0.0.1:3000", "without the two slashes"),
        ("http:/localhost:80", "without the two slashes"),
        ("localhost:3000/api", "a path or a query"),
        ("localhost:3000?a=b", "a path or a query"),
        ("DATABASE_URL=postgres://a:b@localhost/x", "sets a variable"),
        ("PORT=3000", "sets a variable"),
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
        ("x" * 400_000, "has 400000 characters"),
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
    assert message.isprintable()
    assert len(message) < 400
    parse_target(example(message))


def example(message: str) -> str:
    """The target that the line gives as an example, as a shell reads it."""
    typed, told, command = message.partition("; for example: ")
    assert typed, message
    assert told, message
    program, verb, target = shlex.split(command)
    assert (program, verb) == ("netdiag", "run")
    return target


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("\uff10:\uff18\uff10", "0:80"),
        ("127.0.0.1:08080", "127.0.0.1:8080"),
        ("udp://127.0.0.1:53", "127.0.0.1:53"),
        (":ssh", "localhost:22"),
        ("localhost:https", "localhost:443"),
        ("tcp:127.0.0.1:3000", "127.0.0.1:3000"),
        ("http:/localhost:81", "http://localhost:81"),
        ("http//localhost", "http://localhost:80"),
        ("localhost:3000/api", "localhost:3000"),
        ("127.0.0.1 3000", "127.0.0.1:3000"),
        ("localhost port 3000", "localhost:3000"),
        ("curl http://localhost:3000/x", "http://localhost:3000"),
        ("DATABASE_URL=postgres://a:b@localhost/x", "postgres://localhost:5432"),
        ("export URL='http://localhost:8000/'", "http://localhost:8000"),
        ("host=db port=5433 password=hunter2", "db:5433"),
        ("Server=tcp:h,1433;Password=hunter2", "h:1433"),
        ("user:pw@tcp(localhost:3306)/db", "localhost:3306"),
        ("::1", "[::1]:62893"),
        ("::1:80", "[::1]:80"),
        ("[::1]80", "[::1]:62893"),
        ("0.0.0.0:8080->80/tcp", "localhost:8080"),
        ("3000/tcp", "localhost:3000"),
        ("*:80", "localhost:80"),
        ("localhost", "localhost:62893"),
        ("\u201clocalhost:80\u201d", "localhost:80"),
        ("localhost:80,", "localhost:80"),
        ("localhost:80\u200b", "localhost:80"),
        ("mongodb://a,b/db", "mongodb://a:27017"),
        ("compose:db", "compose:db:5432"),
        ("unix:/run/docker.sock", "127.0.0.1:62893"),
        ("file:///etc/hosts", "127.0.0.1:62893"),
        ("hunter2", "127.0.0.1:62893"),
        ("99999", "127.0.0.1:62893"),
        ("12345678:x", "127.0.0.1:62893"),
        ("mysql:host=db;port=3306;password=x", "db:3306"),
    ],
)
def test_the_example_is_what_was_probably_meant(text: str, meant: str) -> None:
    with pytest.raises(BadTargetError) as refused:
        parse_target(text)
    assert example(str(refused.value)) == meant


@pytest.mark.parametrize(
    "secret", ["QWxhZGRpbjpvcGVu", "AbCdEfGhIjKlMnOp", "123456789012345", "SECRETTOK", "hunter2x9"]
)
@pytest.mark.parametrize("form", ["{}", "pw={}:443x", "user {}:443", "compose:{}:", "x={}", "a b {}:1", "Basic {}:80"])
def test_what_is_hidden_of_a_bad_target_is_not_in_its_example(form: str, secret: str) -> None:
    with pytest.raises(BadTargetError) as refused:
        parse_target(form.format(secret))
    assert secret not in str(refused.value)


def test_an_example_with_brackets_is_quoted_as_bash_and_zsh_need_it() -> None:
    with pytest.raises(BadTargetError, match=r"netdiag run '\[::1\]:80'$"):
        parse_target("::1:80")


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
        f"redis://{SECRET}@localhost",
        f"postgres://{SECRET}@localhost/db",
        f"amqp://{SECRET}:x@localhost/",
        f"http://localhost/hooks/{SECRET}",
        f"http://localhost/hooks/a/{SECRET}/b",
        f"http://localhost/bot123456:{SECRET}/send",
        f"http://localhost/a%2F{SECRET}",
        f"http://localhost/a;jsessionid={SECRET}",
        f"http://localhost/a;v={SECRET}/b",
        f"http://localhost/?q={SECRET}",
        f"http://localhost/?{SECRET}",
        f"http://localhost/?{SECRET}%20=1",
        f"http://localhost/?a=1;b={SECRET}",
        f"mysql://localhost/db/{SECRET}",
    ],
)
def test_the_password_never_leaves_the_parser(text: str) -> None:
    target = parse_target(text)
    assert target.host == "localhost"
    assert SECRET not in repr(target)


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
        f"postgres://user@corp:/{SECRET}@@localhost/db",
        f"redis://{SECRET}@localhost:x",
        f"http://localhost:x/hooks/{SECRET}",
        f"http://localhost:x/?q={SECRET}",
        f"localhost:80/{SECRET}",
        f"localhost:80?{SECRET}",
        f"localhost 80 {SECRET}",
        f"localhost:5432:db:user:{SECRET}",
        f"curl -H {SECRET} http://localhost:80",
        f"API_KEY={SECRET}",
        f"URL=http://localhost/{SECRET}",
        f"unix:/run/{SECRET}/x.sock",
        f"file:///home/{SECRET}",
        f"udp://localhost:53/{SECRET}",
        f"mongodb://a,b/{SECRET}",
        f"foo://localhost/{SECRET}",
        f"compose:db:{SECRET}",
        SECRET,
        f"pw={SECRET}:443x",
        f"PASSWORD={SECRET}:443",
        f"user {SECRET}:443",
        f"Authorization: Basic {SECRET}:80",
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
        "http://localhost:3000",
        "http://localhost:3000/",
        "http://localhost:3000/api",
        "http://localhost:3000/api/",
        "http://localhost:3000/@vite",
        "http://localhost:3000/?debug=",
        "postgres://localhost/shop",
        "redis://localhost/0",
    ],
)
def test_a_target_without_a_secret_is_shown_as_it_was_typed(text: str) -> None:
    assert parse_target(text).input == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://localhost:3000/api/v1/users?id=7&x#top", "http://localhost:3000/api/***?id=***&***#***"),
        ("http://localhost:3000/a;v=1/b", "http://localhost:3000/a;***/***"),
        ("postgres://app:pw@localhost/shop?sslmode=require", "postgres://***@localhost/shop?sslmode=***"),
        ("jdbc:sqlserver://localhost:1433;user=sa;encrypt=true", "jdbc:sqlserver://localhost:1433;***"),
        ("https://[::1]:8443/0123456789abcdef0123456789abcdef", "https://[::1]:8443/***"),
    ],
)
def test_of_a_url_the_host_the_first_segment_and_the_names_of_values_are_shown(text: str, shown: str) -> None:
    assert parse_target(text).input == shown


@pytest.mark.parametrize(
    "text", ["x" * 400_000, ":" * 400_000, "http://a/" + "a@" * 200_000, "=" * 400_000, "é" * 8000]
)
def test_a_target_of_any_length_is_answered_within_a_second(text: str) -> None:
    begin = monotonic()
    with pytest.raises(BadTargetError) as refused:
        parse_target(text)
    assert monotonic() - begin < 1
    assert len(str(refused.value)) < 400
