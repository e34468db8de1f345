"""Checks of untrusted names: of videos, frames, classes and archive members.

Names come from folders, manifests and archives, and are used in paths, on terminals, in
CSV and in HTML. They are checked once, when a dataset is opened, so that no run fails
late because of a name and no name escapes its folder.
"""

import hashlib
import io
import re
import sys
import unicodedata

MAX_BYTES = 255
"""Maximum length of a file name in common file systems."""

# Windows reserves these names, with any suffix.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
# Bidirectional controls make text display in a different order than it is stored.
_BIDI_CONTROLS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def text_fault(text: str) -> str:
    """Returns why a text is not safe to display or write, or "" if it is.

    Control characters can send commands to a terminal; surrogates stand for bytes that
    are not UTF-8.
    """
    if not text.strip():
        return "is empty"
    for letter in text:
        kind = unicodedata.category(letter)
        if kind == "Cs":
            return "is not UTF-8"
        if kind in ("Cc", "Zl", "Zp") or letter in _BIDI_CONTROLS:
            return f"has the control character {ord(letter):#x}"
    return ""


def name_fault(name: str) -> str:
    """Returns why a name is not a valid file or folder name, or "" if it is."""
    fault = text_fault(name)
    if fault:
        return fault
    if "/" in name or "\\" in name:
        return "contains a path separator"
    if name in (".", ".."):
        return "leads out of the folder"
    if re.match(r"[A-Za-z]:", name):
        return "starts with a drive letter"
    if _RESERVED.fullmatch(name):
        return "is reserved on Windows"
    if len(name.encode()) > MAX_BYTES:
        return f"is longer than {MAX_BYTES} bytes"
    return ""


def printable(text: object) -> str:
    """Returns the text with characters that are unsafe on a terminal escaped."""
    return "".join(
        letter
        if letter == "\n" or not text_fault(letter + "x")
        else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def escape_unencodable_output() -> None:
    """Makes standard output and error escape characters that they cannot encode.

    Printing a name in another script must not end a run.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def file_name(*parts: str, suffix: str) -> str:
    """Joins parts to a file name; a name that is too long is cut and gets a hash."""
    name = "_".join(parts)
    limit = MAX_BYTES - 40 - len(suffix)  # leaves room for a temporary file's suffix
    if len(name.encode()) > limit:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name.encode()[: limit - 17].decode(errors='ignore')}-{digest}"
    return name + suffix
