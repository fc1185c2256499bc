"""Corrupts files of `torch.save`: their archives, and the opcodes of their pickles."""

from __future__ import annotations

import io
import pickletools
import random
import zipfile
import zlib
from contextlib import suppress

OPCODES = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"),
    *(b"(", b")", b"]", b"}", b"0", b"1", b"2", b".", b"N", b"\x88", b"t", b"\x85", b"\x87", b"a", b"e", b"s", b"u"),
    *(b"R", b"b", b"Q", b"\x93", b"\x94", b"\x81", b"q\x00", b"h\x00", b"r\xff\xff\xff\xff", b"j\xff\xff\xff\xff"),
    *(b"K\x01", b"J\xff\xff\xff\xff", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"\x8a\xff" + b"\x7f" * 255),
    *(b"\x8d" + b"\xff" * 8, b"\x8e" + b"\xff" * 7 + b"\x7f", b"\x96" + b"\x00" * 4 + b"\xff\x00\x00\x00"),
    *(b"X\xff\xff\xff\x7f", b"X\x01\x00\x00\x00a", b"\x8b\xff\xff\xff\x7f", b"\x95" + b"\xff" * 8, b"I1\n"),
)
"""Opcodes of pickles, some with arguments that are too large."""


def corrupt_torch_file(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """PyTorch's: an archive's pickle or another of its files, or the pickles of the older format."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        pickle = next(name for name in files if name.endswith("data.pkl"))
    except (zipfile.BadZipFile, zlib.error, StopIteration, ValueError, OSError, NotImplementedError):
        # The older format, or already corrupted.
        return _corrupt_opcodes(rng, content)
    name = rng.choice([*files])
    kind = zipfile.ZIP_STORED
    match rng.randrange(8):
        case 0:
            del files[name]
            how = f"without {name}"
        case 1:
            files[name] += bytes(rng.choice((1, 4, 1 << 20)))
            how = f"{name} longer"
        case 2:
            files[rng.choice(("archive/data/0", "other/data.pkl", "../x", "a" * 60_000))] = files.pop(name)
            how = f"{name} renamed"
        case 3:
            kind = zipfile.ZIP_DEFLATED
            how = "compressed"
        case _:
            files[pickle], how = _corrupt_opcodes(rng, files[pickle])
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue(), how


def _corrupt_opcodes(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    begins = [0]
    with suppress(ValueError, AssertionError, OverflowError):
        begins += [position or 0 for _, _, position in pickletools.genops(content)]
    at, to = sorted(rng.choice(begins) for _ in range(2))
    match rng.randrange(5):
        case 0:
            return content[:at] + content[to:], "opcodes left out"
        case 1:
            return content[:to] + content[at:to] * rng.choice((1, 50)) + content[to:], "opcodes repeated"
        case 2:
            return content[:at] + rng.choice(OPCODES) * rng.choice((1000, 400_000)) + content[at:], "many opcodes"
        case _:
            return content[:at] + rng.choice(OPCODES) + content[rng.choice((at, to)) :], "a wrong opcode"
