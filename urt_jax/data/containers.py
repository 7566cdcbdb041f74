"""Detection of video files by their first bytes, and their sizes by their headers."""

from io import SEEK_END, BufferedIOBase

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts")
)
HEAD_BYTES = 189  # read to detect a file's type: one packet of a transport stream and one byte

_STILL_BRANDS = (
    b"avif",
    b"avis",
    b"heic",
    b"heix",
    b"hevc",
    b"heim",
    b"mif1",
    b"msf1",
)  # pictures in the container of mp4
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # old QuickTime files have no ftyp
_SIGNATURES = {  # first bytes -> usual file name suffix
    b"\x1a\x45\xdf\xa3": "mkv",  # and webm
    b"\x00\x00\x01\xba": "mpeg",
    b"\x00\x00\x01\xb3": "mpeg",
    b"FLV\x01": "flv",
    b"0&\xb2u": "wmv",
}
_UNKNOWN_SIZES = (0x7F, 0x01FFFFFFFFFFFFFF)  # Matroska: all bits set, a stream of unknown length


def video_suffix(head: bytes) -> str | None:
    """Return the usual suffix ("mp4", "mkv", ...) of a video file by its first ``HEAD_BYTES``; None if not a video."""
    if head[4:8] in _BOXES:
        return None if head[8:12] in _STILL_BRANDS else "mp4"
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return "avi"
    if head[:1] == head[188:189] == b"G" and head[:4] != b"GIF8":  # packets of 188 bytes, each begins with a G
        return "ts"
    return _SIGNATURES.get(head[:4])


def gif_frames(data: bytes, most: int) -> int:
    """Count the frames of a GIF, at most ``most``, by its blocks alone; a damaged one up to the damage."""
    if data[:4] != b"GIF8" or len(data) < 13:
        return 0
    place, count = 13 + _table_bytes(data[10]), 0
    while place + 10 <= len(data) and count < most:
        if data[place] == 0x2C:  # a picture: its offset and size, colours, and a byte before its blocks
            count += 1
            place += 10 + _table_bytes(data[place + 9]) + 1
        elif data[place] == 0x21:
            place += 2
        else:  # 0x3B ends the file; other bytes are skipped, as in Pillow
            if data[place] == 0x3B:
                break
            place += 1
            continue
        while place < len(data) and data[place]:
            place += 1 + data[place]
        place += 1
    return count


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def stated_bytes(file: BufferedIOBase) -> int | None:
    """Return the size in bytes that a video file's headers state, or None if they state none.

    A longer file is valid, a shorter one is cut. Supports mp4 and mov (sizes of the outer boxes), avi, mkv and webm.
    """
    file.seek(0)
    head = file.read(8)
    if head[4:8] in _BOXES:
        return _end_of_boxes(file)
    if head[:4] == b"RIFF":
        return 8 + int.from_bytes(head[4:8], "little")
    return _end_of_segment(file) if head[:4] == b"\x1a\x45\xdf\xa3" else None


def _end_of_boxes(file: BufferedIOBase) -> int | None:
    total, place = file.seek(0, SEEK_END), 0
    while place + 8 <= total:
        file.seek(place)
        size, header = int.from_bytes(file.read(4), "big"), 8
        file.read(4)
        if size == 1:  # the size follows, in 64 bits
            size, header = int.from_bytes(file.read(8), "big"), 16
        if size < header:  # 0: the box ends with the file, whatever its length; others: junk after the last box
            return None
        place += size
    return place


def _end_of_segment(file: BufferedIOBase) -> int | None:
    file.seek(4)
    length, _ = _variable_integer(file)
    file.seek(length, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    size, raw = _variable_integer(file)
    return None if raw in _UNKNOWN_SIZES else file.tell() + size


def _variable_integer(file: BufferedIOBase) -> tuple[int, int]:
    """Read an EBML integer; return it without and with its length marker (1 to 8 bytes, encoded by leading zeros)."""
    first = file.read(1)[:1] or b"\x80"
    width = 9 - first[0].bit_length()
    raw = int.from_bytes(first + file.read(width - 1), "big") if width <= 8 else 0
    return raw & (1 << 7 * min(width, 8)) - 1, raw
