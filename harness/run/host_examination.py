# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine can do as a host: asked of it by the agent, shown by a guest, and held against every scenario."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.artifacts.images import images
from harness.artifacts.scratch import scratch_folder
from harness.artifacts.store import Store
from harness.contract.host_needs import HostOffers, lacks, without_gate
from harness.contract.plan import Plan
from harness.contract.structure import from_json
from harness.errors import ApfError, InfraFault, ModelError
from harness.hosts import HostOrder
from harness.hosts.base import Host
from harness.hosts.kexec_offer import ask_offer
from harness.hosts.performer import Payload, Performer
from harness.hosts.trial import require_done, trial_plan
from harness.model.kernels import kernel_for
from harness.run.request import Observer, Request
from harness.run.scenario_sources import default_scenarios, read_scenarios
from harness.run.selection import select
from harness.scenario.build import build_plan

_COPY_S, _ASK_S = 120.0, 120.0
_AGENT = "facts.pyz"


@dataclass(frozen=True, slots=True)
class Check:
    """``need``: "run" (nothing works without), "build" (kernels from source), "some" (some scenarios want it), "speed"
    (works without, slowly).  ``remedy``: the command that provides it, or what else."""

    what: str
    ok: bool
    found: str
    need: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class ScenarioOnHost:
    """``lacks``: (what, remedy) for each thing that the scenario cannot have there; none: it can be performed."""

    scenario: str
    lacks: tuple[tuple[str, str], ...]
    instead: str = ""  # what is done in a plainer way


@dataclass(frozen=True, slots=True)
class Examination:
    """All of it; ``ok``: scenarios can be run."""

    host: str
    checks: tuple[Check, ...]
    scenarios: tuple[ScenarioOnHost, ...] = ()

    @property
    def ok(self) -> bool:
        return all(check.ok or check.need != "run" for check in self.checks)

    def to_json(self) -> str:
        """For machines: docs/lab.md."""
        told: dict[str, Any] = {"format": 1, "host": self.host, "ok": self.ok}
        told["checks"] = [dataclasses.asdict(check) for check in self.checks]
        told["scenarios"] = [
            {
                "scenario": s.scenario, "possible": not s.lacks, "instead": s.instead,
                "lacks": [{"what": what, "remedy": remedy} for what, remedy in s.lacks],
            }
            for s in self.scenarios
        ]  # fmt: skip
        return json.dumps(told, indent=1)


def examine_host(request: Request, observer: Observer, *, trial: bool = True) -> Examination:
    """Have the machine for a moment, ask it, and let a small guest run there; it is given back as it was.

    :param trial: False: no guest is started.
    :raise UsageError: there is no such host, or the file of lab machines is wrong.
    """
    place, store = request.place, Store(progress=observer.progress)
    payload = Payload(images.agent_zipapp(store), images.probe_guest(store))
    variant = place.own().variant
    checks: list[Check] = []
    scenarios: tuple[ScenarioOnHost, ...] = ()
    with scratch_folder("apf-doctor-") as scratch:
        order = HostOrder(
            store, None, payload, lambda: scratch / "console", observer.progress, disk=request.disk,
            name=place.name, lab=place.lab, wait_s=request.wait_s,
        )  # fmt: skip
        try:
            opener = place.kind.prepare(order)
            checks.append(Check("reached", True, ", ".join(opener.facts.values()), "run"))
            with opener.start() as host:
                checks.append(Check("reserved", True, host.facts.folder, "run"))
                offers = ask(host, payload)
                checks += offered(host, offers, variant)
                if place.own().kexec:
                    checks.append(try_kexec(host))
                if trial:
                    checks.append(try_guest(host, payload, scratch))
                chosen = select(read_scenarios(request.scenario_paths or (default_scenarios(),)), request.patterns)
                scenarios = held_against(offers, [build_plan(s, 1) for s in chosen])
            checks.append(Check("given back", True, "as it was", "run"))
        except ApfError as exc:
            what = ("reached", "reserved", "asked", "given back")[min(len(checks), 2) if not scenarios else 3]
            checks.append(Check(what, False, exc.message, "run", exc.hint))
    return Examination(place.word, tuple(checks), scenarios)


def ask(host: Host, payload: Payload) -> HostOffers:
    """What the agent finds there.

    :raise InfraFault: it cannot be run.
    """
    facts = host.facts
    agent = f"{facts.folder}/{_AGENT}"
    host.put(payload.agent, agent, deadline_s=_COPY_S)
    words = ["python3", agent, "facts", "--disk", facts.disk, "--memory-mib", str(facts.memory_mib)]
    done = host.run(words, deadline_s=_ASK_S)
    if done.code != 0:
        raise InfraFault(f"the agent cannot be run there: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return from_json(HostOffers, done.stdout)


def offered(host: Host, offers: HostOffers, variant: str) -> Iterator[Check]:
    """What is there, one thing after the other."""
    there = offers.host
    try:
        model = kernel_for(variant, there.kernel_version if "Debian" in there.kernel_version else there.release)
        yield Check("kernel", True, f"{there.release} {there.kernel_version}, judged by {model.name}", "run")
    except ModelError as exc:
        yield Check("kernel", False, f"{there.release} {there.kernel_version}", "run", exc.message)
    kvm = "modprobe kvm_amd || modprobe kvm_intel; virtualisation switched on in the firmware"
    yield Check("/dev/kvm", there.kvm_device, ", ".join(there.kvm_modules) or "no module", "run", kvm)
    yield Check("QEMU", bool(offers.qemu), offers.qemu or "not found", "run", "apt-get install qemu-system-x86")
    cgroups = "boot with systemd.unified_cgroup_hierarchy=1 cgroup_enable=memory"
    yield Check("cgroup v2, memory", there.cgroup_memory, there.cgroup2 or "not mounted", "run", cgroups)
    tracing = "mount -t tracefs tracefs /sys/kernel/tracing"
    yield Check("tracefs", bool(there.tracefs), there.tracefs or "not mounted", "run", tracing)
    yield Check("kprobe events", there.kprobe_events, "", "run", "a kernel with CONFIG_KPROBE_EVENTS")
    yield Check("memory", offers.memory_mib >= 512, f"{offers.memory_mib} MiB available", "run", "512 MiB")
    yield Check("nbd", there.nbd, "", "some", "modprobe nbd, or Debian's linux-image-amd64")
    yield Check("dm-delay", there.dm_delay, "", "some", "modprobe dm-delay")
    disk = host.facts.no_disk or "none was given"
    yield Check("disk for swap", bool(offers.disk), offers.disk or disk, "some", "--disk DEV, or modprobe loop")
    yield Check("zram", there.zram, "", "some", "modprobe zram")
    yield Check("userfaultfd", offers.userfaultfd, "", "some", "a kernel with CONFIG_USERFAULTFD")
    yield Check("mkfs.ext4", there.mkfs_ext4, "", "some", "apt-get install e2fsprogs")
    swap = ", ".join(there.swap_in_use)
    yield Check("other swap", not swap, swap or "none", "some", f"swapoff {swap}" if swap else "")


def try_kexec(host: Host) -> Check:
    """Whether another kernel can be booted there; nothing is loaded.

    :raise InfraFault: it does not say.
    """
    reached = host.run(["sh", "-c", "echo $SSH_CONNECTION"], deadline_s=_ASK_S).stdout.decode(errors="replace").split()
    offer = ask_offer(host, f"{host.facts.folder}/{_AGENT}", reached[2] if len(reached) == 4 else "")
    return Check("other kernels (kexec)", not offer.refused, offer.refused or offer.address, "some", offer.refused)


def try_guest(host: Host, payload: Payload, scratch: Path) -> Check:
    """The smallest guest, to its end: an open /dev/kvm proves nothing."""
    performer = Performer(host, payload)
    try:
        performer.perform(trial_plan(), scratch / "trial", lambda _step, _told: None)
        require_done(scratch / "trial")
    except ApfError as exc:
        return Check("a guest runs to its end", False, exc.message, "run", exc.hint)
    finally:
        performer.close()
    return Check("a guest runs to its end", True, "under KVM", "run")


def held_against(offers: HostOffers, plans: Sequence[Plan]) -> tuple[ScenarioOnHost, ...]:
    """What each plan lacks there."""
    found = []
    for plan in plans:
        missing = tuple((lack.what, lack.remedy) for lack in lacks(plan, offers))
        plainer = not offers.host.nbd and without_gate(plan) is not None and not missing
        found.append(ScenarioOnHost(plan.scenario, missing, "dm-delay instead of the gated device" if plainer else ""))
    return tuple(found)
