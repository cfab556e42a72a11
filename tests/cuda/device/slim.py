"""Makes onnxruntime-gpu small enough to be carried: of all GPU code only Hopper's (sm_90a), less what no ImageGPT runs.

`python slim.py WHEEL OUTPUT.tar.xz [--full]` writes the package without its TensorRT provider, its Python tools and its
dist-info (igpt_runtime refuses an environment with both distributions, and the other machine has the CPU one).

libonnxruntime_providers_cuda.so keeps its size and its layout. Its section .nv_fatbin is a row of containers: a header
of 16 bytes (magic, version, size of the header, size of what follows), then entries, each a header (kind, its size, the
payload's padded and compressed size, architecture ...) and a zstd frame. A container here becomes one entry, that of
sm_90a, whose bytes are not touched, and zeros; that is what containers with one architecture look like in the file as
it comes. A container whose kernels are not wanted becomes the smallest sm_90a entry of the file, which has no kernels.
"""

import argparse
import collections
import ctypes
import ctypes.util
import functools
import hashlib
import io
import json
import lzma
import re
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

MAGIC = 0xBA55ED50
WANTED = 90
PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
LEFT_OUT = re.compile(
    r"providers_tensorrt|/libonnxruntime\.so|\.dist-info/|^onnxruntime/(tools|transformers|quantization|datasets|backend)/"
)
# Kernels by their mangled names, of which all of a cubin must be one kind's for it to go.
UNWANTED = {
    "grouped products of mixtures of experts": re.compile(
        r"GroupProblemShape|MoeFCGemm|moe_gemv_kernel|fused_moe|doActivationKernel.*moe"
    ),
    "flash attention in bfloat16": re.compile(r"flash_fwd.*10bfloat16_t"),
    "flash attention of heads of 192 and 256": re.compile(r"flash_fwd.*Flash_fwd_kernel_traitsILi(192|256)E"),
    "paged, bfloat16 and fp8 XQA": re.compile(r"(paged|_bf16|grp\d+_fp8).*kernel_mha"),
}


@functools.cache
def zstd() -> ctypes.CDLL:
    """The C library; only used here, to look at the names of kernels."""
    library = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
    library.ZSTD_decompress.restype = ctypes.c_size_t
    return library


def section(data: bytes, name: bytes) -> tuple[int, int]:
    """Offset and size of a section of an ELF file."""
    table = struct.unpack_from("<Q", data, 0x28)[0]
    size, count, strings = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
    names = headers[strings][4]
    for header in headers:
        begin = names + header[0]
        if data[begin : data.index(b"\0", begin)] == name:
            return header[4], header[5]
    raise SystemExit(f"no section {name!r}")


def entries(data: bytes, begin: int, end: int):
    """(architecture, begin, size with header, compressed size, decompressed size, header size) in a container."""
    place = begin
    while place < end:
        kind, _, header = struct.unpack_from("<HHI", data, place)
        padded, compressed = struct.unpack_from("<QI", data, place + 8)
        arch = struct.unpack_from("<I", data, place + 28)[0]
        plain = struct.unpack_from("<Q", data, place + 56)[0]
        assert kind == 2, f"not machine code but kind {kind}: look again what this version of the wheel holds"
        yield arch, place, header + padded, compressed, plain, header
        place += header + padded
    assert place == end


def containers(data: bytes):
    """(begin of the header, begin and end of the entries) of every container."""
    offset, size = section(data, b".nv_fatbin")
    place = offset
    while place < offset + size:
        if struct.unpack_from("<I", data, place)[0] != MAGIC:
            place += 8  # between containers
            continue
        _, _, header, length = struct.unpack_from("<IHHQ", data, place)
        yield place, place + header, place + header + length
        place += header + length


def kernels(data: bytes, entry) -> list[str]:
    """Mangled names of the kernels of an entry."""
    _, place, _, compressed, plain, header = entry
    frame = data[place + header : place + header + compressed]
    assert frame[:4] == bytes.fromhex("28b52ffd"), "not zstd"
    buffer = ctypes.create_string_buffer(plain)
    got = zstd().ZSTD_decompress(buffer, ctypes.c_size_t(plain), frame, ctypes.c_size_t(compressed))
    assert got == plain
    return sorted({name.decode() for name in re.findall(rb"\.nv\.info\.(_Z\w+)", buffer.raw)})


def slim(original: bytes, full: bool) -> tuple[bytes, dict]:
    """The library with Hopper's code only, and what was done. full: keep all kernels of that."""
    data = bytearray(original)
    counts: collections.Counter = collections.Counter()
    sizes: collections.Counter = collections.Counter()
    smallest = None
    for _, begin, end in containers(original):
        for entry in entries(original, begin, end):
            if entry[0] == WANTED and (smallest is None or entry[2] < smallest[2]):
                smallest = entry
    assert smallest is not None and not kernels(original, smallest), "no empty entry to put in place of others"
    for head, begin, end in containers(original):
        found = {entry[0]: entry for entry in entries(original, begin, end)}
        if WANTED not in found:  # a quarter of a megabyte in all: left alone
            counts["for other GPUs only"] += 1
            continue
        entry, what = found[WANTED], "kept"
        if not full:
            names = kernels(original, entry)
            for kind, pattern in UNWANTED.items():
                if names and all(pattern.search(name) for name in names):
                    entry, what = smallest, kind
        counts[what] += 1
        sizes[what] += found[WANTED][2]
        body = original[entry[1] : entry[1] + entry[2]]
        data[begin:end] = body + bytes(end - begin - len(body))
        struct.pack_into("<Q", data, head + 8, len(body))
    return bytes(data), {"containers": dict(counts), "bytes": dict(sizes)}


def check(original: bytes, slimmed: bytes) -> None:
    """Outside the section nothing differs, and every container can be walked and decompressed."""
    offset, size = section(original, b".nv_fatbin")
    assert len(original) == len(slimmed)
    assert original[:offset] == slimmed[:offset] and original[offset + size :] == slimmed[offset + size :]
    before, after = [c[0] for c in containers(original)], []
    place = offset
    while place < offset + size:
        if struct.unpack_from("<I", slimmed, place)[0] != MAGIC:
            place += 8
            continue
        _, _, header, length = struct.unpack_from("<IHHQ", slimmed, place)
        after.append(place)
        for entry in entries(slimmed, place + header, place + header + length):
            if entry[0] == WANTED:
                kernels(slimmed, entry)
        place += header + length
    assert before == after, "containers moved"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--full", action="store_true", help="keep all kernels for sm_90a (about 57 MB more)")
    parser.add_argument("--directory", type=Path, help="also unpack the package there")
    options = parser.parse_args()
    report: dict = {"wheel": options.wheel.name}
    # x86 code gets smaller when its jumps are made absolute first. Preset 9 takes longer and saves 0.2 %.
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 64 << 20}]
    with (
        zipfile.ZipFile(options.wheel) as wheel,
        lzma.open(options.output, "wb", format=lzma.FORMAT_XZ, filters=filters) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for info in wheel.infolist():
            if info.is_dir() or LEFT_OUT.search(info.filename):
                continue
            data = wheel.read(info)
            if info.filename == PROVIDER:
                original = data
                data, report["provider"] = slim(original, options.full)
                check(original, data)
                report["provider"]["sha256"] = hashlib.sha256(data).hexdigest()
            member = tarfile.TarInfo(info.filename)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
            if options.directory is not None:
                path = options.directory / info.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    report["packed_bytes"] = options.output.stat().st_size
    print(json.dumps(report, indent=1), file=sys.stderr)


if __name__ == "__main__":
    main()
