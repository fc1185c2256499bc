"""Collects from a Debian image the files that a service in Python needs: the interpreter, its standard library, shared
libraries, certificates and time zones. No shell, no package manager, no other program.

    python docker/minimal_root.py ENVIRONMENT ROOT

ENVIRONMENT is the virtual environment whose libraries must load. ROOT gets the files, at their paths in this system.
ROOT/var/lib/dpkg/status.d describes the Debian packages that they are from: scanners for vulnerabilities read it, as in
other images without a package manager.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

DATA = (
    "/etc/debian_version",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/usr/lib/locale/C.utf8",
    "/usr/lib/ssl/cert.pem",
    "/usr/lib/ssl/certs",
    "/usr/lib/ssl/openssl.cnf",
    "/usr/share/zoneinfo",
)
LIBRARIES_BY_NAME = ("libgcc_s.so.1",)
"""glibc loads it when a thread is cancelled; no file names it as its need."""
NEEDLESS = re.compile(r"/(__phello__|venv|lib-dynload/(readline|_dbm|_gdbm|_curses).*|(site|dist)-packages)$")
"""Parts of the standard library for terminals, old databases and pip."""
FOLDERS = ("dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "var/tmp")
ACCOUNTS = {
    "/etc/passwd": "root:x:0:0:root:/root:/nonexistent\n",
    "/etc/group": "root:x:0:\n",
}
DPKG = Path("/var/lib/dpkg")


def main() -> None:
    environment, root = map(Path, sys.argv[1:])
    tree = Tree(root)
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for link in Path("/").iterdir():
        if link.is_symlink():  # /lib is /usr/lib
            tree.add(link, is_followed=False)
    python = (environment / "bin" / "python").readlink()
    standard_library = Path(sysconfig.get_path("stdlib"))
    tree.add(python)
    tree.add(standard_library)
    modules = (path for path in tree.sources if path.suffix == ".so")
    for library in find_libraries([python.resolve(), *modules, *environment.rglob("*.so*")]):
        if not library.is_relative_to(environment):
            tree.add(library)
    for path in DATA:
        if os.path.lexists(path):
            tree.add(Path(path))
    for name, text in ACCOUNTS.items():
        tree.write(Path(name), text)
    write_packages(tree)
    subprocess.run(["ldconfig", "-X", "-i", "-r", root], check=True)
    shutil.rmtree(root / "var/cache", ignore_errors=True)  # of ldconfig, with the times of the build
    num_bytes = sum(path.lstat().st_size for path in root.rglob("*") if not path.is_dir())
    print(f"minimal root: {len(tree.sources)} files, {num_bytes / 1e6:.1f} MB")


class Tree:
    """Files copied from the running system into another root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.sources: set[Path] = set()
        """Files and links, with the links to their folders resolved."""

    def add(self, path: Path, *, is_followed: bool = True) -> None:
        """Copy a file, a folder with its content, or a link and what it leads to."""
        source = path.parent.resolve() / path.name
        if source in self.sources or NEEDLESS.search(str(source)):
            return
        target = self._root / source.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            self.sources.add(source)
            target.symlink_to(source.readlink())
            if is_followed and source.exists():
                self.add(source.parent / source.readlink())
        elif source.is_dir():
            target.mkdir(exist_ok=True)
            for child in sorted(source.iterdir()):
                self.add(child)
        else:
            self.sources.add(source)
            shutil.copy2(source, target)

    def write(self, path: Path, text: str) -> None:
        target = self._root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def find_libraries(files: Iterable[Path]) -> Iterator[Path]:
    """The shared libraries that the loader finds for programs and libraries, and the loader itself."""
    paths = sorted({str(path) for path in files if not path.is_symlink()})
    result = subprocess.run(["ldd", *paths], capture_output=True, text=True, check=False)
    if missing := sorted(set(re.findall(r"^\s*(\S+) => not found", result.stdout, re.MULTILINE))):
        sys.exit(f"error: libraries that the image does not have: {', '.join(missing)}")
    found = {Path(path) for path in re.findall(r"^\s*(?:\S+ => )?(/\S+) \(0x", result.stdout, re.MULTILINE)}
    if not found:
        sys.exit(f"error: ldd found no library\n{result.stderr}")
    yield from sorted(found)
    folders = {path.parent for path in found if path.name == "libc.so.6"}
    for name in LIBRARIES_BY_NAME:
        yield from (folder / name for folder in folders if (folder / name).exists())


def write_packages(tree: Tree) -> None:
    """Add the description and the copyright of each Debian package that a file is from."""
    owners = {}
    for listing in (DPKG / "info").glob("*.list"):
        for line in listing.read_text().splitlines():
            path = Path(line)
            owners[path.parent.resolve() / path.name] = listing.stem.partition(":")[0]
    names = {owners[source] for source in tree.sources if source in owners}
    for paragraph in (DPKG / "status").read_text().split("\n\n"):
        package = re.search(r"^Package: (.+)$", paragraph, re.MULTILINE)
        if package and package[1] in names:
            tree.write(DPKG / "status.d" / package[1], paragraph.strip("\n") + "\n")
            tree.add(Path("/usr/share/doc", package[1]))


if __name__ == "__main__":
    main()
