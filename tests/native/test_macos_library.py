"""The library for macOS on arm64, compiled on another system: the file as the loader reads it. It can't run here.

`make test-arm64` builds it and sets KERNELS_MACOS to its path. Numbers are those of Apple's mach-o/loader.h.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAGIC_64, ARM64, DYLIB = 0xFEEDFACF, 0x0100000C, 6
SYMBOLS, LOAD_DYLIB, CODE_SIGNATURE, BUILD_VERSION = 0x2, 0xC, 0x1D, 0x32
MACOS = 1
LINKERS_OWN = {"_mh_dylib_header", "__dso_handle"}
"""Symbols that the linker adds to every library."""


@dataclass(frozen=True)
class Library:
    """A Mach-O file of 64 bits."""

    content: bytes

    def header(self) -> tuple[int, int, int, int]:
        """Magic number, processor, kind of file, number of commands."""
        magic, processor, _, kind, num_commands = struct.unpack_from("<IIIII", self.content)
        return magic, processor, kind, num_commands

    def commands(self, wanted: int) -> Iterator[bytes]:
        at = 32
        for _ in range(self.header()[3]):
            command, size = struct.unpack_from("<II", self.content, at)
            if command == wanted:
                yield self.content[at : at + size]
            at += size

    def text(self, at: int) -> str:
        return self.content[at : self.content.index(b"\0", at)].decode()

    def exported(self) -> set[str]:
        """External symbols that are defined here, as C names them."""
        (command,) = self.commands(SYMBOLS)
        table, num_symbols, strings = struct.unpack_from("<III", command, 8)
        names = set()
        for index in range(num_symbols):
            name, kind, section = struct.unpack_from("<IBB", self.content, table + index * 16)
            if kind & 0x0F == 0x0F and section:  # N_SECT and N_EXT, not private
                names.add(self.text(strings + name).removeprefix("_"))
        return names


@pytest.fixture
def library() -> Library:
    return Library(Path(os.environ["KERNELS_MACOS"]).read_bytes())


def test_it_is_a_library_of_apples_arm64(library: Library) -> None:
    assert library.header()[:3] == (MAGIC_64, ARM64, DYLIB)


def test_it_exports_the_functions_of_step_h_and_nothing_else(library: Library) -> None:
    header = (ROOT / "native" / "step.h").read_text(encoding="utf-8")
    declared = set(re.findall(r"^[\w ]+[ *](engine_\w+)\(", header, re.MULTILINE))

    assert len(declared) == 8
    assert library.exported() - LINKERS_OWN == declared


def test_it_loads_from_macos_11_on(library: Library) -> None:
    """The first macOS on arm64."""
    (command,) = library.commands(BUILD_VERSION)

    system, oldest = struct.unpack_from("<II", command, 8)

    assert (system, oldest >> 16, oldest >> 8 & 0xFF) == (MACOS, 11, 0)


def test_it_needs_no_library_but_the_systems(library: Library) -> None:
    needed = [command[24:].rstrip(b"\0").decode() for command in library.commands(LOAD_DYLIB)]

    assert needed == ["/usr/lib/libSystem.B.dylib"]


def test_it_is_signed(library: Library) -> None:
    """Apple's arm64 loads no code without a signature, but it may be one without a certificate."""
    (command,) = library.commands(CODE_SIGNATURE)

    (at, size) = struct.unpack_from("<II", command, 8)

    assert library.content[at : at + 4] == bytes.fromhex("fade0cc0")
    assert at + size <= len(library.content)
