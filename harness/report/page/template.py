# SPDX-License-Identifier: GPL-2.0-or-later
"""What the pages have in common: style, script, escaping, and a Content-Security-Policy that allows that script alone.

Everything that is not a template of ours goes through Jinja's autoescape after what cannot be printed was escaped; the
only markup that is passed on is what svg() and this package made.  The page allows one script, by its digest, and no
connection: a console's line that got through all of that would still do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from harness.report.printable import printable
from harness.report.timeline.drawing import SAYS

PAGE_BYTES = 1_900_000
"""A page stays below 2 MB: it is opened over networks, sent by mail, and read in a minute."""


def render(template: str, title: str, values: Mapping[str, Any]) -> str:
    """A page's text.

    :param template: "page" is page.html.j2.
    :param values: what the template names, besides what all pages have.
    """
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(f"{template}.html.j2")
        .render(
            values,
            title=title,
            css=Markup(_read("page.css")),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
            looks=[(look.value, words) for look, words in SAYS.items()],
            looks_json=Markup(json.dumps({look.value: words for look, words in SAYS.items()})),
        )
    )


def what_fits(sizes: Mapping[Any, int], rest: int) -> frozenset[Any]:
    """The keys of drawings that can all stand in a page, the smallest first.

    :param sizes: bytes of each.
    :param rest: bytes of the page without them.
    """
    found, room = [], PAGE_BYTES - rest
    for key in sorted(sizes, key=lambda key: sizes[key]):
        room -= sizes[key]
        if room < 0:
            break
        found.append(key)
    return frozenset(found)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=_printed,
        loader=jinja2.FunctionLoader(_read),
    )  # fmt: skip


@cache
def _read(name: str) -> str:
    return (resources.files("harness.report.page") / name).read_text(encoding="utf-8")


def _printed(value: object) -> object:
    """What jinja is about to print: markup of ours as it is, text of anybody printable."""
    return value if isinstance(value, Markup) else printable(str(value))
