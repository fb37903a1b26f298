# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads that sleep, and not for a page of their own: in cancel_work_sync, for mmap_lock; and a KVM_RUN that fails."""

from __future__ import annotations

import pytest

from harness.contract.plan import Plan
from harness.model.kernels import find_kernel
from harness.model.outcomes import Outcome
from harness.model.simulation.simulate import simulate
from harness.model.simulation.situation import Prediction
from harness.prediction import situation_of
from harness.scenario.build import build_plan
from harness.scenario.load import load_text

KERNELS = ("nowait-5.10", "nowait-6.1", "nowait-6.12", "nowait-7.3", "noio-6.1")


def plan_of(text: str) -> Plan:
    return build_plan(load_text("A.toml", f'id = "A"\ntitle = "a"\n{text}')[0], nonce=1)


def answer_of(text: str, kernel: str) -> Prediction:
    return simulate(situation_of(plan_of(text), find_kernel(kernel)))


def disabled(*words: str, timed: str = "") -> str:
    """vCPU 1 sleeps in a write of EN for a worker whose page is held; then the host does this.  Two pages to a window:
    who polls for one has no worker."""
    said = ", ".join(f'{{ do = "{word}"{", arg = 1" if word == "sync" else ""} }}' for word in words)
    late = f'[[timed]]\nat_ms = 2000\nhost = [{{ do = "{timed}" }}]' if timed else ""
    return f"""
deadline_s = 8
[guest]
vcpus = 2
[swap]
release = "step"
page_cluster = 1
[pages.f]
groups = 1
run = 2
start = "swapped"
[[steps]]
vcpu = 1
name = "told"
touch = "f[0]"
[[steps]]
vcpu = 1
wrmsr = "EN"
value = "own|0"
pause_us = 300000
[[steps]]
after = "told"
[[steps]]
host = [{{ do = "wait-settled" }}, {{ do = "sleep", arg = 700 }}, {said}]
{late}
"""


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("word", ["sync", "nmi", "stop"])
def test_no_signal_ends_a_disable_that_sleeps_for_its_worker(kernel: str, word: str) -> None:
    """wait_for_completion of __flush_work is uninterruptible: who needs the thread waits until the page is there."""
    behind = ("cont",) if word == "stop" else ()
    assert answer_of(disabled("release", word, *behind), kernel).ends
    assert not answer_of(disabled(word, *behind, "release"), kernel).ends
    assert answer_of(disabled(word, *behind, timed="release"), kernel).ends


def failing(*, sleeps: bool) -> str:
    """KVM_RUN of vCPU 1 fails; vCPU 0 has the host do something meanwhile, or pauses, and goes on."""
    step = 'host = [{ do = "stop" }, { do = "sleep", arg = 500 }, { do = "cont" }]' if sleeps else "pause = true"
    return f"""
deadline_s = 8
[guest]
vcpus = 2
[swap]
page_cluster = 0
error = ["e[0]"]
[pages.e]
groups = 1
start = "swapped"
[pages.f]
groups = 1
start = "swapped"
[[steps]]
vcpu = 1
touch = "e[0]"
interrupts = false
[[steps]]
{step}
pause_us = 900000
[[steps]]
touch = "f[0]"
"""


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sleeps", [True, False])
def test_a_kvm_run_that_fails_stops_every_vcpu_for_good(kernel: str, sleeps: bool) -> None:
    """QEMU's vm_stop(RUN_STATE_INTERNAL_ERROR); it refuses a cont then (runstate_needs_reset)."""
    answer = answer_of(failing(sleeps=sleeps), kernel)
    assert not answer.ends and answer.may_fail
    assert [i.outcome for i in answer.items if i.page] == [Outcome.ERROR, Outcome.NONE]
    assert not any(i.ends for i in answer.items)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kvm_run_may_fail_behind_a_wait_that_a_stop_has_ended(kernel: str) -> None:
    """From 6.2 on a signal ends the first wait of the thread: what fails is a second page fault of the access."""
    text = failing(sleeps=False).replace("[pages.e]", 'kind = "gated"\nrelease = "step"\n[pages.e]', 1)
    late = '[[timed]]\nat_ms = 500\nhost = [{ do = "stop" }, { do = "cont" }]\n'
    answer = answer_of(f'{text}\n{late}[[timed]]\nat_ms = 800\nhost = [{{ do = "release" }}]', kernel)
    assert not answer.ends and answer.may_fail


def changed(*, release_ms: int, random: bool) -> str:
    """vCPU 1 reads a single page of a file, and the agent wants mmap_lock for writing; vCPU 0 touches another page."""
    return f"""
deadline_s = 20
[guest]
vcpus = 2
memory_mib = 96
[memory]
backing = "file"
random_advice = {str(random).lower()}
[swap]
release = "step"
[pages.f]
groups = 2
stride = 160
start = "dropped"
[[steps]]
vcpu = 1
touch = "f[0]"
cpl = 0
[[steps]]
host = [{{ do = "sleep", arg = 300 }}, {{ do = "change-mm" }}]
[[timed]]
at_ms = {release_ms}
host = [{{ do = "release" }}]
"""


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k.startswith("nowait")])
@pytest.mark.parametrize("random", [True, False])
@pytest.mark.parametrize(("release_ms", "had"), [(2000, True), (12000, False)])
def test_who_reads_one_page_of_a_file_keeps_mmap_lock(kernel: str, random: bool, release_ms: int, had: bool) -> None:
    """filemap_read_folio without FAULT_FLAG_RETRY_NOWAIT being looked at (maybe_unlock_mmap_for_io lets go for no
    NOWAIT caller); the agent waits for 10 s.  A window's pages are read by a worker that has let go."""
    answer = answer_of(changed(release_ms=release_ms, random=random), kernel)
    assert answer.ends is (had or not random)


@pytest.mark.parametrize("kernel", ["nowait-6.1", "nowait-6.12"])
def test_who_faults_behind_a_writer_of_mmap_lock_waits_for_it(kernel: str) -> None:
    text = changed(release_ms=2000, random=True) + '[[steps]]\nvcpu = 1\ntouch = "f[1]"\n'
    text = text.replace("vcpus = 2", "vcpus = 3") + '[[steps]]\nvcpu = 2\ntouch = "f[1]"\npause_us = 900000\n'
    answer = answer_of(text, kernel)
    assert answer.ends
    first = min(e.t_ns for e in answer.events if e.kind.name == "BIO")
    later = [e.t_ns for e in answer.events if e.kind.name == "BIO" and e.t_ns > first]
    assert later and min(later) >= 2_000_000_000
