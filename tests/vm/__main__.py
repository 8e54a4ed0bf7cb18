"""`make vm`: real faults on other kernels. Exit 0: all as expected, 1: not, 2: usage, 69: something is missing."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.vm.fault import Fault
from tests.vm.faults import FAULTS
from tests.vm.guest import GuestLostError
from tests.vm.images import image_for
from tests.vm.kernels import NAMES, kernel_named
from tests.vm.needs import UNAVAILABLE, UnavailableError, cache_folder
from tests.vm.push import InstallationError, checkout_digest
from tests.vm.recipe import REPOSITORY
from tests.vm.results import wrong_results
from tests.vm.session import Run, Wish, run_kernel
from tests.vm.table import fault_table, machine_table, page

PAGE = REPOSITORY / "docs" / "kernels.md"
MINUTES = 240.0
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    parser.add_argument("--kernel", action="append", choices=NAMES, help="only this one (several times: these)")
    parser.add_argument(
        "--faults",
        default="",
        metavar="WORDS",
        help="only faults with these words in the name; commas between alternatives",
    )
    parser.add_argument("--no-probes", action="store_true", help="leave tests/lab_probes out")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="keep recorded machines there")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, metavar="N", help=f"stop after N (default {MINUTES:.0f})"
    )
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.name} though not everything has run")
    parser.add_argument("--list", action="store_true", help="print the faults and stop")
    return parser.parse_args(words)


def chosen(words: str) -> tuple[Fault, ...]:
    """The faults whose names have every word of one of the alternatives, between which commas stand."""
    alternatives = [one.split() for one in words.split(",")]
    return tuple(fault for fault in FAULTS if any(all(word in fault.name for word in one) for one in alternatives))


def main(words: Sequence[str]) -> int:
    """Run, print, keep."""
    options = arguments(words)
    faults = chosen(options.faults)
    if options.list or not faults:
        print("\n".join(fault.name for fault in faults) if faults else f"no fault has {options.faults!r} in its name")
        return 0 if faults else 2
    for number in SIGNALS:
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))  # the guest ends with us
    names = options.kernel or list(NAMES)
    cache = cache_folder(dict(os.environ))
    deadline = time.monotonic() + options.minutes * 60
    whole = not options.faults and not options.no_probes
    machines = options.record.resolve() if options.record else None
    wish = Wish(faults, probes=not options.faults and not options.no_probes, machines=machines, deadline=deadline)
    runs = []
    try:
        for name in names:
            print(f"kernel {name}", flush=True)
            run = run_kernel(image_for(kernel_named(name), cache), cache, wish)
            runs.append(run)
            if not options.faults:
                remember(run, cache)
    except UnavailableError as missing:
        print(f"make vm: {missing}", file=sys.stderr)
        return UNAVAILABLE
    except (GuestLostError, InstallationError) as lost:
        print(f"make vm: {lost}", file=sys.stderr)
        return 1
    print("\n".join(["", *fault_table(faults, runs), "", *machine_table(runs)]))
    verdicts = [report(faults, run, wish) for run in runs]
    if whole or options.page:
        write_page(faults, cache, unfinished=options.page)
    return 0 if all(verdicts) else 1


def report(faults: Sequence[Fault], run: Run, wish: Wish) -> bool:
    """Whether the kernel's run is as expected; what is not is printed."""
    wrong = wrong_results(faults, run.kernel, run.seen)
    for one in wrong:
        print(f"\n{run.kernel}: {one.fault} (as {one.user})\n  wanted {one.wanted}\n  came   {one.came}")
        print("".join(f"    {line}\n" for line in one.report.splitlines()), end="")
    failed = list(run.probes.failed) + [run.probes.error] * bool(run.probes.error) if run.probes else []
    failed += ["not run"] if wish.probes and run.probes is None else []
    for line in failed:
        print(f"\n{run.kernel}: tests/lab_probes: {line}")
    if time.monotonic() > wish.deadline:
        print(f"\n{run.kernel}: the time was over before all was done: see --minutes")
    print(f"\n{run.kernel}: {len(wrong)} wrong, {len(failed)} of the probes, {run.seconds:.0f} s")
    return not wrong and not failed


class Kept(msgspec.Struct):
    """A kernel's results beside the checkout that they are of."""

    checkout: str
    run: Run


def remember(run: Run, cache: Path) -> None:
    """For the page, which needs every kernel."""
    folder = cache / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{run.kernel}.json").write_bytes(msgspec.json.encode(Kept(checkout_digest(), run)))


def write_page(faults: Sequence[Fault], cache: Path, *, unfinished: bool) -> None:
    """docs/kernels.md, once every kernel has run the whole list of this very checkout.

    `unfinished`: from what has run; the page says of the rest that it has not.
    """
    kept = [msgspec.json.decode(path.read_bytes(), type=Kept) for path in (cache / "results").glob("*.json")]
    runs = {one.run.kernel: one.run for one in kept if one.checkout == checkout_digest()}
    whole = [name for name in NAMES if name in runs and is_whole(faults, runs[name])]
    if len(whole) < len(NAMES) and not unfinished:
        print(f"{PAGE.relative_to(REPOSITORY)} is written once all kernels have run this checkout's whole list")
        return
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(faults, [runs.get(name, Run(name)) for name in NAMES]))
    print(f"{PAGE.relative_to(REPOSITORY)} is written")


def is_whole(faults: Sequence[Fault], run: Run) -> bool:
    """Whether every fault that this kernel can have was tried, and the probes' tests were."""
    seen = {one.fault for one in run.seen}
    return run.probes is not None and all(fault.name in seen for fault in faults if run.kernel in fault.kernels)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
