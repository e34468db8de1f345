"""Names from outside: of videos, frames, classes and members of archives.

They come from folders, manifests and archives of strangers, and go into paths, onto
terminals, into CSV and HTML. So they are checked once, when data are opened: a run
never ends because of a name, and no name leads out of a folder.
"""

import hashlib
import io
import re
import sys
import unicodedata

MAX_BYTES = 255
"""The longest name that file systems hold."""

# Of Windows, with any suffix: a folder shared with it cannot hold them.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
# Changes of direction: what is shown after them is not what is there.
_TURNS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def text_fault(text: str) -> str:
    """Why a text from outside may not be shown or written, in words; empty if it may.

    Control characters steer a terminal, surrogates stand for bytes that are not UTF-8.
    """
    if not text.strip():
        return "is empty"
    for letter in text:
        kind = unicodedata.category(letter)
        if kind == "Cs":
            return "is not UTF-8"
        if kind in ("Cc", "Zl", "Zp") or letter in _TURNS:
            return f"has the control character {ord(letter):#x}"
    return ""


def name_fault(name: str) -> str:
    """Why a name from outside cannot be a file's or folder's; empty if it can."""
    fault = text_fault(name)
    if fault:
        return fault
    if "/" in name or "\\" in name:
        return "has a separator of folders"
    if name in (".", ".."):
        return "leads out of the folder"
    if re.match(r"[A-Za-z]:", name):
        return "begins with a drive"
    if _RESERVED.fullmatch(name):
        return "is reserved on other systems"
    if len(name.encode()) > MAX_BYTES:
        return f"is longer than {MAX_BYTES} bytes"
    return ""


def printable(text: object) -> str:
    """Text with what a terminal cannot show, or would obey, written as escapes."""
    return "".join(
        letter
        if letter == "\n" or not text_fault(letter + "x")
        else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def escape_unencodable_output() -> None:
    """From here on, a letter that a terminal or a log lacks is printed as an escape.

    A name in another script must not end a run that prints it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def file_name(*parts: str, suffix: str) -> str:
    """A file's name made of names, cut with a hash where it would be too long."""
    name = "_".join(parts)
    most = MAX_BYTES - 40 - len(suffix)  # beside it stands the file being written
    if len(name.encode()) > most:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name.encode()[: most - 17].decode(errors='ignore')}-{digest}"
    return name + suffix
