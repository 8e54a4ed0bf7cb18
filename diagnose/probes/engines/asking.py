"""One engine, asked over its socket by docker's own client library; podman answers the same questions."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from typing import Any

from diagnose.model.fact import Reason, Unknown
from diagnose.parse.mask import mask_text

ANSWER_LIMIT = 16 << 20
"""Bytes; in the list a container takes about 1 kB, described by itself 10 kB."""
_CHUNK = 1 << 16
_DETAIL_LENGTH = 300
_VERSION = re.compile(r"\d{1,3}\.\d{1,3}")
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]*")
_ANY_VERSION = "1.44"
"""A ping has none in its path, but the library wants one."""


class NoAnswerError(Exception):
    """The engine gave no answer that could be used."""

    def __init__(self, unknown: Unknown) -> None:
        super().__init__(str(unknown))
        self.unknown = unknown


class NotThereError(Exception):
    """The engine knows no such container."""


class Conversation:
    """Questions to one engine, none of which changes anything. To load the library takes 0.1 s, each question 2 ms."""

    def __init__(self, address: str, seconds: float) -> None:
        """Raises NoAnswerError."""
        self._ends = time.monotonic() + seconds
        self.engine, version = self._answer(lambda: self._greeting(address))
        if not _VERSION.fullmatch(version):
            raise NoAnswerError(Unknown(Reason.UNPARSABLE, "the engine does not tell the version of its API"))
        self._asked = self._answer(lambda: self._client(address, version))

    def _greeting(self, address: str) -> tuple[str, str]:
        """The engine's name and the newest version of its API, from the headers of its answer to a ping.

        Podman runs programs to answer what its version is, and takes a second.
        """
        client = self._client(address, _ANY_VERSION)
        response = client.get(f"{client.base_url}/_ping", timeout=client.timeout)
        response.raise_for_status()
        is_podman = "libpod" in response.headers.get("Server", "").lower()
        return "podman" if is_podman else "docker", response.headers.get("Api-Version", "")

    def containers(self) -> Any:
        """All of them, newest first. Raises NoAnswerError."""
        return self._answer(lambda: self._asked.containers(all=True))

    def container(self, name: str) -> Any:
        """One by its name or by how its id begins. Raises NotThereError and NoAnswerError."""
        if not _NAME.fullmatch(name):
            raise NotThereError(name)
        return self._answer(lambda: self._asked.inspect_container(name))

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._ends

    def _client(self, address: str, version: str) -> Any:
        from docker import APIClient
        from docker.utils import config

        config.find_config_file = _no_file
        client = APIClient(base_url=address, version=version, timeout=max(self._ends - time.monotonic(), 0.001))
        client.trust_env = False  # no proxy
        client.max_redirects = 0  # to nobody else
        client.headers["Accept-Encoding"] = "identity"
        client.hooks["response"].append(_bounded)
        return client

    def _answer(self, ask: Callable[[], Any]) -> Any:
        from docker.errors import APIError, NotFound

        try:
            return ask()
        except NotFound:
            raise NotThereError from None
        except APIError as error:
            unknown = Unknown(Reason.FAILED, f"it answers {error.status_code}: {_short(str(error.explanation))}")
        except Exception as error:  # noqa: BLE001 - also of the libraries below: each becomes "could not look"
            unknown = Unknown(Reason.DEADLINE, "it gave no answer in time") if self.over else _unknown(error)
        raise NoAnswerError(unknown) from None


def _no_file(config_path: str | None = None) -> None:
    """The library would read the user's credentials and proxies, of which we need none, from whatever stands there."""


def _unknown(error: Exception) -> Unknown:
    """An answer that cannot be read, or none."""
    unreadable = isinstance(error, (ValueError, LookupError, TypeError, AttributeError, RecursionError))
    return Unknown(Reason.UNPARSABLE if unreadable else Reason.FAILED, _short(_why(error)))


def _bounded(response: Any, **_: Any) -> None:
    """Reads the answer before the library does, which would take it at any size and unpack it."""
    content = bytearray()
    for chunk in response.raw.stream(_CHUNK, decode_content=False):
        content += chunk
        if len(content) > ANSWER_LIMIT:
            response.raw.close()
            raise ValueError(f"an answer of more than {ANSWER_LIMIT >> 20} MB")
    response.raw = io.BytesIO(content)
    response.encoding = "utf-8"


def _why(error: BaseException) -> str:
    """The innermost error, without the libraries' wrapping."""
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"


def _short(text: str) -> str:
    return mask_text(text[:_DETAIL_LENGTH])
