"""The firewall's fact: what the machine's rules do to a connect to each endpoint."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Sequence

from diagnose.model.attempt import Outcome
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.firewall import Shadow, Walk
from diagnose.model.network import Endpoint
from diagnose.parse.nft import Ruleset
from diagnose.parse.xtables import Block

_LIFT = "run it again with sudo"


def look(endpoints: Sequence[Endpoint], deadline: float) -> Fact[Shadow]:
    """Walks a copy of the rule sets of this network namespace to each of these local endpoints; `deadline` in seconds.

    Needs CAP_NET_ADMIN to read the rules and CAP_SYS_ADMIN for the copy; changes nothing on the machine.
    """
    if sys.platform != "linux":
        return NOT_LINUX
    until = time.monotonic() + deadline
    # only a machine that is asked about its rules pays for these imports
    from diagnose.probes.shadow import machine

    try:
        rules = machine.rules(deadline)
        blocks = machine.blocks()
    except PermissionError as error:
        return Unknown(Reason.NEEDS_ROOT, f"the rule sets cannot be read: {error.strerror}", _LIFT)
    except TimeoutError:
        return Unknown(Reason.DEADLINE, "the kernel did not list its rule sets in time")
    except OSError as error:
        return Unknown(Reason.FAILED, f"the rule sets cannot be read: {error.strerror}")
    except ValueError as error:
        return Unknown(Reason.UNPARSABLE, f"the rule sets cannot be read: {error}")
    if not rules.tables and not blocks:
        return Known(Shadow(tuple(_untouched(endpoint) for endpoint in endpoints)))
    return _Expedition(rules, blocks, endpoints, until).fact()


def _untouched(endpoint: Endpoint) -> Walk:
    return Walk(endpoint.address, endpoint.port, Outcome.CONNECTED, (), None, "accept")


class _Expedition:
    """A thread that enters a namespace of its own, and what it brings back."""

    def __init__(self, rules: Ruleset, blocks: tuple[Block, ...], endpoints: Sequence[Endpoint], until: float) -> None:
        self._rules = rules
        self._blocks = blocks
        self._endpoints = endpoints
        self._until = until
        self._fact: Fact[Shadow] = Unknown(Reason.DEADLINE, "the copy of the rule sets was not ready in time")

    def fact(self) -> Fact[Shadow]:
        # a network namespace belongs to a thread: nothing of it is left when the thread ends, or the process dies
        thread = threading.Thread(target=self._run, name="netdiag shadow", daemon=True)
        thread.start()
        thread.join(max(0.0, self._until - time.monotonic()))
        return self._fact

    def _run(self) -> None:
        try:
            self._fact = self._shadow()
        except PermissionError:
            detail = "a network namespace for the copy of the rule sets cannot be made without CAP_SYS_ADMIN"
            self._fact = Unknown(Reason.NEEDS_ROOT, detail, "run it on the host itself, with sudo")
        except TimeoutError:
            self._fact = Unknown(Reason.DEADLINE, "the copy of the rule sets was not ready in time")
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "")
            self._fact = Unknown(Reason.FAILED, f"the copy of the rule sets could not be made: {error.strerror} {name}")
        except ValueError as error:
            self._fact = Unknown(Reason.UNPARSABLE, f"the copy of the rule sets cannot be read: {error}")

    def _shadow(self) -> Fact[Shadow]:
        from diagnose.probes import sockets
        from diagnose.probes.shadow import machine
        from diagnose.probes.shadow.copy import Copy
        from diagnose.probes.shadow.probing import Prober
        from diagnose.probes.shadow.walking import Walker
        from diagnose.probes.shadow.words import Asking, Words

        asking = Asking(self._rules, self._blocks)
        try:
            links, addresses = machine.links(1.0)
            listening = sockets.look(()).listeners
            seen = machine.Machine(
                self._rules,
                self._blocks,
                addresses,
                links,
                machine.sysctls(),
                listening.value if isinstance(listening, Known) else (),
                machine.queues(),
            )
            copy = Copy(seen, {e.address for e in self._endpoints}, backwards=False)
            copy.observe()
            prober = Prober(copy, self._endpoints)
            probes = [prober.probe(endpoint, self._until) for endpoint in self._endpoints]
            words = Words(self._rules, asking.listings(self._until))
            walker = Walker(copy, words)
            walks = tuple(walker.walk(probe) for probe in probes)
            prober.close()
            copy.close()
            return Known(Shadow(walks, tuple(copy.uncarried), seen.size))
        finally:
            asking.end()
