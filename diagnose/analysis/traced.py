"""What the trace on the machine itself says of the walk in the copy."""

from __future__ import annotations

from diagnose.analysis.walk import rule_name
from diagnose.model.attempt import Attempt
from diagnose.model.fact import Known
from diagnose.model.finding import Evidence
from diagnose.model.firewall import Backend, Step, Walk

TRACE = "nftrace on this machine"
_STOPS = ("drop", "reject", "queue")
_LEGACY = (Backend.IPTABLES_LEGACY, Backend.IP6TABLES_LEGACY)


def stopped_by(attempt: Attempt) -> Step | None:
    """The rule of the machine itself that let our packet go no further; None: none did, or nobody traced."""
    steps = attempt.traced.value if isinstance(attempt.traced, Known) else ()
    return next((step for step in steps if step.verdict in _STOPS), None)


def same_rule(attempt: Attempt, walk: Walk) -> bool:
    """The machine's trace ends with the rule that stopped the probe in the copy."""
    step = stopped_by(attempt)
    return step is not None and step.rule == walk.decider


def passed_it(attempt: Attempt, walk: Walk) -> bool:
    """The machine's trace shows our packet passing where the copy stopped it."""
    if not isinstance(attempt.traced, Known) or walk.decider is None or stopped_by(attempt) is not None:
        return False
    # neither rules of iptables-legacy nor those at a device's ingress are surely told
    return walk.decider.backend not in _LEGACY and walk.decider.family != "netdev"


def as_traced(attempt: Attempt, step: Step, copied: Walk | None) -> Walk:
    """The walk as the machine told it, with what the copy told otherwise as a doubt."""
    walk = copied or Walk(attempt.address, attempt.port, attempt.outcome, (), None, "unknown")
    other = f"stops it at {rule_name(walk.decider)}" if walk.decider is not None else "does not tell what stops it"
    return Walk(
        address=attempt.address,
        port=attempt.port,
        outcome=attempt.outcome,
        steps=attempt.traced.value if isinstance(attempt.traced, Known) else (),
        decider=step.rule,
        verdict="reject" if step.verdict == "reject" else "drop",
        packet="syn" if step.packet == "syn" else "ack" if step.packet == "other" else "reply",
        hook=step.hook,
        doubts=(f"the copy of the rules {other}", *walk.doubts),
    )


def traced_lines(attempt: Attempt) -> tuple[Evidence, ...]:
    """What the machine's own rules did, in one line; nothing where nobody traced."""
    if not isinstance(attempt.traced, Known):
        return ()
    step = stopped_by(attempt)
    if step is None:
        return (Evidence("no rule of nf_tables stopped our packet", TRACE),)
    return (Evidence(f"{step.packet} {step.hook}: {rule_name(step.rule)}: {step.verdict}", TRACE),)
