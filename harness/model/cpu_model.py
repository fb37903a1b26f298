# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU ``-cpu`` string offers of KVM's async page fault features (QEMU 7.2, target/i386/cpu.c, kvm/kvm-cpu.c).

KVM offers ASYNC_PF, ASYNC_PF_VMEXIT and ASYNC_PF_INT.  ``host`` and ``max`` pass on what QEMU has a name for; 7.2 has
none for ASYNC_PF_VMEXIT, so that bit needs ``migratable=off``.  Named models show kvm-asyncpf (kvm_default_props).
What is hidden stays usable unless ``kvm-pv-enforce-cpuid`` is on (arch/x86/kvm/cpuid.h:guest_pv_has).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_PASSED_ON = ("host", "max")
_ON = ("on", "true", "yes", "y")


@dataclass(frozen=True, slots=True)
class CpuModel:
    """A parsed ``-cpu`` string."""

    name: str
    flags: Mapping[str, bool]

    @property
    def passed_on(self) -> bool:
        """Everything that KVM offers and QEMU has a name for."""
        return self.name in _PASSED_ON

    def shows(self, feature: str, *, default: bool) -> bool:
        """Whether CPUID 0x40000001 has the feature."""
        return self.flags.get("kvm", True) and self.flags.get(feature, default)

    @property
    def async_pf(self) -> bool:
        return self.shows("kvm-asyncpf", default=True)

    @property
    def async_pf_int(self) -> bool:
        return self.shows("kvm-asyncpf-int", default=self.passed_on)

    @property
    def async_pf_vmexit(self) -> bool:
        unnamed = self.passed_on and not self.flags.get("migratable", True)
        return self.shows("kvm-asyncpf-vmexit", default=unnamed)

    @property
    def x2apic(self) -> bool:
        """KVM emulates it, and QEMU shows it of any model (kvm_default_props)."""
        return self.flags.get("x2apic", True)

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


def _feature(text: str) -> str:
    """cpu.c:feat2prop: underscores are dashes."""
    return text.strip().replace("_", "-")
