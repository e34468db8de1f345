"""The outline of MLIR bytecode, checked before a parser in C++ gets it.

That parser ends the process on some damage. A file that was cut, or whose lengths do
not add up, does not come so far; damage inside of a section does.
"""

_MAGIC = b"ML\xefR"
_SECTIONS = range(9)
_PADDING = 0xCB


def check_bytecode(content: bytes) -> None:
    """Follows the lengths of all sections to the end of the file.

    Raises:
        ValueError: it is not such bytecode of StableHLO, or was cut or damaged.
    """
    try:
        whole = content[:4] == _MAGIC and _sections(content)
    except IndexError:
        whole = False
    if not whole:
        raise ValueError("its StableHLO is damaged or cut short")


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
    """A number whose lowest bits say its length, and the place behind it."""
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
