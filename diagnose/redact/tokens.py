"""Which token stands for which name: the same name has the same token everywhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from diagnose.redact.addresses import Addresses
from diagnose.redact.kinds import GROUPS, Group, Kind

_STEMS = "|".join(kind.value for kind in Kind)
_TOKEN = re.compile(
    rf"(?:(?:{_STEMS})-\d{{1,6}}|VARIABLE\d{{1,6}}|comment-\d{{1,6}}|0{{5}}[0-9a-f]{{7}}0{{0,52}})", re.ASCII
)


class Tokens:
    """Names and what stands for them."""

    def __init__(self, keep: Iterable[Group], texts: Iterable[str], addresses: Addresses) -> None:
        self.keep = frozenset(keep)
        self.addresses = addresses
        self._given: dict[str, str] = {}
        self._counts: Counter[Kind] = Counter()
        self._taken = frozenset(found for text in texts for found in _TOKEN.findall(text))
        self.kinds: Counter[Kind] = Counter()

    def kept(self, kind: Kind) -> bool:
        """Whether the sender wants what is of this kind to stay."""
        return GROUPS.get(kind) in self.keep

    def known(self, name: str) -> str | None:
        """What stands for the name; None: it was not met as one."""
        return self._given.get(name)

    def token(self, kind: Kind, name: str) -> str:
        """What stands for the name, which is of this kind where it was not met before."""
        found = self._given.get(name)
        if found is not None:
            return found
        if self.kept(kind) or is_token(name):
            self._given[name] = name
            return name
        return self._give(kind, name, self._fresh(kind))

    def identity(self, name: str, token: str, kind: Kind) -> None:
        """Says what stands for the name, where nothing does yet."""
        if name not in self._given and not is_token(name):
            self._give(kind, name, token)

    def fresh_id(self, name: str) -> str:
        """The token of a container's id: as long as it, and its beginning names it as well."""
        found = self._given.get(name)
        if found is not None:
            return found
        if self.kept(Kind.ID) or is_token(name):
            self._given[name] = name
            return name
        number = self._number(Kind.ID, lambda n: f"00000{n:07x}")
        token = f"00000{number:07x}" + "0" * max(0, min(len(name), 64) - 12)
        return self._give(Kind.ID, name, token)

    @property
    def mapping(self) -> dict[str, str]:
        """Every token, and what it stands for."""
        pairs = (*self._given.items(), *self.addresses.given.items())
        return {token: name for name, token in pairs if token != name}

    @property
    def learnt(self) -> dict[str, str]:
        """Every name that is replaced."""
        return {name: token for name, token in self._given.items() if name != token}

    def _give(self, kind: Kind, name: str, token: str) -> str:
        self._given[name] = token
        self.kinds[kind] += 1
        return token

    def _fresh(self, kind: Kind) -> str:
        stem = "VARIABLE" if kind is Kind.VARIABLE else f"{kind.value}-"
        return f"{stem}{self._number(kind, lambda n: f'{stem}{n}')}"

    def _number(self, kind: Kind, form: object) -> int:
        assert callable(form)
        self._counts[kind] += 1
        while form(self._counts[kind]) in self._taken:
            self._counts[kind] += 1
        return self._counts[kind]


def is_token(text: str) -> bool:
    """Whether it is one already, from an earlier redaction."""
    return bool(_TOKEN.fullmatch(text))
