"""A temporary PostgreSQL server on a Unix socket, with a database for each test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from tests.batch.store.conftest import build_lines, build_scene, clock, scene

__all__ = ["build_lines", "build_scene", "clock", "scene"]

DEBIAN = Path("/usr/lib/postgresql")
NAMES = ("postgres", "nobody")
"""Users to run PostgreSQL as if the tests run as root, which PostgreSQL refuses."""


def find_programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    return next((path.parent for path in sorted(DEBIAN.glob("*/bin/initdb"), reverse=True)), None)


def find_user() -> str | None:
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in NAMES if name in known)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The server's URL, without the name of a database."""
    programs = find_programs()
    if programs is None:
        pytest.skip("no PostgreSQL is installed: apt install postgresql")
    user = find_user()
    folder = Path(tempfile.mkdtemp(prefix="distilgpt2-postgres-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        run = partial(subprocess.run, cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL)
        store = folder / "database"
        make = [programs / "initdb", "--pgdata", store, "--username=tester", "--auth=trust", "--no-sync"]
        run(make)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        control = [programs / "pg_ctl", "--pgdata", store, "--wait", "--log", folder / "log"]
        run([*control, "--options", options, "start"])
        try:
            yield f"postgresql+psycopg://tester@/{{}}?host={folder}"
        finally:
            run([*control, "--mode=immediate", "stop"])
    finally:
        shutil.rmtree(folder)


NUMBERS = count()


@pytest.fixture
def location(postgres: str) -> str:
    """Replaces the folder that the tests of SQLite use."""
    name = f"test{next(NUMBERS)}"
    engine = create_engine(postgres.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return postgres.format(name)
