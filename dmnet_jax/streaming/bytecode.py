"""Structural check of MLIR bytecode before it is passed to the C++ parser.

The parser aborts the process on some kinds of damage. This check rejects files that are
truncated or whose section lengths do not add up. It does not detect damage inside a
section.
"""

_MAGIC = b"ML\xefR"
_SECTIONS = range(9)
_PADDING = 0xCB


def check_bytecode(content: bytes) -> None:
    """Checks that the section lengths lead exactly to the end of the file.

    Raises:
        ValueError: `content` is not StableHLO bytecode, or is truncated or damaged.
    """
    try:
        whole = content[:4] == _MAGIC and _sections(content)
    except IndexError:
        whole = False
    if not whole:
        raise ValueError("its StableHLO is damaged or truncated")


def _sections(content: bytes) -> bool:
    _, place = _number(content, 4)  # the version
    end = content.find(0, place, place + 100)
    if not content[place:end].startswith(b"StableHLO_v"):
        return False
    place, seen = end + 1, set()
    while place < len(content):
        aligned, kind = content[place] >> 7, content[place] & 0x7F
        length, place = _number(content, place + 1)
        if kind not in _SECTIONS or kind in seen:
            return False
        if aligned:
            boundary, place = _number(content, place)
            if not 1 <= boundary <= 2**16:
                return False
            while place % boundary:
                if content[place] != _PADDING:
                    return False
                place += 1
        seen.add(kind)
        place += length
    return place == len(content) and bool(seen)


def _number(content: bytes, place: int) -> tuple[int, int]:
    """Decodes a variable-length integer; returns it and the offset after it."""
    first = content[place]
    if first == 0:
        more = 8
        value = int.from_bytes(content[place + 1 : place + 9], "little")
    else:
        more = (first & -first).bit_length() - 1
        value = int.from_bytes(content[place : place + more + 1], "little")
        value >>= more + 1
    if place + more >= len(content):
        raise IndexError
    return value, place + more + 1
