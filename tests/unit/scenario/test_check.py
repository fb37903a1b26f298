# SPDX-License-Identifier: GPL-2.0-or-later
"""Each contradiction and each value out of its range is one line with its key; all of a file at once."""

from __future__ import annotations

import pytest

from harness.errors import ScenarioError
from harness.scenario.load import load_text

GOOD = """
id = "X1"
title = "a title"
[pages.f]
groups = 4
[[steps]]
touch = "f"
"""
DELAY = GOOD + '[swap]\nkind = "dm-delay"\n'
CLOCK = GOOD + '[swap]\nrelease = "after"\n'
FILE = GOOD.replace("groups = 4", 'groups = 4\nstart = "dropped"') + '[memory]\nbacking = "file"\n'


def messages(text: str) -> list[str]:
    """The problems of a file, each without the file's name."""
    with pytest.raises(ScenarioError) as caught:
        load_text("x.toml", text)
    return [line.removeprefix("x.toml: ") for line in caught.value.message.splitlines()]


def top(line: str) -> str:
    return line + GOOD


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (top('variants = ["nowiat"]'), "$.variants[0]: 'nowiat'"),
        (top("deadline_s = 0"), "$.deadline_s"),
        (top("deadline_s = 999999999"), "$.deadline_s"),
        (top("repeats = -1"), "$.repeats"),
        (GOOD.replace("X1", "a\\u0000b"), "$.id: the character \\x00"),
        (GOOD.replace("X1", "a\\u202Eb"), "$.id: the character \\u202e"),
        (GOOD.replace("X1", "x" * 101), "$.id: 101 characters"),
        (GOOD.replace("X1", "a b"), "$.id"),
        (GOOD.replace("a title", "\\u001b[2J"), "$.title: the character \\x1b"),
        (GOOD.replace("a title", "a\\nb"), "$.title: the character \\n"),
        (GOOD.replace("a title", "x" * 4000), "$.title: 4000 characters"),
        (top('tags = ["a\\u0007"]'), "$.tags[0]"),
        (top(f'why = "{"x" * 4001}"'), "$.why"),
        (GOOD + "pause_us = 4294967296", "$.steps[0].pause_us"),
        (GOOD + "pause_us = -1", "$.steps[0].pause_us"),
        (GOOD + "[[steps]]\ntimer_us = -2", "$.steps[1].timer_us"),
        (GOOD + "[apf]\nen_gpa = -2", "$.apf.en_gpa"),
        (GOOD + "[apf]\nen_gpa = 4097", "$.apf.en_gpa: 0x1001 is not a multiple of 64"),
        (GOOD + "[apf]\nen_flags = 64", "$.apf.en_flags"),
        (GOOD + "[apf]\nvector = 256", "$.apf.vector"),
        (GOOD + "[swap]\nsize_mib = -1", "$.swap.size_mib"),
        (GOOD + "[swap]\nsize_mib = 100000", "$.swap.size_mib"),
        (GOOD + "[swap]\ndelay_ms = -5", "$.swap.delay_ms"),
        (GOOD + "[swap]\npage_cluster = 7", "$.swap.page_cluster"),
        (GOOD + f'[swap]\nkind = "gated"\nrelease = "np:{"9" * 900}"', "$.swap.release: "),
        (GOOD + '[swap]\nkind = "gated"\nrelease = "np:999999"', "$.swap.release: 999999 is not between"),
        (GOOD + '[swap]\nkind = "gated"\nrelease = "\\u001b"', "$.swap.release: the character"),
        (GOOD + '[swap]\nkind = "gated"\nerror = ["g"]', "$.swap.error: there is no page set"),
        (GOOD.replace("groups = 4", "groups = 4\noffset = -2"), "$.pages.f.offset"),
        (GOOD.replace("groups = 4", "groups = 0"), "$.pages.f.groups"),
        (GOOD.replace("[pages.f]", '[pages."f g"]'), "$.pages.'f g'"),
        (GOOD.replace("[pages.f]", '[pages.""]'), "$.pages.''"),
        (GOOD + "[memory]\nsequential_advice = true", "$.memory.sequential_advice: read-ahead advice"),
        (
            GOOD + '[swap]\nkind = "dm-delay"\n[memory]\nbacking = "file"\nshare = true\nsequential_advice = true\n'
            "random_advice = true",
            "$.memory.sequential_advice: the one takes",
        ),
        (GOOD + '[[steps]]\nwrmsr = "0x10"\nvalue = 3', "$.steps[1].wrmsr: MSR 0x10"),
        (GOOD + '[[steps]]\nwrmsr = "NE"\nvalue = 3', "$.steps[1].wrmsr: 'NE'"),
        (GOOD + '[[steps]]\nwrmsr = "EN"\nvalue = -1', "$.steps[1].value"),
        (GOOD + '[[steps]]\nwrmsr = "EN"\nvalue = "0x10000000000000000"', "$.steps[1].value"),
        (GOOD + '[[steps]]\nwrmsr = "EN"\nvalue = "own|64"', "$.steps[1].value"),
        (GOOD + '[[steps]]\nwrmsr = "EN"\nvalue = "own|x"', "$.steps[1].value"),
        (GOOD + "[apf]\nvector = 31", "$.apf.vector: the probe guest takes vector 0x1f for an exception"),
        (GOOD + '[[steps]]\nwrmsr = "INT"\nvalue = 0x81', "$.steps[1].value: the probe guest takes vector 0x81"),
        (GOOD + "[apf]\nvector = 64\n[[steps]]\ntimer_us = 5000", "$.apf.vector: the probe guest takes vector 0x40"),
        (GOOD + "[apf]\nvector = 65\n[guest]\nvcpus = 2", "$.apf.vector: the probe guest takes vector 0x41"),
        (GOOD + "[apf]\nvector = 255\n[l2]\ninject = true", "$.apf.vector: the probe guest takes vector 0xff"),
        (GOOD + '[kernel_params]\n"kvm.a/b" = "1"', "$.kernel_params.'kvm.a/b'"),
        (GOOD + '[kernel_params_at_go]\n"kvm" = "1"', "$.kernel_params_at_go.'kvm'"),
        (GOOD + '[kernel_params]\n"kvm.ignore_msrs" = "1"', "$.kernel_params.'kvm.ignore_msrs': a refused MSR access"),
        (GOOD + '[kernel_params]\n"kvm.a" = "1\\n2"', "$.kernel_params.'kvm.a'"),
        (GOOD + '[guest]\ncpu = ""', "$.guest.cpu"),
        (GOOD + "[guest]\nvcpus = 17", "$.guest.vcpus"),
        (GOOD + '[[timed]]\nat_ms = -1\nhost = [{do = "stop"}]', "$.timed[0].at_ms"),
        (GOOD + '[[timed]]\nat_ms = 99999999\nhost = [{do = "stop"}]', "$.timed[0].at_ms"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(text: str, key: str) -> None:
    found = messages(text)
    assert any(line.startswith(key) for line in found), found


@pytest.mark.parametrize("where", ["[[steps]]\nhost", "[[timed]]\nat_ms = 1\nhost"])
@pytest.mark.parametrize(
    ("step", "base", "told"),
    [
        ('{do = "lock-read"}', FILE, "lock-read needs page"),
        ('{do = "lock-read", page = "f[9]"}', FILE, "the set has 4 pages"),
        ('{do = "lock-read", page = "g[0]"}', FILE, "there is no page set 'g'"),
        ('{do = "lock-read", page = "f"}', FILE, "names 4 pages"),
        ('{do = "lock-read", page = "f[0]", arg = 1}', FILE, "takes a page, no number"),
        ('{do = "lock-read", page = "f[0]"}', GOOD, "memory.backing is anon"),
        ('{do = "lock-read", page = "f[0]"}', FILE.replace("dropped", "populated"), "starts as populated"),
        ('{do = "reclaim"}', FILE, "reclaim needs page"),
        ('{do = "reclaim", page = "f[0]"}', FILE, "needs memory.share = true"),
        ('{do = "reclaim", page = "f[0]"}', GOOD, "memory.backing is anon"),
        ('{do = "change-mm"}', GOOD + '[memory]\nbacking = "memfd"\nshare = true\n', "keeps mmap_lock"),
        ('{do = "change-mm", arg = 1}', GOOD, "takes no number"),
        ('{do = "freeze"}', GOOD + '[swap]\nkind = "zram"\n', "and it is zram"),
        ('{do = "thaw"}', GOOD + '[swap]\nkind = "zram"\n', "and it is zram"),
        ('{do = "delay", arg = 5}', GOOD + '[swap]\nkind = "zram"\n', "and it is zram"),
        ('{do = "release"}', DELAY, "needs swap.kind = gated or userfaultfd, and it is dm-delay"),
        ('{do = "wait-settled"}', DELAY, "needs swap.kind = gated or userfaultfd, and it is dm-delay"),
        ('{do = "wait-settled", arg = 1}', GOOD, "takes no number"),
        ('{do = "wait-settled"}', CLOCK, "with release = after they do not"),
        ('{do = "wait-halted", arg = 1}', CLOCK.replace("after", "open"), "with release = open they do not"),
        ('{do = "release"}', CLOCK, "with release = after they do not"),
        ('{do = "wait-halted"}', GOOD, ".arg: wait-halted needs a number, arg = 1 to 1"),
        ('{do = "wait-np", arg = 0}', GOOD, ".arg: wait-np needs a number, arg = 1 to 64"),
        ('{do = "sync"}', GOOD, ".arg: sync needs a number, arg = 1 to 10000"),
        ('{do = "sync", arg = 10001}', GOOD, ".arg: 10001 is not between 1 and 10000"),
        ('{do = "wait-done", page = "f[0]"}', GOOD, "concerns no page"),
        ('{do = "delay", arg = 5}', GOOD, "needs swap.kind = dm-delay, and it is gated"),
        ('{do = "delay", arg = -5}', DELAY, ".arg: -5 is not between"),
        ('{do = "delay", arg = 99999999}', DELAY, ".arg: 99999999 is not between"),
        ('{do = "sleep", arg = -1}', GOOD, ".arg: -1 is not between"),
        ('{do = "sleep", arg = 60001}', GOOD, ".arg: 60001 is not between"),
        ('{do = "wait-np"}', GOOD, ".arg: wait-np needs a number, arg = 1 to 64"),
        ('{do = "wait-np", arg = 65}', GOOD, ".arg: 65 is not between 1 and 64"),
        ('{do = "stop", arg = 1}', GOOD, "takes no number"),
        ('{do = "reset", page = "f[0]"}', GOOD, "concerns no page"),
        ('{do = "nmi", arg = 1}', GOOD, "takes no number"),
        ('{do = "nmi"}', GOOD + '[[steps]]\ntouch = "f"\nlevel = 2\n', "or GIF = 0, as in $.steps[1]"),
        ('{do = "nmi"}', GOOD + '[[steps]]\ntouch = "f"\ncpl = 0\ninterrupts = false\ngif = false\n', "or GIF = 0"),
        ('{do = "savevm"}', GOOD, "needs a machine that stands"),
        ('{do = "stop"}, {do = "cont"}, {do = "savevm"}', GOOD, "needs a machine that stands"),
        ('{do = "stop"}, {do = "savevm"}', FILE, "only anonymous one is modelled"),
        ('{do = "stop"}, {do = "loadvm"}', GOOD, "loadvm loads what savevm saved"),
        ('{do = "stop"}, {do = "savevm"}, {do = "cont"}, {do = "stop"}, {do = "loadvm"}', GOOD, "loadvm loads what"),
        ('{do = "stop"}, {do = "savevm"}', GOOD + '[swap]\nerror = ["f[0]"]\n', "a SIGBUS would end QEMU"),
        (
            '{do = "stop"}, {do = "savevm"}, {do = "loadvm"}',
            GOOD + '[[steps]]\nwrmsr = "EN"\nvalue = 0x40000009\n',
            "KVM refuses an address without memory",
        ),
        ('{do = "explode"}', GOOD, "'explode' is not one of"),
    ],
)
def test_each_host_word_has_its_preconditions(where: str, step: str, base: str, told: str) -> None:
    found = messages(f"{base}{where} = [{step}]\n")
    index = f"$.steps[{base.count('[[steps]]')}].host" if where.startswith("[[steps") else "$.timed[0].host"
    assert any(told in line and index in line for line in found), found


def test_the_same_words_are_accepted_where_they_make_sense() -> None:
    words = '{do = "lock-read", page = "f[0]"}, {do = "freeze"}, {do = "thaw"}, {do = "wait-done"}, {do = "stop"}'
    for own in ('{do = "delay", arg = 5}', '{do = "release"}, {do = "wait-settled"}'):
        kind = '[swap]\nkind = "dm-delay"\n' if "delay" in own else ""
        both = f"[{words}, {own}]"
        assert load_text("x", f"{FILE}{kind}[[steps]]\nhost = {both}\n[[timed]]\nat_ms = 5\nhost = {both}\n")


@pytest.mark.parametrize(
    ("words", "release", "refused"),
    [
        ('{do = "stop"}, {do = "savevm"}, {do = "release"}', "step", True),
        ('{do = "release"}, {do = "stop"}, {do = "savevm"}', "step", False),
        ('{do = "freeze"}, {do = "stop"}, {do = "savevm"}, {do = "thaw"}', "np", True),
        ('{do = "freeze"}, {do = "thaw"}, {do = "stop"}, {do = "savevm"}', "np", False),
        ('{do = "stop"}, {do = "savevm"}', "np", False),
    ],
)
def test_a_snapshot_of_pages_that_are_held_for_good_is_refused(words: str, release: str, refused: bool) -> None:
    text = (
        f'id = "X"\ntitle = "t"\n[swap]\nrelease = "{release}"\n[pages.f]\ngroups = 1\nstart = "swapped"\n'
        f'[[steps]]\ntouch = "f"\n[[steps]]\nhost = [{words}]\n'
    )
    if refused:
        with pytest.raises(ScenarioError, match=r"steps\[1\].*savevm reads every page"):
            load_text("x.toml", text)
    else:
        load_text("x.toml", text)


def test_what_is_done_to_a_stopped_machine_is_accepted() -> None:
    words = '{do = "nmi"}, {do = "stop"}, {do = "savevm"}, {do = "loadvm"}, {do = "cont"}'
    assert load_text("x", f"{GOOD}[[timed]]\nat_ms = 5\nhost = [{words}]\n")


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ("[[steps]]\ninit = 2\n", ".init: 2 is no vCPU but the boot CPU"),
        ("[[steps]]\ninit = 0\n", ".init: 0 is no vCPU but the boot CPU"),
        ("[[steps]]\ninit = -1\n", "-1 is no vCPU at $.steps[1].init"),
        ("[[steps]]\ninit = 1\nvcpu = 1\n", ".init: vCPU 1 cannot do it to itself"),
        ("[[steps]]\neject = -1\n", "-1 is no vCPU at $.steps[1].eject"),
        ("[[steps]]\neject = 1\n", ".eject: CPUs of a q35 can be ejected"),
        ("[[steps]]\neject = 1\n", ".eject: vCPU 1 is plugged in again (plug) by no host step between"),
        ('[[steps]]\nhost = [{do = "plug", arg = 1}]\n', ".arg: no step ejects vCPU 1"),
        ("[[steps]]\ninit = 1\ncpl = 0\n", ".cpl: init has no cpl"),
        ('[[steps]]\ninit = 1\n[[steps]]\nvcpu = 1\nhost = [{do = "stop"}]\n', ".init: vCPU 1 has host steps"),
    ],
)
def test_an_init_is_for_another_vcpu(steps: str, told: str) -> None:
    assert any(told in line for line in messages(f"{GOOD}{steps}[guest]\nvcpus = 2\n"))
    assert load_text("x", f"{GOOD}[[steps]]\ninit = 1\n[guest]\nvcpus = 2\n")
    plug = '[[steps]]\neject = 1\n[[steps]]\nhost = [{do = "plug", arg = 1}]\n[[steps]]\ninit = 1\n'
    pc = '[guest]\nvcpus = 2\nmachine = "q35"\n'
    assert load_text("x", f"{GOOD}{plug}{plug}{pc}")
    assert any("by no host step between" in line for line in messages(f"{GOOD}[[steps]]\neject = 1\n{plug}{pc}"))


@pytest.mark.parametrize(
    ("between", "more", "legal"),
    [
        ("[[steps]]\nreset = true\n", "", False),
        ('[[steps]]\nhost = [{do = "reset"}]\n', "", False),
        ("", "[[steps]]\nreset = true\nvcpu = 2\n", False),
        ("", '[[timed]]\nat_ms = 5\nhost = [{do = "reset"}]\n', False),
        ("", "[[steps]]\nreset = true\n", True),
    ],
)
def test_no_reset_while_a_vcpu_is_ejected(between: str, more: str, legal: bool) -> None:
    """The guest starts every vCPU that it has when it boots."""
    plug = '[[steps]]\nhost = [{do = "plug", arg = 1}]\n[[steps]]\ninit = 1\n'
    text = f'{GOOD}[[steps]]\neject = 1\n{between}{plug}{more}[guest]\nvcpus = 3\nmachine = "q35"\n'
    if legal:
        assert load_text("x", text)
    else:
        assert messages(text) == [
            "$.steps[1].eject: a reset may come before vCPU 1 is back (plug), and the guest boots with all or none"
        ]


def test_the_pages_of_a_linux_guest_are_swapped_out_which_a_file_is_not() -> None:
    linux = 'id = "X"\ntitle = "x"\n[guest]\nkind = "linux"\nworkload = "touch"\nworkload_pages = 4\n'
    file = '[swap]\nkind = "dm-delay"\n[memory]\nbacking = "file"\nshare = false\n'
    assert messages(linux + file) == [
        "$.memory.backing: a linux guest is swapped out, which pages of a file are not; use anon or memfd"
    ]


def test_both_kinds_of_problems_are_told_at_once() -> None:
    """Wrong keys and types, and contradictions in the rest of the file."""
    text = top('colour = 1\nvariants = ["nowiat"]') + (
        'cpl = 7\n[[steps]]\ntouch = 3\n[[steps]]\ntouch = "f"\nvcpu = 3\n[apf]\nvector = "x"\n'
    )
    found = messages(text)
    for start in ("unknown key 'colour' at $", "$.variants[0]", "$.steps[0].cpl", "$.steps[2].vcpu"):
        assert any(line.startswith(start) for line in found), (start, found)
    for end in ("at $.steps[1].touch", "at $.apf.vector"):
        assert any(line.endswith(end) for line in found), (end, found)
    assert len(found) == 6, found


def test_what_a_wrong_key_has_caused_is_not_told_again() -> None:
    assert messages(GOOD.replace("groups = 4", 'groups = "four"')) == [
        "expected int, got str 'four' at $.pages['f'].groups"
    ]


def test_problems_of_all_combinations_are_told() -> None:
    found = messages(GOOD + '[matrix]\n"swap.page_cluster" = [3, 7, 9]\n')
    assert found == [f"$.swap.page_cluster: {n} is not between 0 and 6" for n in (7, 9)]


def test_a_stride_of_a_single_group_says_nothing() -> None:
    assert load_text("x", GOOD.replace("groups = 4", "groups = 1\nrun = 100"))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("[[steps]]\ntouch = []", ["an empty list: at least one page is needed at $.steps[1].touch"]),
        ("[[steps]]\nhost = []", ["an empty list: at least one host word is needed at $.steps[1].host"]),
        ("[[timed]]\nat_ms = 1\nhost = []", ["an empty list: at least one host word is needed at $.timed[0].host"]),
        ('[[steps]]\nwrmsr = ""', ["an empty word says nothing to do at $.steps[1].wrmsr"]),
        ("[[steps]]\npause = false", ["false says nothing to do; leave it out at $.steps[1].pause"]),
        (
            "[[steps]]\ntimer_us = -1",
            [
                "-1 is no period: a number of microseconds, or 0, which stops the timer, is needed "
                "at $.steps[1].timer_us"
            ],
        ),
    ],
)
def test_a_value_that_says_nothing_is_one_error_that_names_it(more: str, told: list[str]) -> None:
    assert messages(GOOD + more) == told


@pytest.mark.parametrize("action", ['wrmsr = "EN"', "wait_all = true", "timer_us = 5", "pause = true"])
@pytest.mark.parametrize("key", ["cpl = 0", 'access = "write"', 'then = "wait"'])
def test_a_key_that_the_action_does_not_look_at_is_named(action: str, key: str) -> None:
    name = key.partition(" ")[0]
    (line,) = messages(f"{GOOD}[[steps]]\n{action}\n{key}\n")
    assert line == f"$.steps[1].{name}: {action.partition(' ')[0]} has no {name}, and nothing would look at it"


def test_interrupts_go_with_what_waits() -> None:
    assert load_text("x", GOOD + "[[steps]]\npause = true\ninterrupts = false\n")
    assert load_text("x", GOOD + '[[steps]]\nwrmsr = "EN"\ninterrupts = false\n')
    assert load_text("x", GOOD + '[[steps]]\nlapic = "off"\ninterrupts = false\n')
    (line,) = messages(GOOD + '[[steps]]\nlapic = "off"\ninterrupts = false\npause_us = 5\n')
    assert line == "$.steps[1].interrupts: the pause before the step has them on"
    (line,) = messages(GOOD + '[[steps]]\nlapic = "base-off"\ninterrupts = false\n')
    assert line.startswith("$.steps[1].interrupts: what waits would be taken while base-off")
    (line,) = messages(GOOD + '[[steps]]\nwrmsr = "EN"\ninterrupts = false\npause_us = 5\n')
    assert line == "$.steps[1].interrupts: the pause before the write has them on"
    assert messages(GOOD + "[[steps]]\nwait_all = true\ninterrupts = false\n")[0].startswith("$.steps[1].interrupts")


@pytest.mark.parametrize("gpa", [0, 0x1000, 0x802000, 0x840000, 0xFFFFC0])
def test_the_shared_area_may_not_lie_in_memory_that_the_guest_uses(gpa: int) -> None:
    (line,) = messages(f"{GOOD}[apf]\nen_gpa = {gpa}\n")
    assert line.startswith(f"$.apf.en_gpa: {gpa:#x} is used for something else: the vCPUs' areas lie from 0x801000")
    (line,) = messages(f'{GOOD}[[steps]]\nwrmsr = "EN"\nvalue = {gpa | 9}\n')
    assert line.startswith(f"$.steps[1].value: {gpa | 9:#x} puts the shared area to {gpa:#x}, which is used")


def test_only_en_gpa_puts_the_area_into_the_pool() -> None:
    (line,) = messages(f'{GOOD}[[steps]]\nwrmsr = "0x4b564d02"\nvalue = 0x1000009\n')
    assert line == "$.steps[1].value: 0x1000009 puts the shared area into the pool (0x1000000): only apf.en_gpa may"


@pytest.mark.parametrize("value", ["0", "0x801049", "0x4000009", '"own|9"'])
def test_areas_and_holes_may_be_written(value: str) -> None:
    assert load_text("x", f'{GOOD}[[steps]]\nwrmsr = "EN"\nvalue = {value}\n')


def test_no_two_vcpus_have_one_area() -> None:
    two = GOOD + "[guest]\nvcpus = 2\n"
    wrong = "0x802000 is given to vCPU 1 at some time: vCPU 0 needs one of its own"
    assert messages(f'{two}[[steps]]\nwrmsr = "EN"\nvalue = 0x802009\n') == [f"$.steps[1].value: {wrong}"]
    (line,) = messages(f"{two}[apf]\nen_gpa = 0x801040\n")
    assert line == "$.apf: 0x801040 is given to vCPU 0 at some time: vCPU 1 needs one of its own"
    assert load_text("x", f'{two}[[steps]]\nwrmsr = "EN"\nvalue = 0x802049\n')
    assert load_text("x", f'{two}[apf]\nen_flags = 0\n[[steps]]\nwrmsr = "EN"\nvalue = 0x802009\n')
    assert load_text("x", f"{two}[apf]\nen_gpa = 0x4000000\n")  # a hole


@pytest.mark.parametrize("name", ["../../B11", "A/B", ".hidden", "-x", "a*"])
def test_an_id_is_a_word(name: str) -> None:
    assert messages(GOOD.replace("X1", name))[0].startswith(f"$.id: {name!r} must be a word")


@pytest.mark.parametrize(
    ("cpu", "words", "told"),
    [
        ("host,-kvm-asyncpf", "reset = true", "hides kvm-asyncpf,"),
        ("host,-kvm-asyncpf-int", 'host = [{ do = "reset" }]', "hides kvm-asyncpf-int,"),
        ("EPYC", 'host = [{ do = "stop" }, { do = "savevm" }, { do = "loadvm" }, { do = "cont" }]', "kvm-asyncpf-int"),
        ("host,-kvm-asyncpf-int", 'host = [{ do = "sync", arg = 1 }]', ""),
        ("host,-kvm-asyncpf,+kvm-pv-enforce-cpuid", "reset = true", ""),
        ("host", "reset = true", ""),
    ],
)
def test_what_qemu_hides_it_does_not_set_back(cpu: str, words: str, told: str) -> None:
    text = f'{GOOD}[[steps]]\n{words}\n[guest]\ncpu = "{cpu}"\n'
    if not told:
        assert load_text("x", text)
        return
    found = messages(text)
    assert any(line.startswith("$.guest.cpu: ") and told in line for line in found), found


def test_a_lapic_in_user_space_needs_a_cpu_without_the_interrupt() -> None:
    (line,) = messages(GOOD + '[guest]\nirqchip = "off"\n')
    assert line.startswith("$.guest.irqchip: off with cpu = 'host'") and "F5" in line
    assert load_text("x", GOOD + '[guest]\nirqchip = "off"\ncpu = "host,-kvm-asyncpf-int"\n')


OFF, ON = '[[steps]]\nlapic = "base-off"\n', '[[steps]]\nlapic = "base-on"\n'
INIT = (
    '[[steps]]\nvcpu = 1\nlapic = "base-off"\n[[steps]]\nname = "on"\nvcpu = 1\nlapic = "base-on"\n{after}'
    "[guest]\nvcpus = 2\n[[steps]]\ninit = 1\n"
)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (ON, "$.steps[1].lapic: base-on of vCPU 0, whose LAPIC is on"),
        (OFF + OFF, "$.steps[2].lapic: base-off of vCPU 0, whose LAPIC is off"),
        (OFF + "[[steps]]\ntimer_us = 100\n", "$.steps[2].timer_us: vCPU 0 has no LAPIC"),
        (OFF + '[[steps]]\nlapic = "on"\n', "$.steps[2].lapic: vCPU 0 has no LAPIC"),
        (OFF + '[[steps]]\nhost = [{do = "nmi"}]\n' + ON, "$.steps: nmi sets the state of LAPICs, or needs one"),
        (OFF + '[[timed]]\nat_ms = 1\nhost = [{do = "reset"}]\n', "$.steps: reset sets the state of LAPICs"),
        (OFF + "[guest]\nvcpus = 2\n[[steps]]\nreset = true\n", "$.steps: a reset switches the LAPICs of all"),
        (OFF + "[[steps]]\nreset = true\n" + ON, "$.steps[3].lapic: base-on of vCPU 0, whose LAPIC is on"),
        (INIT.format(after=""), "$.steps[3].init: an INIT does not reach a vCPU without"),
        (
            OFF + ON + "[guest]\nvcpus = 2\n[[steps]]\neject = 1\n",
            "$.steps: an INIT does not reach a vCPU without its LAPIC: eject",
        ),
        (
            OFF + ON + '[guest]\nirqchip = "off"\ncpu = "host,-kvm-asyncpf-int"\n',
            "$.guest.irqchip: a LAPIC in QEMU is not switched by base-off",
        ),
    ],
)
def test_without_its_lapic_a_vcpu_does_what_needs_none(more: str, told: str) -> None:
    assert load_text("x", GOOD + OFF + '[[steps]]\nwrmsr = "ACK"\nvalue = 1\n' + ON + OFF)
    assert any(line.startswith(told) for line in messages(GOOD + more)), messages(GOOD + more)


def test_an_init_reaches_a_vcpu_that_has_its_lapic_again() -> None:
    behind = '[[steps]]\nafter = "on"\n'
    assert load_text("x", GOOD + INIT.format(after=behind))
    off = behind + '[[steps]]\nvcpu = 1\nlapic = "base-off"\n'
    assert any("does not reach" in line for line in messages(GOOD + INIT.format(after=off)))


@pytest.mark.parametrize("more", ["vcpus = 2", 'idle = "spin"', "cpu_pm = true"])
def test_a_realtime_vcpu_must_sleep_some_time_and_be_the_only_one(more: str) -> None:
    assert load_text("x", GOOD + "[guest]\nrealtime = true\n")
    (line,) = messages(GOOD + f"[guest]\nrealtime = true\n{more}\n")
    assert line.startswith("$.guest.realtime: ")


def test_the_cores_of_a_socket_are_so_many_and_the_vmms_affair() -> None:
    assert load_text("x", GOOD + "[guest]\nvcpus = 4\ncores = 3\n")
    (line,) = messages(GOOD + "[guest]\ncores = 17\n")
    assert line == "$.guest.cores: 17 is not between 0 and 16"
    program = 'kind = "host-program"\nworkload = "apf_halted_test"\ncores = 3\n'
    assert "$.guest.cores: a host program makes its VM itself, and would not look at it" in messages(
        GOOD + f"[guest]\n{program}"
    )


def test_a_misspelt_table_or_key_is_told_with_the_one_that_is_meant() -> None:
    assert messages(GOOD + "[swop]\n") == ["unknown key 'swop' (did you mean swap?) at $"]
    assert messages(GOOD + "[swap]\npage_clustre = 3\n")[0].startswith(
        "unknown key 'page_clustre' (did you mean page_cluster?)"
    )


def test_an_l2_that_handles_an_injected_interrupt_has_a_stack_of_its_own_beside_a_timer() -> None:
    l2 = GOOD + "level = 2\n[apf]\nen_flags = 13\n[l2]\ninject = true\n"
    assert load_text("x.toml", l2 + "[[steps]]\ntimer_us = 9000\n")


_SNAPSHOT = '{do = "stop"}, {do = "savevm"}, {do = "cont"}'


@pytest.mark.parametrize("other", ['{do = "cont"}', _SNAPSHOT, '{do = "stop"}, {do = "savevm"}, {do = "loadvm"}'])
def test_the_machine_of_a_snapshot_stands_whatever_other_lists_do(other: str) -> None:
    """Seen from outside: a slow savevm was still under way when the next entry's stop came, its own cont let the
    machine go on, and the second savevm stopped it again by itself."""
    ours, theirs = f"at_ms = 5\nhost = [{_SNAPSHOT}]\n", f"host = [{other}]\n"
    for text in (f"[[timed]]\n{ours}[[timed]]\nat_ms = 2000\n{theirs}", f"[[timed]]\n{ours}[[steps]]\n{theirs}"):
        with pytest.raises(ScenarioError, match=r"timed\[0\]\.host\[1\]: (cont|savevm) of .* may come before savevm"):
            load_text("x.toml", GOOD + text)


def test_lists_of_one_vcpu_come_one_after_the_other() -> None:
    assert load_text("x", f"{GOOD}[[steps]]\nhost = [{_SNAPSHOT}]\n[[steps]]\nhost = [{_SNAPSHOT}]\n")
