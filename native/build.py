"""Builds the kernels: one shared library with every target of an architecture, or a program beside them.

    python native/build.py                                           # for this machine, into the package
    python native/build.py --platform linux/arm64 --out /tmp/arm64   # for another one, elsewhere
    python native/build.py --driver --out build/driver --sanitize address,undefined  # the tests' driver
    python native/build.py --driver --emulate-tiles --out build/driver  # with the kernels for AMX, without AMX
    python native/build.py --roofs avx2 --out build/roofs     # what the machine can do at most

The compiler is ziglang, a package of the Python registry: clang with the C libraries of every platform. The environment
variable CXX names another one. Poetry calls this program when the package is built or installed; KERNELS_PREBUILT=1
then keeps the library that is already in the package.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
PACKAGE = SOURCES.parent / "src" / "distilgpt2_api" / "model" / "kernels"
COMPILER_CACHE = SOURCES.parent / "build" / "native" / "zig"
"""zig's own would stay in the user's home, with 50 MB of compiled C library."""
CACHE_VARIABLES = ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")
SHARED_SOURCES = ("step.cpp", "threads.cpp", "targets.cpp", "tiles.cpp")
TARGET_SOURCES = ("kernels.cpp", "sampling.cpp")
DRIVER_SOURCES = ("driver.cpp", "pool_test.cpp")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-fno-rtti",
    # A product and a sum are rounded once only where the source says fma(): every path gives the same bits.
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
)
AVX512VNNI = "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mprefer-vector-width=512"
TARGETS = {
    "x86_64": {
        "amx": f"-DHAS_TILES -mamx-tile -mamx-int8 {AVX512VNNI}",
        "avx512vnni": AVX512VNNI,
        "avxvnni": "-mavx2 -mfma -mavxvnni",
        "avx2": "-mavx2 -mfma",
        "sse2": "",
    },
    "aarch64": {
        "i8mm": "-march=armv8.2-a+i8mm",
        "dotprod": "-march=armv8.2-a+dotprod",
        "neon": "-march=armv8-a",
    },
}
"""Each architecture's targets, with the flags that clang and gcc need for them."""
ZIG_FLAGS = {
    "-march=armv8.2-a+i8mm": "-mcpu=generic+i8mm",
    "-march=armv8.2-a+dotprod": "-mcpu=generic+dotprod",
    "-march=armv8-a": "-mcpu=generic",
}
"""zig's words for the same."""
ZIG_PLATFORMS = {
    "linux/amd64": "x86_64-linux-gnu.2.17",
    "linux/arm64": "aarch64-linux-gnu.2.17",
    "darwin/arm64": "aarch64-macos.11.0",
    "darwin/amd64": "x86_64-macos.11.0",
}
MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", default=this_platform(), help=f"{', '.join(ZIG_PLATFORMS)} (default: this one)")
    parser.add_argument("--out", type=Path, help="folder for what is built (default: the package)")
    parser.add_argument(
        "--driver", action="store_true", help="the tests' driver, an executable, instead of the library"
    )
    parser.add_argument("--roofs", metavar="TARGET", help="the program that measures the machine instead")
    parser.add_argument("--emulate-tiles", action="store_true", help="AMX's tiles in memory: runs on AVX-512 VNNI")
    parser.add_argument("--sanitize", default="", help="sanitizers: address,undefined or thread")
    args = parser.parse_args()
    if args.platform not in ZIG_PLATFORMS:
        parser.error(f"no kernels for {args.platform}; there are some for {', '.join(ZIG_PLATFORMS)}")
    if args.out is None and os.environ.get("KERNELS_PREBUILT"):
        return
    work = args.out or SOURCES.parent / "build" / "native"
    if args.roofs:
        sys.stdout.write(f"{build_roofs(work, args.platform, args.roofs)}\n")
        return
    result = build(
        work,
        args.platform,
        is_driver=args.driver,
        sanitizers=args.sanitize,
        is_emulating_tiles=args.emulate_tiles,
    )
    if args.out is None and not args.driver:
        # Replaced as a whole: a process that has loaded the old one keeps it.
        copied = shutil.copyfile(result, PACKAGE / f".{result.name}.new")
        result = copied.replace(PACKAGE / result.name)
    sys.stdout.write(f"{result}\n")


def this_platform() -> str:
    return f"{platform.system().lower()}/{MACHINES.get(platform.machine(), platform.machine())}"


def build(
    out: Path, target_platform: str, *, is_driver: bool, sanitizers: str, is_emulating_tiles: bool = False
) -> Path:
    """Compiles all sources into `out`. Returns the path of the library or the driver. Raises CalledProcessError."""
    out.mkdir(parents=True, exist_ok=True)
    compiler = find_compiler(target_platform, is_static=is_driver)
    is_zig = "ziglang" in compiler
    # The pinned compiler warns of nothing; another one, named by CXX, may.
    flags = [*FLAGS, "-fno-sanitize=all", "-Werror"] if is_zig else [*FLAGS]
    if sanitizers:
        flags = [
            *FLAGS,
            f"-fsanitize={sanitizers}",
            "-fno-sanitize-recover=all",
            "-fno-omit-frame-pointer",
            "-g",
            "-O1",
        ]
        flags += ["-Wno-maybe-uninitialized"]  # gcc warns of its own headers
    # Sanitizers do not see what the instructions of tiles read and write.
    flags += ["-DEMULATED_TILES"] if is_emulating_tiles or sanitizers else []
    jobs = [(name, Path(name).stem, []) for name in (*SHARED_SOURCES, *(DRIVER_SOURCES if is_driver else ()))]
    for name, words in target_flags_of(target_platform, compiler).items():
        jobs += ((source, f"{name}-{source}", [f"-DTARGET={name}", *words]) for source in TARGET_SOURCES)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        commands = (
            [*compiler, *flags, *extra, "-c", str(SOURCES / source), "-o", str(out / f"{stem}.o")]
            for source, stem, extra in jobs
        )
        list(pool.map(run, commands))
    suffix = ".dylib" if target_platform.startswith("darwin") else ".so"
    result = out / ("driver" if is_driver else f"libkernels{suffix}")
    link = [f"-fsanitize={sanitizers}"] if sanitizers else ["-s"]
    link += [] if is_driver else ["-shared"]
    link += ["-nostdlib++"] if is_zig else []
    # Otherwise the library contains the path of `out`.
    link += [f"-Wl,-install_name,@rpath/{result.name}"] if suffix == ".dylib" and not is_driver else []
    run([*compiler, *link, *(str(out / f"{stem}.o") for _, stem, _ in jobs), "-lpthread", "-lm", "-o", str(result)])
    return result


def build_roofs(out: Path, target_platform: str, target: str) -> Path:
    """Compiles the program that measures the machine with one target's instructions. Raises CalledProcessError."""
    out.mkdir(parents=True, exist_ok=True)
    compiler = find_compiler(target_platform, is_static=False)
    words = target_flags_of(target_platform, compiler)[target]
    result = out / "roofs"
    link = ["-fno-sanitize=all", "-nostdlib++"] if "ziglang" in compiler else []
    sources = [str(SOURCES / name) for name in ("roofs.cpp", "threads.cpp", "tiles.cpp")]
    run([*compiler, *FLAGS, *words, *link, *sources, "-lpthread", "-o", str(result)])
    return result


def target_flags_of(target_platform: str, compiler: list[str]) -> dict[str, list[str]]:
    """The flags of each target of a platform, in the compiler's words."""
    targets = TARGETS["x86_64" if target_platform.endswith("amd64") else "aarch64"]
    words = ZIG_FLAGS if "ziglang" in compiler else {}
    return {name: words.get(flags, flags).split() for name, flags in targets.items()}


def find_compiler(target_platform: str, *, is_static: bool) -> list[str]:
    """`is_static`: the result needs no loader, so an emulator runs it without the other machine's files."""
    if named := os.environ.get("CXX"):
        return shlex.split(named)
    zig_platform = ZIG_PLATFORMS[target_platform]
    if is_static:
        zig_platform = zig_platform.replace("gnu.2.17", "musl")
    return [sys.executable, "-m", "ziglang", "c++", "-target", zig_platform]


def run(command: list[str]) -> None:
    caches = dict.fromkeys(CACHE_VARIABLES, str(COMPILER_CACHE))
    subprocess.run(command, check=True, env=caches | os.environ)  # noqa: S603 - the words are this file's own and those of CXX


if __name__ == "__main__":
    main()
