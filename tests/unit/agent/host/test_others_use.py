# SPDX-License-Identifier: GPL-2.0-or-later
"""What others have to do with memory meanwhile, on files as the kernel has them; for real: hosts/test_lab.py."""

from __future__ import annotations

from pathlib import Path

from harness.agent.host.others_use import GroupUse, grown, others_use


def group(root: Path, name: str, *, swapped: int, faults: int = 0, stalled_us: int = 0) -> None:
    path = root / name
    path.mkdir(exist_ok=True)
    (path / "memory.swap.current").write_text(f"{swapped}\n")
    (path / "memory.stat").write_text(f"anon 4096\npgmajfault {faults}\npgfault 7\n")
    (path / "memory.pressure").write_text(
        f"some avg10=0.00 avg60=0.00 avg300=0.00 total={stalled_us}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
    )


def test_each_group_but_ours(tmp_path: Path) -> None:
    group(tmp_path, "system.slice", swapped=8192, faults=3, stalled_us=1_500_000)
    group(tmp_path, "apf-run-1", swapped=1 << 20)
    (tmp_path / "cgroup.procs").touch()
    (tmp_path / "no-memory").mkdir()
    assert others_use(str(tmp_path)) == {"system.slice": GroupUse(8192, 3, 1_500_000)}


def test_what_was_swapped_out_meanwhile_is_told_with_figures(tmp_path: Path) -> None:
    for name in ("a", "b", "gone"):
        group(tmp_path, name, swapped=4096)
    before = others_use(str(tmp_path))
    group(tmp_path, "a", swapped=4096 + 12288, faults=5, stalled_us=2_000_000)
    group(tmp_path, "b", swapped=0, faults=9)  # read back in: that is no harm of ours
    group(tmp_path, "new", swapped=1 << 20)
    after = {name: use for name, use in others_use(str(tmp_path)).items() if name != "gone"}
    assert grown(before, after) == [
        "12 KiB of others, the cgroup a, were swapped out meanwhile (5 major faults, 2.0 s stalled)"
    ]
    assert grown(before, before) == []


def test_a_kernel_without_psi_and_swap_accounting(tmp_path: Path) -> None:
    group(tmp_path, "a", swapped=0)
    (tmp_path / "a/memory.pressure").unlink()
    (tmp_path / "a/memory.swap.current").unlink()
    assert others_use(str(tmp_path)) == {"a": GroupUse(0, 0, 0)}
