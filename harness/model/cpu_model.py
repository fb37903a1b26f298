# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU ``-cpu`` string offers of KVM's async page fault features (QEMU 7.2, target/i386/cpu.c, kvm/kvm-cpu.c).

KVM offers ASYNC_PF, ASYNC_PF_VMEXIT and ASYNC_PF_INT.  ``host`` and ``max`` pass on what QEMU has a name for; before
9.0 it has none for ASYNC_PF_VMEXIT, so that bit needs ``migratable=off``.  Named models show kvm-asyncpf
(kvm_default_props; ``base`` does not).  What QEMU shows and KVM does not offer is taken away (x86_cpu_filter_features);
the interrupt controller changes none of the three (kvm/kvm.c:kvm_arch_get_supported_cpuid).
What is hidden stays usable unless ``kvm-pv-enforce-cpuid`` is on (arch/x86/kvm/cpuid.h:guest_pv_has).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

_PASSED_ON, _BARE = ("host", "max"), "base"
_ON = ("on", "true", "yes", "y")


class Feature(IntEnum):
    """Bits of EAX of CPUID 0x40000001, KVM_FEATURE_* (arch/x86/include/uapi/asm/kvm_para.h)."""

    ASYNC_PF = 4
    ASYNC_PF_VMEXIT = 10
    ASYNC_PF_INT = 14

    @property
    def flag(self) -> str:
        """QEMU's name, where it has one."""
        return f"kvm-{self.name.lower().replace('async_pf', 'asyncpf').replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class CpuModel:
    """A parsed ``-cpu`` string."""

    name: str
    flags: Mapping[str, bool]

    @property
    def passed_on(self) -> bool:
        """Everything that KVM offers and QEMU has a name for."""
        return self.name in _PASSED_ON

    @property
    def _by_default(self) -> bool:
        """QEMU adds kvm_default_props, or passes all on."""
        return self.name != _BARE

    def shows(self, feature: str, *, default: bool) -> bool:
        """Whether CPUID 0x40000001 has the feature."""
        return self.flags.get("kvm", True) and self.flags.get(feature, default)

    @property
    def async_pf(self) -> bool:
        return self.shows(Feature.ASYNC_PF.flag, default=self._by_default)

    @property
    def async_pf_int(self) -> bool:
        return self.shows(Feature.ASYNC_PF_INT.flag, default=self.passed_on)

    @property
    def async_pf_vmexit(self) -> bool:
        """By a QEMU that has no name for it."""
        return self.shows_vmexit(named=False)

    def shows_vmexit(self, *, named: bool) -> bool:
        """``named``: by a QEMU that has a name for it."""
        passes = named or not self.flags.get("migratable", True)
        return self.shows(Feature.ASYNC_PF_VMEXIT.flag, default=self.passed_on and passes)

    @property
    def x2apic(self) -> bool:
        """KVM emulates it, and QEMU shows it of any model but one (kvm_default_props)."""
        return self.flags.get("x2apic", self._by_default)

    @property
    def enforced(self) -> bool:
        """KVM_CAP_ENFORCE_PV_FEATURE_CPUID is asked for."""
        return self.flags.get("kvm-pv-enforce-cpuid", False)


def parse_cpu(text: str) -> CpuModel:
    """``host,-kvm-asyncpf-int,+f,g=on``.  x86_cpu_expand_features applies ``g=on`` first, then all +, then all -."""
    name, *words = (word.strip() for word in text.split(","))
    assigned: dict[str, bool] = {}
    plus: dict[str, bool] = {}
    minus: dict[str, bool] = {}
    for word in words:
        if word.startswith("+"):
            plus[_feature(word[1:])] = True
        elif word.startswith("-"):
            minus[_feature(word[1:])] = False
        else:
            feature, equals, value = word.partition("=")
            assigned[_feature(feature)] = not equals or value.lower() in _ON
    return CpuModel(name, assigned | plus | minus)


def names_vmexit(version: str) -> bool | None:
    """Whether QEMU of this version has a name for ASYNC_PF_VMEXIT: since "target/i386: Add support of
    KVM_FEATURE_ASYNC_PF_VMEXIT for guest", between 8.2 and 9.0.  None: it is not known."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        return None
    release = tuple(map(int, found.groups()))
    return release >= (9,) if not (8, 2, 50) <= release < (9,) else None


def _feature(text: str) -> str:
    """cpu.c:feat2prop: underscores are dashes."""
    return text.strip().replace("_", "-")
