# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU of a virtual host, with the real QEMU: it starts, it ends, and it never outlives us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts.images.packaged_qemu import QemuProgram
from harness.contract.capture import EMULATOR
from harness.errors import HostLost, InfraFault
from harness.hosts.virtual.virtual_host import forwarded_port, parse_usernet
from harness.hosts.virtual.vm import HostMachine, host_command, start_qemu
from tests.unit.waiting import HANG_S, is_gone, wait_until


@pytest.fixture
def machine(tmp_path: Path) -> HostMachine:
    """A machine that starts, although its kernel will never do anything: a multiboot-less blob of zeroes."""
    kernel, root = tmp_path / "kernel", tmp_path / "root"
    kernel.write_bytes(_idle_kernel())
    root.write_bytes(bytes(1 << 20))
    return HostMachine("tcg", kernel, None, root, "console=ttyS0", memory_mib=64, disk_mib=16)


def _idle_kernel() -> bytes:
    """A bzImage that halts: the boot protocol's header (Documentation/x86/boot.rst), then cli; hlt; jmp -3."""
    setup = bytearray(0x400)
    setup[0x1F1] = 1  # setup_sects
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x200:0x202] = b"\xeb\x6a"
    setup[0x202:0x206] = b"HdrS"
    setup[0x206:0x208] = (0x0206).to_bytes(2, "little")
    setup[0x211] = 1  # loadflags: LOADED_HIGH
    return bytes(setup) + b"\xfa\xf4\xeb\xfd" + bytes(4096)


def test_starts_and_ends(machine: HostMachine, tmp_path: Path) -> None:
    with start_qemu(machine, tmp_path / "console.txt") as vm:
        assert 1024 < forwarded_port(vm) < 65536
        vm.check()
        pid = vm.pid
    wait_until(lambda: is_gone(pid), "QEMU's end")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["console.txt", "kernel", "root"]


def test_time_without_a_processor_is_known(machine: HostMachine, tmp_path: Path) -> None:
    """QEMU's threads and three busy loops on one processor: a boot's deadline does not run meanwhile."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel does not count it")
    cpu = min(os.sched_getaffinity(0))
    machine.kernel.write_bytes(_idle_kernel().replace(b"\xfa\xf4\xeb\xfd", b"\xfa\xeb\xfe\x90"))  # cli; jmp to itself
    with contextlib.ExitStack() as stack, start_qemu(machine, tmp_path / "console.txt") as vm:
        for thread in os.listdir(f"/proc/{vm.pid}/task"):
            os.sched_setaffinity(int(thread), {cpu})
        for _ in range(3):
            loop = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(loop.kill)
            os.sched_setaffinity(loop.pid, {cpu})
        wait_until(lambda: vm.held_back_s() >= 0.5, "half a second without a processor")
        vm.check()


def test_dead_qemu_is_told_as_such(machine: HostMachine, tmp_path: Path) -> None:
    with start_qemu(machine, tmp_path / "console.txt") as vm:
        os.kill(vm.pid, signal.SIGKILL)
        assert vm.wait(HANG_S)
        with pytest.raises(HostLost, match="SIGKILL"):
            vm.check()
        with pytest.raises(HostLost):
            forwarded_port(vm)


def test_refused_command_line(machine: HostMachine, tmp_path: Path) -> None:
    (tmp_path / "root").unlink()
    with start_qemu(machine, tmp_path / "console.txt") as vm:
        assert vm.wait(HANG_S)
        with pytest.raises(HostLost, match="ended with code 1") as caught:
            vm.check()
    assert "root" in caught.value.hint


def test_no_qemu(machine: HostMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfraFault, match="not in PATH"), start_qemu(machine, tmp_path / "console.txt"):
        pass


def test_only_from_the_main_thread(machine: HostMachine, tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def body() -> None:
        try:
            with start_qemu(machine, tmp_path / "console.txt"):
                pass
        except InfraFault as exc:
            caught.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert caught


def test_killed_runner_leaves_no_qemu(machine: HostMachine, tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from harness.hosts.virtual.virtual_host import forwarded_port
        from harness.hosts.virtual.vm import HostMachine, start_qemu
        machine = HostMachine("tcg", Path({str(machine.kernel)!r}), None, Path({str(machine.root)!r}), "", 1, 64, 16)
        with start_qemu(machine, Path({str(tmp_path / "console.txt")!r})) as vm:
            forwarded_port(vm)
            print(vm.pid, flush=True)
            time.sleep(1000)
        """
    )
    runner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert runner.stdout is not None
    pid = int(runner.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    runner.kill()
    runner.wait()
    runner.stdout.close()
    wait_until(lambda: is_gone(pid), "QEMU's end")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["console.txt", "kernel", "root"]


def test_command_line_of_each_accelerator(machine: HostMachine, tmp_path: Path) -> None:
    words = host_command("qemu", machine, disk="/d", console=tmp_path / "c", qmp_fd=7)
    assert words[words.index("-accel") + 1] == "tcg,thread=multi"
    assert words[words.index("-cpu") + 1].startswith("EPYC,+svm,+npt,-xsave,")
    assert any(w.startswith("user,") and "hostfwd=tcp:127.0.0.1:0-:22" in w and "restrict=on" in w for w in words)
    assert any("readonly=on" in w for w in words if str(machine.root) in w)
    assert "tsc_early_khz" not in words[words.index("-append") + 1]
    words = host_command("qemu", machine, disk="/d", console=tmp_path / "c", qmp_fd=7, tsc_khz=2_596_120)
    assert words[words.index("-append") + 1].split()[-1] == "tsc_early_khz=2596120"
    told = QemuProgram(Path("qemu"), "QEMU emulator version 11.1.2 (Debian 1:11.1.2+ds-3)").number
    words = host_command("qemu", replace(machine, emulator=told), disk="disk", console=Path("console"), qmp_fd=3)
    assert f"{EMULATOR}11.1.2" in words[words.index("-append") + 1].split()
    kvm = HostMachine("kvm", machine.kernel, None, machine.root, "")
    words = host_command("qemu", kvm, disk="/d", console=tmp_path / "c", qmp_fd=7)
    assert words[words.index("-accel") + 1] == "kvm"
    assert words[words.index("-cpu") + 1] == "host"


def test_usernet() -> None:
    text = (
        "Hub -1 (n0):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n"
        "  TCP[HOST_FORWARD]  12       127.0.0.1 40123       10.0.2.15    22     0     0\n"
    )
    assert parse_usernet(text) == 40123
    with pytest.raises(HostLost):
        parse_usernet(text.replace("HOST_FORWARD", "ESTABLISHED"))


def test_the_network_is_closed(machine: HostMachine, tmp_path: Path) -> None:
    """What QEMU listens on can be reached from this machine only, and the host behind it reaches nobody."""
    with start_qemu(machine, tmp_path / "console") as vm:
        port = forwarded_port(vm)
        sockets = set()
        for fd in Path(f"/proc/{vm.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(os.readlink(fd))
        listening = []
        for line in Path(f"/proc/{vm.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                listening.append(fields[1])
        assert listening == [f"0100007F:{port:04X}"]
        command = Path(f"/proc/{vm.pid}/cmdline").read_text().split("\0")
        assert any("restrict=on" in word for word in command)
        assert not any("vnc" in word or "-monitor" in word or "tcp:0" in word for word in command)
