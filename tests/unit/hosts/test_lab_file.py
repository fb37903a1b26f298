# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of lab machines: what it may say, and that all that is wrong in it is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.hosts.lab_file import LabHost, find_lab_host, lab_text, read_lab

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGXr3k575XaeLRWBDLjOcYq+Xq2kRJUKx1rNv+t+JRM1"
ONE = f'[box]\naddress = "192.0.2.7"\nuser = "tester"\nkey = "keys/box"\nhost_key = "{KEY}"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "lab.toml"
    path.write_text(text)
    return path


def test_a_machine(tmp_path: Path) -> None:
    (host,) = read_lab(write(tmp_path, ONE + 'port = 2222\nfixes = ["F1"]\n')).values()
    assert (host.name, host.address, host.port, host.fixes) == ("box", "192.0.2.7", 2222, ("F1",))
    assert host.key == tmp_path / "keys/box"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("adress = 'x'", "box.adress: unknown key; did you mean 'address'"),
        ("port = 0", "box.port: must be a number from 1 to 65535"),
        ("port = true", "box.port: must be a number"),
        ("memory_mib = 1.5", "box.memory_mib: must be a number"),
        ("disk = 'sda'", "box.disk: must be an absolute path"),
        ("variant = 'async'", "box.variant: must be one of"),
        ("fixes = 'F1'", "box.fixes: must be a list"),
        ("coordinator = 'a b:1'", "box.coordinator: must be HOST:PORT"),
        ("kexec = 1", "box.kexec: must be true or false"),
        ("kexec = true", "box.kexec: needs power"),
        ("kexec = true\npower = ['p']\nagent = '/a'", "box.kexec: boots as root what it is sent"),
        ("power = 'p'", "box.power: must be a list"),
        ("power = [1]", "box.power: must be a list"),
        ("boot_s = 0", "box.boot_s: must be a number"),
        ("jump = 'gate'", "box.jump: there is no machine 'gate'"),
        ("jump = 'box'", "box.jump: goes in a circle"),
        ("scratch = '''/a\nb'''", "box.scratch: must be a string of one line"),
    ],
)
def test_what_is_wrong_is_told_by_its_key(line: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lab\.toml") as caught:
        read_lab(write(tmp_path, ONE + line + "\n"))
    assert told in caught.value.message


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_lab(write(tmp_path, ONE.replace(KEY, "AAAA") + "[b]\nuser = '-x'\n[\"-c\"]\naddress = 'a'\n"))
    for told in ("box.host_key", "b.address: missing", "b.key: missing", "'-c': a name", "-c.user: missing"):
        assert told in caught.value.message


def test_an_address_is_no_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="begins with -"):
        read_lab(write(tmp_path, ONE.replace("192.0.2.7", "-oProxyCommand=x")))


def test_no_file_and_no_toml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"docs/lab\.md"):
        read_lab(tmp_path / "absent.toml")
    with pytest.raises(UsageError):
        read_lab(write(tmp_path, "[box"))
    with pytest.raises(UsageError, match="not a table"):
        read_lab(write(tmp_path, "box = 1"))


def test_machines_on_the_way_come_first(tmp_path: Path) -> None:
    text = ONE + 'jump = "gate"\n' + ONE.replace("[box]", "[gate]") + 'jump = "door"\n' + ONE.replace("[box]", "[door]")
    assert [host.name for host in find_lab_host(write(tmp_path, text), "box")] == ["door", "gate", "box"]
    with pytest.raises(UsageError, match="did you mean 'gate'"):
        find_lab_host(tmp_path / "lab.toml", "gates")


LINE = st.text(st.characters(min_codepoint=32, blacklist_categories=["Cs"], blacklist_characters="\x7f"), min_size=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(user=LINE, scratch=LINE, fixes=st.lists(LINE).map(tuple), port=st.integers(1, 65535))
def test_what_is_written_is_read(user: str, scratch: str, fixes: tuple[str, ...], port: int, tmp_path: Path) -> None:
    host = LabHost(
        "box", "h", "u" + user, tmp_path / "k", KEY, port=port, fixes=fixes, scratch="/" + scratch, disk="/dev/x"
    )  # fmt: skip
    assert read_lab(write(tmp_path, lab_text("box", host))) == {"box": host}
