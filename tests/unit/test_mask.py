"""Secrets in command lines and texts are hidden, and what is no secret stays."""

from __future__ import annotations

import shlex
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diagnose.parse import secret
from diagnose.parse.mask import mask_command, mask_text

SECRET = "hunter2hunter2hunter2"


@pytest.mark.parametrize(
    "line",
    [
        "mysqld --password=% --port 3306",
        "mysqld --password %",
        "mysql -u root -p% db",
        "sudo /usr/bin/mysqldump -p% --all",
        "redis-cli -a % ping",
        "mongosh -u admin -p %",
        "sshpass -p% ssh x",
        "sshpass -p % ssh x",
        "docker login -u bob -p % registry.example",
        "psql postgres://bob:%@localhost/db?sslmode=off",
        "app amqp://u:%@h1,amqp://u:%@h2",
        "app redis://:%@localhost",
        "git clone https://%@github.com/x/y",
        "app user:%@tcp(db:3306)/x",
        "curl -u bob:% http://x/",
        "curl -ubob:% http://x/",
        "curl --user=bob:% http://x/",
        "curl -H 'Authorization: Bearer %' http://x/",
        "curl -H 'X-Api-Key: %' http://x/",
        "curl 'https://maps/api?key=%&x=1'",
        "env PGPASSWORD=% psql",
        "env GITHUB_TOKEN=% make",
        "env DB_PASS='% with spaces %' x",
        "java -Dspring.datasource.password=% -jar app.jar",
        "node server.js --api-key % --token %",
        "openssl s_client -pass pass:%",
        "app 'Server=db;Password=%;Database=x'",
        'app \'{"password": "%"}\'',
        "sh -c 'exec mysql -p%'",
        "sh -c \"run --password '% %' && echo ok\"",
        "sh -c \"sh -c 'mysql -p%'\"",
        "postgres: password=%",
        "app ghp_%",
        "app --secret-access-key %",
        "app --access_token=%",
    ],
)
def test_a_secret_never_leaves(line: str) -> None:
    masked = mask_command(shlex.split(line.replace("%", SECRET)))
    assert SECRET not in masked
    assert "hunter2" not in masked
    assert "***" in masked


@pytest.mark.parametrize(
    "line",
    [
        "python3 -m http.server 8080 --bind 127.0.0.1",
        "nginx: master process /usr/sbin/nginx -g daemon off;",
        "docker run -p 8080:80 --user 1000:1000 image:tag@sha256:abc",
        "nginx --password-file /run/p --secret-file=/run/secrets/x",
        "vite --host http://localhost:3000/@vite/client",
        "app --tokenizer bert --author bob --passive --keyboard us",
        "ssh -p 22 bob@host",
        "psql -h localhost -p 5432",
        "redis-server *:6379",
        "mysqld --port=3306 --user=mysql",
        "netdiag run --bind 8080",
        "",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert mask_command(line.split(" ")) == line


def test_what_surrounds_a_secret_stays() -> None:
    masked = mask_text(f"dial postgres://bob:{SECRET}@db:5432/shop?sslmode=off then token={SECRET}&page=2")
    assert masked == "dial postgres://bob:***@db:5432/shop?sslmode=off then token=***&page=2"


@given(st.lists(st.text(max_size=40), max_size=6))
@example(["-p", ""])
@example(["\x00", "\n", "="])
def test_any_command_line_is_masked_without_a_crash(argv: list[str]) -> None:
    assert isinstance(mask_command(argv), str)


WORDS = st.sampled_from(
    ["mysql", "-p", "-px", "--user", "a:b", "://", "@", "key=", "?", "pass:", "ghp_" + "a" * 30, "x", "=", "sk-", "-U"]
)


@given(st.lists(st.one_of(WORDS, st.text(max_size=12)), max_size=8))
def test_the_quick_look_never_skips_what_the_patterns_would_hide(argv: list[str]) -> None:
    assert mask_command(argv) == (secret.hide_in_command(argv) if argv else "")


@pytest.mark.parametrize("hostile", ["a", "secret", "a:", "://", "pass ", "--password=", "'", '"a', "x@", "a.b-", "= "])
def test_a_hostile_command_line_costs_no_more_than_a_moment(hostile: str) -> None:
    text = hostile * (8192 // len(hostile))
    started = time.perf_counter()
    mask_command([text])
    mask_command(text.split())
    # seconds, not milliseconds: only a pattern that explodes fails
    assert time.perf_counter() - started < 2
