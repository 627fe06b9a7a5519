"""Names of the operating system as text: they are bytes, and may hold anything but a slash and a zero."""

from __future__ import annotations

import os
import unicodedata


def as_text(name: str | bytes | os.PathLike[str]) -> str:
    r"""Return a name or path as printable text of one line, the same under every locale.

    Bytes that are not UTF-8, control characters and line separators are escaped as in Python (``\xff``, ``\n``);
    everything else stays as it is.

    Examples
    --------
    >>> print(as_text(b"caf\xc3\xa9"), as_text(b"caf\xe9"), as_text("a\nb"))
    café caf\xe9 a\nb
    """
    return escaped_controls(os.fsencode(name).decode("utf-8", "backslashreplace"))


def escaped_controls(text: str) -> str:
    """``text`` in one line, with control characters and line separators escaped."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Zl", "Zp")
        else character
        for character in text
    )


def quoted(path: str | bytes | os.PathLike[str]) -> str:
    """Return a path for a message: as text, between quotation marks."""
    return f"'{as_text(path)}'"
