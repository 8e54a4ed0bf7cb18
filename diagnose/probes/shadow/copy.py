"""A copy of the machine's rule sets in a network namespace of this thread's own."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Collection, Iterable
from itertools import groupby, pairwise

from diagnose.parse import ipset, nfnetlink, nft, nft_state, xt_trace, xtables, xtables_state
from diagnose.parse.nfnetlink import BYTE_ORDER
from diagnose.parse.nft import ChainKey, Kind, Message, Rule, Ruleset, TableKey
from diagnose.parse.nft_state import Cause
from diagnose.parse.xtables import Block
from diagnose.parse.xtables_state import Extended
from diagnose.probes.netlink import ROUTE, Netlink, attribute
from diagnose.probes.shadow import legacy, libc, netfilter
from diagnose.probes.shadow.machine import LOOPBACK, LocalAddress, Machine, addresses_needed, interfaces_needed
from diagnose.probes.shadow.netfilter import RefusedError, Writer
from diagnose.probes.shadow.outside import face as outside_face

_NEW_LINK, _NEW_ADDRESS = 16, 20
_CREATE, _EXCLUSIVE = 0x400, 0x200
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_UP = 1
_NO_DAD = 0x02
_IFNAME, _MTU, _LINKINFO, _INFO_KIND, _INFO_DATA, _VETH_PEER = 3, 4, 18, 1, 2, 1
_LOCAL, _IFA_ADDRESS = 2, 1
_NEW_ROUTE, _OIF = 24, 4
_ROUTE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg."""
_MAIN, _BY_ADMIN, _UNICAST = 254, 4, 1

_GLOBAL_TARGETS = frozenset({"IDLETIMER", "LED"})
"""Targets whose state is the whole machine's, whichever namespace their rule is in: not to be touched by a copy."""

FIRST, LAST = -(1 << 31), (1 << 31) - 1
_OBSERVED = ("prerouting", "input", "output", "postrouting")
_HOOK_NUMBERS = {"prerouting": 0, "input": 1, "output": 3, "postrouting": 4}
_INET = 1


class UncarriedError(Exception):
    """A part of the rule sets that could not be copied, and why."""


class Copy:
    """The namespace that this thread has entered for good, and what it carries.

    `uncarried` names each part that it lacks, by its hooks and in words.
    """

    def __init__(
        self,
        machine: Machine,
        dialled: Collection[str],
        until: float,
        *,
        interfaces: Collection[str] = (),
        backwards: bool = False,
        siblings: bool = True,
    ) -> None:
        self.machine = machine
        self._until = until
        self._interfaces = frozenset(interfaces)
        """Those by which packets come in, whatever their addresses are."""
        self._siblings = siblings
        self.backwards = backwards
        """Base chains of one priority are registered in the other order."""
        self.uncarried: list[str] = []
        self.doubts: list[str] = []
        """Those parts of `uncarried` that may lie on a walk to oneself."""
        self.face: tuple[LocalAddress, ...] = ()
        """The addresses by which the network knows the machine, where the copy has them."""
        self.cables: dict[str, str] = {}
        """The far end of each interface that the copy has, by the near one."""
        self.carried = nft.EMPTY
        self.listed = nft.EMPTY
        """The copy's own listing, before anything was added to it."""
        self.tables: tuple[Extended, ...] = ()
        """Those of iptables-legacy."""
        self.rules: dict[tuple[TableKey, int], Rule] = {}
        """The machine's rule by table and by handle in the copy."""
        self.siblings: dict[tuple[TableKey, int], tuple[Rule, Cause]] = {}
        """The machine's rule by table and handle of its sibling in the copy."""
        self.unprobed: list[Rule] = []
        """Rules that need a sibling and have none."""
        self.observer = _free_name(machine.rules)
        libc.unshare_network()
        self._links(dialled)
        self._sysctls()
        if not machine.local_table_first:
            self._lack("routing rules, of which one comes before the local table")
        self.writer: Writer | None = None
        self._load()

    def close(self) -> None:
        """Give the sockets back; the namespace goes with the last of them and the thread."""
        if self.writer is not None:
            self.writer.close()

    @property
    def unmarked(self) -> bool:
        """Probes leave nothing in it that changes what a later one meets, and it has no rule but the machine's."""
        if self.machine.ip_sets or self.siblings or self.unprobed or any(table.siblings for table in self.tables):
            return False
        return not any(b"dynset" in rule.given for rule in self.carried.rules)

    def _in_time(self) -> None:
        """TimeoutError when there is no time left for a next step."""
        if time.monotonic() > self._until:
            raise TimeoutError("the copy was not ready in time")

    # ------ addresses and sysctls

    def _links(self, dialled: Collection[str]) -> None:
        with Netlink(ROUTE) as client:
            loopback_up(client, self._mtu("lo"))
            needed = dict.fromkeys((*interfaces_needed(self.machine, dialled), *sorted(self._interfaces)))
            for name in needed:
                if name not in self.cables:
                    self._interface(client, name, len(self.cables))
            for address in addresses_needed(self.machine, dialled, needed):
                self._address(client, address)

    def _interface(self, client: Netlink, name: str, number: int) -> None:
        known = self.machine.links
        index = known[name].index if name in known else 0
        spare = max((link.index for link in known.values()), default=1) + 1 + number
        far = f"netdiag{number}"
        peer = _LINK.pack(0, 0, spare, 0, 0) + attribute(_IFNAME, far.encode() + b"\0")
        kind = attribute(_INFO_KIND, b"veth") + attribute(_INFO_DATA, attribute(_VETH_PEER, peer))
        request = _LINK.pack(0, 0, index, 0, 0) + attribute(_IFNAME, name.encode() + b"\0")
        try:
            client.request(_NEW_LINK, _CREATE | _EXCLUSIVE, request + attribute(_LINKINFO, kind))
            for end in (spare, index):
                client.request(_NEW_LINK, 0, _LINK.pack(0, 0, end, _UP, _UP) + self._mtu(name))
        except OSError as error:
            self._lack(f"interface {name}: {error.strerror}")
        else:
            self.cables[name] = far

    def _mtu(self, name: str) -> bytes:
        """The MTU of the machine's interface, as far as the copy's can have it: a cable's is 65535 at most."""
        link = self.machine.links.get(name)
        if link is None or not link.mtu:
            return b""
        mtu = link.mtu if name == "lo" else max(68, min(link.mtu, 65535))
        return attribute(_MTU, mtu.to_bytes(4, BYTE_ORDER))

    def _address(self, client: Netlink, address: LocalAddress) -> None:
        packed = socket.inet_pton(address.family, address.address)
        flags = _NO_DAD if address.family == socket.AF_INET6 else 0
        request = _ADDRESS.pack(address.family, address.prefix, flags, address.scope, address.index)
        request += attribute(_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
        try:
            client.request(_NEW_ADDRESS, _CREATE | _EXCLUSIVE, request)
        except FileExistsError:
            pass  # the kernel gave lo its own address, or an interface its link-local one
        except OSError as error:
            self._lack(f"address {address.address}: {error.strerror}")

    def face_the_network(self) -> None:
        """Has the addresses by which the network knows the machine, with their interfaces, and routes to everywhere."""
        face = outside_face(self.machine.addresses)
        self._links([address.address for address in face])
        with Netlink(ROUTE) as client:
            for address in face:
                route = _ROUTE.pack(address.family, 0, 0, 0, _MAIN, _BY_ADMIN, 0, _UNICAST, 0)
                try:
                    client.request(_NEW_ROUTE, _CREATE, route + attribute(_OIF, address.index.to_bytes(4, BYTE_ORDER)))
                except OSError:
                    continue  # what the network would see there is then not measured
                if address.interface in self.cables:
                    self.face += (address,)

    def _sysctls(self) -> None:
        if self.machine.hidden_sysctls:
            self._lack(f"sysctls of net that are hidden here: {', '.join(self.machine.hidden_sysctls)}")
        for name, value in self.machine.sysctls.items():
            try:
                with open(f"/proc/sys/net/{name}", "r+", encoding="ascii") as file:
                    if file.read().strip() != value:
                        file.seek(0)
                        file.write(value)
            except FileNotFoundError:
                continue  # conntrack's appear with the first rule that needs it
            except OSError as error:
                self._lack(f"sysctl net/{name}: {error.strerror}")

    # ------ rule sets

    def _load(self) -> None:
        self._load_ip_sets()
        steps = [self._load_nft, self._load_legacy]
        for step in reversed(steps) if self.backwards else steps:
            self._in_time()
            step()
        self._in_time()
        self._verify_nft()

    def _load_ip_sets(self) -> None:
        known = self.machine.ip_sets
        if not known:
            return
        try:
            netfilter.make_ip_sets(known, 5.0)
            made = {one.name: ipset.canonical(one) for one in netfilter.ip_sets(5.0)}
            differing = [one.name for one in known if made.get(one.name) != ipset.canonical(one)]
        except OSError as error:
            self._lack(f"IP sets: {_words(error)}")
        else:
            for name in differing:
                self._lack(f"IP set {nft.readable(name)}: listed otherwise in the copy")

    def _load_legacy(self) -> None:
        carried: list[Extended] = []
        for block in self.machine.blocks[:: -1 if self.backwards else 1]:
            side = legacy.SIDES[1 if block.layout.six else 0]
            try:
                _refuse_global_targets(block)
                _write(side, block)
                extended = xtables_state.extend(block, siblings=self._siblings)
                if extended.siblings:
                    _write(side, extended.block)
            except (OSError, UncarriedError) as error:
                self._lack(f"{tool_of(block.layout.six, legacy=True)} table {block.info.table}: {_words(error)}")
            else:
                carried.append(extended)
        self.tables = tuple(carried)

    def _load_nft(self) -> None:
        # packets to oneself cross no bridge, and are no ARP
        rules = self.machine.rules.only(t.key for t in self.machine.rules.tables if t.key.family in _FAMILIES_OF)
        if not rules.tables:
            return
        self.writer = Writer()
        try:
            self._commit(rules)
            self.carried = rules
        except RefusedError:
            # one by one, so that one table that cannot be carried does not cost the others
            for table in rules.tables:
                self._in_time()
                part = rules.only((table.key,))
                try:
                    self._commit(part)
                except RefusedError as error:
                    self._lose(table.key, _words(error))
                else:
                    self.carried = _joined(self.carried, part)

    def _commit(self, rules: Ruleset) -> None:
        assert self.writer is not None
        _refuse_global_expressions(rules)
        base = [chain for chain in rules.chains if chain.hook is not None]
        if self.backwards:
            base.reverse()
        try:
            self.writer.commit(nft.clone(rules, base, frozenset()))
        except RefusedError:
            # kernels differ in the order in which they want the elements of an interval set
            self.writer.commit(nft.clone(rules, base, nft.intervals(rules)))

    def _lack(self, part: str, *, passed: bool = True) -> None:
        """Notes a part that is missing, and whether a packet to oneself could have passed it."""
        self.uncarried.append(part)
        if passed:
            self.doubts.append(part)

    def _lose(self, table: TableKey, why: str) -> None:
        family = nft.FAMILIES.get(table.family, str(table.family))
        hooks = {c.hook.name for c in self.machine.rules.chains if c.key.table == table and c.hook is not None}
        self._lack(f"nft table {family} {nft.readable(table.name)}: {why}", passed=bool(hooks - {"forward"}))

    def _verify_nft(self) -> None:
        """A copy that does not list equal to the original is no copy."""
        if not self.carried.tables:
            return
        self.listed = netfilter.dump(self._until)
        for table, difference in nft.differences(self.carried, self.listed).items():
            self._lose(table, difference)
        theirs = nft.by_chain(self.listed)
        for chain, mine in nft.by_chain(self.carried).items():
            for original, copy in zip(mine, theirs.get(chain, ()), strict=False):
                self.rules[chain.table, copy.handle] = original

    # ------ siblings and observers

    def sow(self) -> None:
        """Puts a sibling before each rule of which a copy cannot tell whether it matches.

        It has the rule's tests that a copy can answer, and neither verdict nor effect: it changes nothing, and when
        it matches, the rule might.
        """
        wanted = list(nft_state.siblings(self.carried)) if self._siblings else []
        if not wanted or self.writer is None:
            return
        handles = {(rule.chain.table, rule.handle): handle for (_, handle), rule in self.rules.items()}
        requests = [
            (rule, nft_state.request(rule, handles[rule.chain.table, rule.handle], expressions))
            for rule, _, expressions in wanted
            if (rule.chain.table, rule.handle) in handles
        ]
        try:
            self.writer.commit([request for _, request in requests], append=False)
        except RefusedError:
            for rule, request in requests:
                try:
                    self.writer.commit([request], append=False)
                except RefusedError:
                    self.unprobed.append(rule)
        causes = {(rule.chain.table, rule.handle): cause for rule, cause, _ in wanted}
        for _, chain in groupby(netfilter.dump_rules(self._until), key=lambda rule: rule.chain):
            for sibling, following in pairwise(chain):
                subject = self.rules.get((following.chain.table, following.handle))
                if subject is not None and (sibling.chain.table, sibling.handle) not in self.rules:
                    key = subject.chain.table, subject.handle
                    self.siblings[sibling.chain.table, sibling.handle] = subject, causes[key]

    def reread(self) -> None:
        """Notes what the tools have changed in the copy's tables of iptables-legacy."""
        tables: list[Extended] = []
        for table in self.tables:
            side = legacy.SIDES[1 if table.block.layout.six else 0]
            tables.append(xtables_state.extend(legacy.read(side, table.block.info.table), siblings=False))
        self.tables = tuple(tables)

    @property
    def entries_traced(self) -> bool:
        """Whether the kernel's lines about the entries of iptables-legacy can be told from those that rules write."""
        texts = (*(table.block.data for table in self.tables), *(rule.expressions for rule in self.carried.rules))
        return bool(self.tables) and not any(xt_trace.MARK in text for text in texts)

    def observe(self) -> None:
        """Traces every packet, and tells of each hook whether a packet came in and went out again.

        Chains that accept everything, at the first and the last priority there are: they change no verdict.
        """
        if self.writer is None:
            self.writer = Writer()
        self.writer.commit(_observers(self.observer))


def _write(side: legacy.Side, block: Block) -> None:
    legacy.write(side, block)
    if xtables.canonical(legacy.read(side, block.info.table)) != xtables.canonical(block):
        raise UncarriedError("listed otherwise in the copy")


def tool_of(six: bool, *, legacy: bool) -> str:
    """The tool of an iptables backend."""
    return ("ip6tables" if six else "iptables") + ("-legacy" if legacy else "-nft")


def shared_priorities(machine: Machine) -> tuple[str, ...]:
    """The places where two chains have one hook and one priority, so that the order of their registration decides."""
    seen: dict[tuple[str, str, int, bytes], set[str]] = {}
    for chain in machine.rules.chains:
        if chain.hook is None or _dormant(machine.rules, chain.key):
            continue
        name = f"{nft.FAMILIES.get(chain.key.table.family)} {nft.readable(chain.key.table.name)}"
        for family in _FAMILIES_OF.get(chain.key.table.family, ()):
            for device in chain.hook.devices or (b"",):
                seen.setdefault((family, chain.hook.name, chain.hook.priority, device), set()).add(
                    f"{name} {nft.readable(chain.key.name)}"
                )
    for block in machine.blocks:
        family = "ip6" if block.layout.six else "ip"
        for hook in xtables.hooks(block.info):
            priority = _LEGACY_PRIORITIES.get(block.info.table, _NAT_PRIORITIES.get(hook))
            if priority is None:
                continue
            where = (family, hook, priority, b"")
            seen.setdefault(where, set()).add(f"{tool_of(block.layout.six, legacy=True)} {block.info.table}")
    return tuple(
        f"{' and '.join(sorted(chains))} at {hook}, priority {priority}"
        for (_, hook, priority, _), chains in sorted(seen.items())
        if len(chains) > 1 and hook != "forward"
    )


_FAMILIES_OF = {1: ("ip", "ip6"), 2: ("ip",), 10: ("ip6",), 5: ("netdev",)}
_LEGACY_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_NAT_PRIORITIES = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}
"""Of the table nat: where a destination is changed, and where a source is (enum nf_ip_hook_priorities)."""


def _dormant(rules: Ruleset, chain: ChainKey) -> bool:
    return any(table.dormant for table in rules.tables if table.key == chain.table)


def _joined(one: Ruleset, other: Ruleset) -> Ruleset:
    return Ruleset(
        one.tables + other.tables,
        one.chains + other.chains,
        one.rules + other.rules,
        one.sets + other.sets,
        one.others + other.others,
    )


def _refuse_global_targets(block: Block) -> None:
    if not any(name.encode() in block.data for name in _GLOBAL_TARGETS):
        return
    found = {rule.target for rule in xtables.rules(block)} & _GLOBAL_TARGETS
    if found:
        raise UncarriedError(f"{', '.join(sorted(found))} would touch the machine's own state")


def _refuse_global_expressions(rules: Ruleset) -> None:
    names = tuple(name.encode() for name in _GLOBAL_TARGETS)
    for rule in rules.rules:
        if not any(name in rule.given for name in names):
            continue
        for part in nft.expressions(rule):
            if part.name == "target" and nft.extension(part)[0] in _GLOBAL_TARGETS:
                raise RefusedError(errno.EPERM, "would touch the machine's own state")


def _words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _free_name(rules: Ruleset) -> bytes:
    taken = {table.key.name for table in rules.tables}
    name = b"netdiag"
    while name in taken:
        name += b"_"
    return name


def _observers(table: bytes) -> Iterable[Message]:
    where = nfnetlink.generic(_INET)
    yield Kind.TABLE.new, where + nfnetlink.text(1, table)
    for hook in _OBSERVED:
        for place, priority in (("in", FIRST), ("out", LAST)):
            chain = f"{hook}_{place}".encode()
            yield Kind.CHAIN.new, where + nfnetlink.text(1, table) + nfnetlink.text(3, chain) + _base(hook, priority)
    for hook in ("prerouting", "output"):
        chain = nfnetlink.text(1, table) + nfnetlink.text(2, f"{hook}_in".encode())
        yield Kind.RULE.new, where + chain + nfnetlink.nest(4, TRACE)


def _base(hook: str, priority: int) -> bytes:
    where = nfnetlink.u32(1, _HOOK_NUMBERS[hook]) + nfnetlink.u32(2, priority)
    return nfnetlink.nest(4, where) + nfnetlink.u32(5, 1) + nfnetlink.text(7, b"filter")


def loopback_up(client: Netlink, attributes: bytes = b"") -> None:
    """Switches on lo of this thread's network namespace; OSError with the kernel's errno."""
    client.request(_NEW_LINK, 0, _LINK.pack(0, 0, LOOPBACK, _UP, _UP) + attributes)


def expression(name: bytes, data: bytes) -> bytes:
    """An element of a rule's list of expressions, as nf_tables takes it."""
    return nfnetlink.nest(1, nfnetlink.text(1, name) + nfnetlink.nest(2, data))


_REGISTER, _META_NFTRACE = 1, 12
TRACE = expression(
    b"immediate", nfnetlink.u32(1, _REGISTER) + nfnetlink.nest(2, nfnetlink.attribute(1, b"\x01"))
) + expression(b"meta", nfnetlink.u32(2, _META_NFTRACE) + nfnetlink.u32(3, _REGISTER))
"""`meta nftrace set 1`."""
