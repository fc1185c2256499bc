"""The protocol between the command and the process that drives a cluster for it: an assignment there, frames back."""

import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, Self

import orjson

HEAD = struct.Struct(">BQQI")
ANY_CLUSTER = "auto"
"""Ray's word for the cluster of which this machine is a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The first pending lines of an input. Paths are those of the command's machine."""

    source: Path
    max_line_bytes: int
    output: Path
    num_output_bytes: int
    """The output's size at the start of this assignment: later bytes answer its lines."""
    errors: Path
    num_errors_bytes: int
    max_lines: int
    is_ordered: bool
    address: str
    """The cluster's, in Ray's notation."""
    num_replicas: int | None
    """None: as many as the cluster has cores for."""
    num_cores: int
    """Per replica."""
    max_num_sequences: int
    """Per replica."""

    def to_json(self) -> bytes:
        """One line."""
        return orjson.dumps(asdict(self), default=str, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        fields = orjson.loads(line)
        return cls(**fields | {name: Path(fields[name]) for name in ("source", "output", "errors")})


class FrameKind(IntEnum):
    ANSWERED = 0
    """`content` is a line for the output."""
    FAILED = 1
    """`content` is a line for the error file."""
    REFUSED = 2
    """The assignment can't be done; `content` says why."""
    LOST = 3
    """Some workers were lost, with their lines, which another assignment will contain; `content` says why."""
    ENDED = 4
    """The last frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    kind: FrameKind
    content: bytes = b""
    position: int = 0
    """Among the assignment's lines, from 0, without gaps. Only for ANSWERED and FAILED, as `num_bytes`."""
    num_bytes: int = 0
    """Size of the input record."""

    def to_bytes(self) -> bytes:
        return HEAD.pack(self.kind, self.position, self.num_bytes, len(self.content)) + self.content


def read_frames(file: BinaryIO) -> Iterator[Frame]:
    """Yields frames until the end of the file. An incomplete frame, left by a writer that died, is dropped."""
    while len(head := file.read(HEAD.size)) == HEAD.size:
        kind, position, num_bytes, num_content_bytes = HEAD.unpack(head)
        content = file.read(num_content_bytes)
        if len(content) < num_content_bytes:
            return
        yield Frame(kind=FrameKind(kind), position=position, num_bytes=num_bytes, content=content)
