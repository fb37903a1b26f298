# SPDX-License-Identifier: GPL-2.0-or-later
"""A real virtual host: booted, used, and then broken on purpose.  Run by ``make test-host``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.artifacts.images import images
from harness.artifacts.images.keys import host_keys
from harness.artifacts.images.packaged_qemu import find_qemu
from harness.artifacts.kernels import built_kernel
from harness.artifacts.store import Store
from harness.contract.capture import EMULATED, NO_TRACE_DAT, TRACE_DAT
from harness.contract.plan import Item, Op, Plan
from harness.contract.words import EndStatus
from harness.errors import ApfError, HostLost, InfraFault, KernelFault
from harness.evidence.decode import read_end
from harness.hosts.performer import Payload, Performer
from harness.hosts.trial import trial_plan
from harness.hosts.virtual.machine_tsc import tsc_khz
from harness.hosts.virtual.virtual_host import CMDLINE, Keys, VirtualHost, start_virtual_host
from harness.hosts.virtual.vm import HostMachine
from harness.run.judge_folder import judge_folder, read_capture
from harness.run.scenario_sources import default_scenarios, read_scenarios
from harness.scenario.build import build_plan
from harness.status import Status

pytestmark = pytest.mark.host


@contextmanager
def boot(folder: Path, host_key: str = "") -> Iterator[VirtualHost]:
    """A virtual host with Debian's 6.1 under TCG."""
    store = Store()
    kernel = built_kernel.kernel(store, "debian-6.1")
    image = images.host_image(store)
    initramfs = images.host_initramfs(store, kernel)
    qemu = find_qemu(store, "").path
    machine = HostMachine("tcg", kernel.bzimage, initramfs, image.root_ext4, CMDLINE, qemu=qemu)
    keys = Keys(image.ssh_client_key, host_key or image.ssh_host_public_key)
    with start_virtual_host(machine, keys, kernel.release, folder / "console.txt") as host:
        yield host


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualHost]:
    """One boot for the tests that do no harm."""
    with boot(tmp_path_factory.mktemp("host")) as booted:
        yield booted


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[VirtualHost]:
    """A host of its own for a test that breaks it."""
    with boot(tmp_path) as booted:
        yield booted


def payload() -> Payload:
    store = Store()
    return Payload(images.agent_zipapp(store), images.probe_guest(store))


def endless_plan(deadline_s: int) -> Plan:
    """A guest that does nothing for a long time."""
    return dataclasses.replace(
        trial_plan(), items=(Item(index=0, op=Op.PAUSE, pause_us=600_000_000),), pages=(), deadline_s=deadline_s
    )


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="needs trace-cmd")
def test_trace_dat_has_the_events_of_the_trace(host: VirtualHost, tmp_path: Path) -> None:
    """Each event of the capture's own trace, with its CPU, its time and, of tokens, its text."""
    (scenario,) = (s for s in read_scenarios((default_scenarios(),)) if s.id == "S60")
    performer = Performer(host, payload(), trace_dat=True)
    performer.perform(build_plan(scenario, 1), tmp_path, lambda _step, _told: None)
    performer.close()
    assert not (tmp_path / NO_TRACE_DAT).exists()
    words = ["trace-cmd", "report", "-i", str(tmp_path / TRACE_DAT)]
    binary = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    text = (tmp_path / "trace/events.txt").read_text()
    assert sorted(_stamps(binary)) == sorted(_stamps(text))
    assert _tokens(binary) == _tokens(text)
    assert len(_tokens(text)) >= 24, "S60 has twelve tokens, and each becomes ready"


def _tokens(trace: str) -> list[tuple[str, int, int]]:
    """By numbers: for %#llx of 0 the kernel prints 0x0, and trace-cmd 0, as C does."""
    found = re.findall(r"(kvm_async_pf_(?:not_present|ready)):\s+token (\w+) gva (\w+)", trace)
    return [(event, int(token, 16), int(gva, 16)) for event, token, gva in found]


def _stamps(trace: str) -> list[tuple[str, ...]]:
    found = re.findall(r"^ *\S.*?-\d+ +\[(\d+)\].*? (\d+\.\d{6}): (\w+):", trace, re.MULTILINE)
    assert len(found) == sum(": " in line and line[:1] != "#" for line in trace.splitlines())
    return found


def test_kernel_under_test_is_the_one_that_was_asked_for(host: VirtualHost) -> None:
    assert host.run(["uname", "-r"], deadline_s=30).stdout.decode().strip() == host.facts.release
    assert b"Nested Paging enabled" in host.run(["dmesg"], deadline_s=30).stdout
    host.check()


def test_a_plan_is_performed(host: VirtualHost, tmp_path: Path) -> None:
    steps: list[str] = []
    Performer(host, payload()).perform(trial_plan(), tmp_path / "capture", lambda step, _told: steps.append(step))
    assert read_end(read_capture(tmp_path / "capture")).status is EndStatus.DONE
    assert "go" in steps
    assert not host.tainted
    entered = set(re.findall(r"\[(\d+)\].*kvm_entry", (tmp_path / "capture/trace/events.txt").read_text()))
    emulated = EMULATED in (tmp_path / "capture/facts.json").read_text()
    assert entered and not (emulated and "000" in entered)


def test_a_guest_that_never_finishes_ends_within_its_deadline(host: VirtualHost, tmp_path: Path) -> None:
    Performer(host, payload()).perform(endless_plan(4), tmp_path / "capture", lambda _step, _told: None)
    assert read_end(read_capture(tmp_path / "capture")).status is EndStatus.GUEST_TIMEOUT


def test_another_host_key_is_refused(tmp_path: Path) -> None:
    other = host_keys(Store(tmp_path / "store")).host_public
    with pytest.raises(HostLost, match="key"), boot(tmp_path, other):
        pass


def test_panic_during_a_scenario_is_a_finding(doomed: VirtualHost, tmp_path: Path) -> None:
    def crash(step: str, _told: object) -> None:
        if step == "go":
            # What this call itself raises is not what is tested: the performance has to notice by itself.
            with contextlib.suppress(ApfError):
                doomed.run(["sh", "-c", "echo c > /proc/sysrq-trigger"], deadline_s=20)

    with pytest.raises(KernelFault, match=r"panic|bug|oops") as caught:
        Performer(doomed, payload()).perform(endless_plan(60), tmp_path / "capture", crash)
    assert doomed.tainted
    assert "sysrq" in caught.value.hint
    assert "sysrq" in (tmp_path / "capture/host/console.txt").read_text(errors="replace")


def test_a_dead_qemu_is_the_machines_fault(doomed: VirtualHost, tmp_path: Path) -> None:
    def kill(step: str, _told: object) -> None:
        if step == "go":
            os.kill(doomed.qemu_pid, signal.SIGKILL)

    with pytest.raises(HostLost, match="SIGKILL"):
        Performer(doomed, payload()).perform(endless_plan(60), tmp_path / "capture", kill)
    assert doomed.tainted


def test_a_kernel_that_panics_while_booting_is_a_finding(tmp_path: Path) -> None:
    store = Store()
    kernel = built_kernel.kernel(store, "debian-6.1")
    image = images.host_image(store)
    machine = HostMachine("tcg", kernel.bzimage, None, image.root_ext4, CMDLINE)
    keys = Keys(image.ssh_client_key, image.ssh_host_public_key)
    with (
        pytest.raises(KernelFault, match="Unable to mount root"),
        start_virtual_host(machine, keys, kernel.release, tmp_path / "console.txt"),
    ):
        pass


def test_a_host_whose_clock_is_wrong_is_booted_again(tmp_path: Path) -> None:
    """What the kernel says of its calibration stands in its command line here, which it prints as well."""
    store = Store()
    kernel = built_kernel.kernel(store, "debian-6.1")
    image = images.host_image(store)
    said = 'loglevel=7 "said=tsc: PIT calibration deviates from nothing"'
    machine = HostMachine("tcg", kernel.bzimage, None, image.root_ext4, f"{CMDLINE} {said}")
    keys = Keys(image.ssh_client_key, image.ssh_host_public_key)
    told: list[str] = []

    def progress(what: str, done: float | None = None) -> None:
        told.append(what)

    with (
        pytest.raises(InfraFault, match="its clock is wrong"),
        start_virtual_host(machine, keys, kernel.release, tmp_path / "console.txt", progress),
    ):
        pass
    assert sum("again" in line for line in told) == 4


def test_a_hosts_kernel_believes_the_frequency_that_it_is_told(host: VirtualHost) -> None:
    said = host.run(["dmesg"], deadline_s=20).stdout.decode(errors="replace")
    assert f"tsc: Detected {tsc_khz() // 1000}.{tsc_khz() % 1000:03} MHz" in said


def warn_at(host: VirtualHost, at: str) -> Callable[[str, object], None]:
    def warn(step: str, _told: object) -> None:
        if step == at:
            line = "<4>WARNING: CPU: 0 PID: 1 at arch/x86/kvm/x86.c:1 apf_test+0x1/0x2"
            host.run(["sh", "-c", f"echo '{line}' > /dev/kmsg"], deadline_s=20)
            time.sleep(1.5)  # a console is told whole when it was quiet for a second

    return warn


def test_a_warning_that_the_capture_has_is_judged_with_the_rest(doomed: VirtualHost, tmp_path: Path) -> None:
    """Whether the console was told whole before the plan had ended may not matter: the model may know of it."""
    Performer(doomed, payload()).perform(trial_plan(), tmp_path / "capture", warn_at(doomed, "start-guest"))
    assert "warning on the host: WARNING: CPU: 0" in doomed.tainted
    assert read_end(read_capture(tmp_path / "capture")).status is EndStatus.DONE
    verdict = judge_folder(tmp_path / "capture", "nowait")
    assert verdict.status is Status.FAIL and [f.rule for f in verdict.findings] == ["D28"]


def test_a_plan_goes_on_for_its_deadline_behind_a_warning(doomed: VirtualHost, tmp_path: Path) -> None:
    """Of some kernels a warning is known, and what comes behind it is what the plan is about."""
    plan = endless_plan(70)
    Performer(doomed, payload()).perform(plan, tmp_path / "capture", warn_at(doomed, "start-guest"))
    assert read_end(read_capture(tmp_path / "capture")).status is EndStatus.GUEST_TIMEOUT


def test_a_warning_that_no_capture_has_ends_the_scenario(doomed: VirtualHost, tmp_path: Path) -> None:
    with pytest.raises(KernelFault, match="warning on the host: WARNING: CPU: 0"):
        Performer(doomed, payload()).perform(trial_plan(), tmp_path / "capture", warn_at(doomed, "undo"))
    assert doomed.tainted
    assert read_end(read_capture(tmp_path / "capture")).status is EndStatus.DONE
    assert (tmp_path / "capture/trace/events.txt").stat().st_size > 0


def test_one_agent_serves_all_plans(host: VirtualHost, tmp_path: Path) -> None:
    performer = Performer(host, payload())

    def agents() -> list[str]:
        """Pids of agents that serve."""
        table = host.run(["ps", "w"], deadline_s=30).stdout.decode().splitlines()
        return [line.split()[0] for line in table if "agent.pyz serve" in line]

    seen = []
    for n in (1, 2):
        performer.perform(dataclasses.replace(trial_plan(), nonce=n), tmp_path / str(n), lambda _step, _told: None)
        seen.append(agents())
        assert host.run(["ls", f"/run/apf-agent/{n:016x}"], deadline_s=30).code != 0, "the capture is taken away"
    assert len(seen[0]) == 1 and seen[0] == seen[1]
    performer.close()
    give_up = time.monotonic() + 20
    while agents():
        assert time.monotonic() < give_up, "the agent outlives its connection"
