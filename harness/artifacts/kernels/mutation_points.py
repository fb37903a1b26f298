# SPDX-License-Identifier: GPL-2.0-or-later
"""The points of a kernel with systematic mutants: what they are, their list, and what the kernel says of them.

mutations.py finds them and puts them into the sources; mutation_targets.py says where and who should notice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from harness.errors import CatalogError

FIRST = 1000
"""Number of the first point; numbers below are those of the mutants written by hand."""
POINTS = "points.json"
"""The list of points, beside the kernel that has them."""
HEADER = "include/linux/kvm_apf_point.h"


class PointKind(StrEnum):
    """What the kernel does wrong at a point."""

    NOT = "negated"  # a condition or a truth value is the opposite
    NEVER = "never entered"  # a loop's body is not executed
    IGNORED = "ignored"  # a further condition of a loop is taken to hold
    SKIP = "left out"  # a statement is not executed
    NEIGHBOUR = "off by one"  # a value has its lowest bit flipped, or a bound is one higher
    ZERO = "zero"  # a flag or an error is 0


@dataclass(frozen=True, slots=True)
class Point:
    """One mutant.  ``line``: in the unmutated file; ``text``: what is mutated, as it stands there."""

    number: int
    file: str
    function: str
    line: int
    kind: PointKind
    text: str

    @property
    def name(self) -> str:
        """Readable, and the same in releases whose text is the same."""
        return f"{self.function}: {self.text} {self.kind}"


def to_json(points: Iterable[Point]) -> str:
    """The list of points as a file."""
    return json.dumps([asdict(p) for p in points], indent=1) + "\n"


def from_json(text: str) -> tuple[Point, ...]:
    """The inverse of to_json.

    :raise CatalogError: no such list.
    """
    try:
        return tuple(Point(**{**entry, "kind": PointKind(entry["kind"])}) for entry in json.loads(text))
    except (ValueError, KeyError, TypeError) as exc:
        raise CatalogError(f"{POINTS}: {exc!r}") from exc


def header(points: int) -> str:
    """The kernel header that a mutated file includes."""
    return f"""/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_KVM_APF_POINT_H
#define _LINUX_KVM_APF_POINT_H

#include <linux/compiler.h>

/* Mistakes on purpose, made by the test harness; the parameter kvm.apf_mutant selects one. */
#define APF_FIRST_POINT {FIRST}
#define APF_POINTS {points}

extern unsigned int apf_mutant;
extern unsigned char apf_point_reached[APF_POINTS];

static __always_inline bool apf_point(unsigned int number)
{{
	WRITE_ONCE(apf_point_reached[number - APF_FIRST_POINT], 1);
	return READ_ONCE(apf_mutant) == number;
}}

#endif
"""


def definitions() -> str:
    """What the owner of the parameters (virt/kvm/async_pf.c) defines: kvm.apf_mutant and kvm.apf_reached.

    apf_reached reads as hexadecimal digits, four points each, lowest first; writing anything forgets them.
    """
    return """
unsigned int apf_mutant;
EXPORT_SYMBOL_GPL(apf_mutant);
module_param(apf_mutant, uint, 0644);
unsigned char apf_point_reached[APF_POINTS];
EXPORT_SYMBOL_GPL(apf_point_reached);

static int apf_reached_set(const char *value, const struct kernel_param *param)
{
	memset(apf_point_reached, 0, sizeof(apf_point_reached));
	return 0;
}

static int apf_reached_get(char *buffer, const struct kernel_param *param)
{
	unsigned int digit, bit, n, value;

	for (digit = 0; digit < (APF_POINTS + 3) / 4; digit++) {
		value = 0;
		for (bit = 0; bit < 4; bit++) {
			n = digit * 4 + bit;
			if (n < APF_POINTS && apf_point_reached[n])
				value |= 1 << bit;
		}
		buffer[digit] = "0123456789abcdef"[value];
	}
	buffer[digit++] = '\\n';
	buffer[digit] = 0;
	return digit;
}

static const struct kernel_param_ops apf_reached_ops = {
	.set = apf_reached_set,
	.get = apf_reached_get,
};
module_param_cb(apf_reached, &apf_reached_ops, NULL, 0644);
"""


def reached(text: str) -> frozenset[int]:
    """Numbers of the points that /sys/module/kvm/parameters/apf_reached names."""
    return frozenset(
        FIRST + 4 * place + bit
        for place, digit in enumerate(text.strip())
        for bit in range(4)
        if int(digit, 16) >> bit & 1
    )
