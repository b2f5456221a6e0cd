"""Pages that show what others wrote: nothing of it is run, loaded, or let turn the words around it."""

from __future__ import annotations

import base64
import hashlib
import html
import re

# Characters that change the direction of what follows them, up to the end of the line if they like.
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")


def content_policy(css: str, js: str, *more: str) -> str:
    """The Content-Security-Policy of a page with this style and this script, that loads nothing but pictures within it.

    Styles of single elements are not let through: `page.js` sets them, from `data-style`.
    """
    style, script = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, js))
    return "; ".join(
        (
            "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'",
            f"script-src 'sha256-{script}'; style-src 'sha256-{style}'",
            *more,
        )
    )


def escape(text: str) -> str:
    """Text as HTML; characters that turn what follows are spelt."""
    return html.escape(_TURNING.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def isolated(text: str) -> str:
    """The same, in a direction of its own: for what may be of any language."""
    return f"<bdi>{escape(text)}</bdi>"
