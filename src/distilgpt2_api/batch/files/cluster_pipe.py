"""What the command and the process that drives a cluster for it say to each other: an assignment there, frames back."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, Self

import orjson

HEAD = struct.Struct(">BQQI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The first lines of an input that its outputs don't answer yet. Paths are those of the command's machine."""

    source: Path
    max_line_bytes: int
    output: Path
    num_output_bytes: int
    """So much of the output counts: what is written later answers lines of this assignment."""
    errors: Path
    num_errors_bytes: int
    max_lines: int
    is_ordered: bool
    address: str
    """Of the cluster, as Ray has it."""
    num_replicas: int | None
    """None: as many as there are cores for."""
    num_cores: int
    """Of each replica."""
    max_num_sequences: int
    """Of each replica's engine."""

    def to_json(self) -> bytes:
        """One line."""
        return orjson.dumps(asdict(self), default=str, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        fields = orjson.loads(line)
        return cls(**fields | {name: Path(fields[name]) for name in ("source", "output", "errors")})


class FrameKind(IntEnum):
    ANSWERED = 0
    """`content` is the output's line."""
    FAILED = 1
    """`content` is a line for the file of errors."""
    REFUSED = 2
    """Nothing can be done; `content` says why, as the next two."""
    LOST = 3
    """Some workers are gone, and with them lines that they had: another assignment has them."""
    ENDED = 4
    """Nothing comes any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    kind: FrameKind
    content: bytes = b""
    position: int = 0
    """Of the assignment's lines, from 0, without gaps; of the first two kinds, as the next."""
    num_bytes: int = 0
    """Of the input's record."""

    def to_bytes(self) -> bytes:
        return HEAD.pack(self.kind, self.position, self.num_bytes, len(self.content)) + self.content


def read_frames(file: BinaryIO) -> Iterator[Frame]:
    """Until the file's end. A frame that is not whole has a writer that is gone, and is left out."""
    while len(head := file.read(HEAD.size)) == HEAD.size:
        kind, position, num_bytes, num_content_bytes = HEAD.unpack(head)
        content = file.read(num_content_bytes)
        if len(content) < num_content_bytes:
            return
        yield Frame(kind=FrameKind(kind), position=position, num_bytes=num_bytes, content=content)
