#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Restores an epoch of a chain: read_chain.py DIR EPOCH > IMAGE

A second reader of docs/format.md, written from that page alone, to see that the page is
enough. It checks all that the page says of a sound chain and stops at the first thing that
is not so; it does not look for a way on behind damage.

Python's standard library has zstd from 3.14 on. Before that the package zstandard (or
backports.zstd) is needed for chains that use it, and for no others.
"""

import re
import struct
import sys
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

BLOCK = 4096
FOOTER = 256
FEATURES = 15
ZERO, PARENT, HERE = 2, 4, 5


def need(holds, what):
    if not holds:
        sys.exit(f"read_chain: {what}")


def crc_table():
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        yield byte


CRC_TABLE = list(crc_table())


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def lz4(data, length):
    out, at = bytearray(), 0

    def long_length(value):
        nonlocal at
        if value == 15:
            while True:
                value += data[at]
                at += 1
                if data[at - 1] != 255:
                    break
        return value

    while True:
        token = data[at]
        at += 1
        literals = long_length(token >> 4)
        out += data[at:at + literals]
        at += literals
        if at == len(data):
            break
        back = data[at] | data[at + 1] << 8
        at += 2
        need(0 < back <= len(out), "an LZ4 match reaches before its run")
        for _ in range(4 + long_length(token & 15)):
            out.append(out[-back])
    need(len(out) == length, "an LZ4 block has another length than its run")
    return bytes(out)


def zstd(data, length):
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            module = __import__(name, fromlist=["decompress"])
            break
        except ImportError:
            continue
    else:
        sys.exit("read_chain: this chain uses zstd: install the package zstandard, or Python 3.14")
    out = module.decompress(data)
    need(len(out) == length, "a zstd frame has another length than its run")
    return out


DECODE = {
    0: lambda data, length: data,
    1: lz4,
    3: zstd,
}


def sealed(data):
    return crc32c(data[:-4]) == int.from_bytes(data[-4:], "little")


class Segment(NamedTuple):
    magic: bytes
    version: int
    header_len: int
    features_incompat: int
    features_ro_compat: int
    features_compat: int
    chain_id: bytes
    segment: int
    created_ns: int
    prev_len: int
    prev_hash: bytes
    reserved: bytes
    crc: int

    @classmethod
    def parse(cls, data):
        return cls(*struct.unpack("<8sIIQQQ16sQQQ32s12sI", data))


class Base(NamedTuple):
    magic: bytes
    first_segment: int
    last_segment: int
    last_len: int
    last_hash: bytes
    newest: int
    own_len: int
    records_hash: bytes
    reserved: bytes
    crc: int

    @classmethod
    def parse(cls, data):
        return cls(*struct.unpack("<8sQQQ32sQQ32s12sI", data))


class Header(NamedTuple):
    magic: bytes
    header_len: int
    kind: int
    total_len: int
    epoch: int
    parent: int
    chain_id: bytes
    segment: int
    offset: int
    generation: bytes
    time_ns: int
    pause_ns: int
    arena_base: int
    arena_len_pages: int
    page_shift: int
    flags: int
    meta_len: int
    data_len: int
    index_off: int
    index_len: int
    data_pages: int
    zero_pages: int
    meta_crc: int
    index_crc: int
    stands_for: bytes
    shared_pages: int
    unchanged_pages: int
    reserved: bytes
    crc: int

    @classmethod
    def parse(cls, data):
        return cls(*struct.unpack("<8sIIQQQ16sQQ16sQQQQIIQQQQQQII32sQQ20sI", data))


class Footer(NamedTuple):
    magic: bytes
    total_len: int
    epoch: int
    segment: int
    offset: int
    chain_id: bytes
    parent_hash: bytes
    body_hash: bytes
    hash: bytes
    reserved: bytes
    crc: int

    @classmethod
    def parse(cls, data):
        return cls(*struct.unpack("<8sQQQQ16s32s32s32s100sI", data))


class Run(NamedTuple):
    pgoff: int
    pages: int
    codec: int
    data_off: int
    stored_len: int
    crc: int


def up(value, unit):
    return -(-value // unit) * unit


def check_meta(meta, arena_len_pages):
    at, names, adopted, identities = 0, set(), set(), 0
    while at < len(meta):
        kind, length = struct.unpack_from("<II", meta, at)
        value = meta[at + 8:at + 8 + length]
        end = at + 8 + up(length, 8)
        need(end <= len(meta), "a meta item is cut off")
        need(not any(meta[at + 8 + length:end]), "a meta pad is not zero")
        if kind == 1:
            offset, pages, reserve, _, name_len = struct.unpack_from("<QQQII", value)
            name = value[32:].decode()
            need(1 <= name_len <= 255 and name_len == length - 32, "a region's name")
            need(pages <= reserve and offset + reserve <= arena_len_pages, "a region's place")
            need(name not in names, "a region is there twice")
            names.add(name)
        elif kind == 2:
            _, _, flags, build_id, path, reserved = struct.unpack_from("<Q32sIIII", value)
            need(flags < 2 and reserved == 0, "the identity's flags")
            need(56 + build_id + path == length and build_id <= 64 and path <= 4096, "the identity")
            identities += 1
        elif kind == 3:
            address, name_len, reserved = struct.unpack_from("<QII", value)
            name = value[16:].decode()
            need(address > 0 and reserved == 0 and name_len == length - 16, "an adopted region")
            need(name not in adopted, "a region is adopted twice")
            adopted.add(name)
        else:
            need(kind < 1 << 31, f"an unknown meta item {kind}")
        at = end
    need(adopted <= names, "an adopted region is no region")
    need(identities == 1, "not exactly one identity")


def referred(run):
    return range(run.data_off, run.data_off + run.pages)


def check_record(record, header, footer, parent_hash):
    body = record[256:-FOOTER]
    need(footer.parent_hash == parent_hash, "the parent's hash")
    need(blake3(body) == footer.body_hash, "the body's hash")
    need(blake3(parent_hash + record[:256] + footer.body_hash) == footer.hash, "the hash")
    meta = record[256:256 + header.meta_len]
    index = record[header.index_off:header.index_off + header.index_len]
    need(crc32c(meta) == header.meta_crc, "the meta section's checksum")
    need(crc32c(index) == header.index_crc, "the index's checksum")
    check_meta(meta, header.arena_len_pages)
    data_end = 256 + header.meta_len + header.data_len
    need(header.index_off == up(data_end, 8), "the index's place")
    need(not any(record[data_end:header.index_off]), "a pad")
    need(not any(record[header.index_off + header.index_len:-FOOTER]), "a pad")
    runs = [Run(*run) for run in struct.iter_unpack("<QIIQII", index)]
    data, page, pages, here = 256 + header.meta_len, 0, [0, 0, 0], set()
    for run in runs:
        need(run.pages > 0 and page <= run.pgoff, "the order of the runs")
        page = run.pgoff + run.pages
        if run.codec == ZERO:
            need(run[3:] == (0, 0, 0), "a zero run")
            pages[1] += run.pages
        elif run.codec in (PARENT, HERE):
            need(run.pages <= 64 and run[4:] == (0, 0), "a reference")
            need(run.codec == HERE or header.parent != 0, "a reference to no parent")
            pages[2] += run.pages
        else:
            need(run.codec in DECODE and run.pages <= 64 and run.data_off == data, "a run")
            data += run.stored_len
            pages[0] += run.pages
            here.update(range(run.pgoff, page))
    need(data == data_end and page <= header.arena_len_pages, "the end of the runs")
    need(pages == [header.data_pages, header.zero_pages, header.shared_pages],
         "the number of pages")
    need(header.unchanged_pages <= header.arena_len_pages, "the number of unchanged pages")
    for run in runs:
        need(run.codec != HERE or here.issuperset(referred(run)), "a reference to pages not here")
    return runs


def files_of(directory):
    """Number and path of every file of the chain, the base first."""
    found = {"segment": {}, "base": {}}
    for path in directory.iterdir():
        if name := re.fullmatch(r"(segment|base)-(\d{10})\.ckpt", path.name):
            found[name[1]][int(name[2])] = path
    first = max(found["base"], default=0)
    numbers = sorted(number for number in found["segment"] if number > first)
    need(numbers == list(range(first + 1, first + 1 + len(numbers))), "a segment is missing")
    need(numbers, "no segments")
    base = [(first, found["base"][first])] if first else []
    return base + [(number, found["segment"][number]) for number in numbers]


def check_first_block(content, number, base):
    head = Segment.parse(content[:128])
    need(head.magic == b"CKPTSEG\n" and sealed(content[:128]), "a segment header")
    need(head.version == 1 and head.features_incompat & ~FEATURES == 0, "a later version")
    need(content[2048:2304] == content[:256], "the copy of a segment header")
    need(not any(content[256:2048] + content[2304:BLOCK]), "zeros around it")
    need(head.segment == number and head.header_len == BLOCK, "a segment header")
    need(bool(head.features_incompat & 4) == base, "the bit of a base")
    stands = Base.parse(content[128:256])
    if not base:
        need(not any(content[128:256]), "zeros behind a segment header")
        return head, None
    need(stands.magic == b"CKPTBASE" and sealed(content[128:256]), "the header of a base")
    need((stands.first_segment, stands.last_segment) == (1, number), "what a base stands for")
    need(not any(stands.reserved) and stands.own_len == len(content), "the length of a base")
    return head, stands


def link_hash(header, footer):
    return header.stands_for if header.flags & 1 else footer.hash


def records_of(directory):
    """Epoch to (header, footer, runs, record), in the order of the files."""
    files = files_of(directory)
    records, newest, previous, chain_id, last_hash = {}, 0, 0, None, bytes(32)
    for number, path in files:
        content = path.read_bytes()
        head, base = check_first_block(content, number, path.name.startswith("base"))
        chain_id = chain_id or head.chain_id
        need(head.chain_id == chain_id, "a segment of another chain")
        need(head.prev_len == previous and head.prev_hash == last_hash, "a seal")
        at, last = BLOCK, path == files[-1][1]
        while at < len(content):
            if last and (len(content) - at < 256 or not any(content[at:at + 256])):
                break  # T1, T2
            header = Header.parse(content[at:at + 256])
            need(header.magic == b"CKPTREC\n" and sealed(content[at:at + 256]), "a header")
            end = at + header.total_len
            if last and (end > len(content)
                         or end == len(content) and not any(content[end - FOOTER:end])):
                break  # T3
            record = content[at:end]
            footer = Footer.parse(record[-FOOTER:])
            need(footer.magic == b"CKPTEND\n" and sealed(record[-FOOTER:]), "a footer")
            place = (header.total_len, header.epoch, number, at, chain_id)
            need(place == (header.total_len, header.epoch, header.segment, header.offset,
                           header.chain_id) == footer[1:6], "the place of a record")
            need(header.total_len == up(header.index_off + header.index_len + FOOTER, BLOCK),
                 "the length of a record")
            need(header.kind in (1, 2, 3) and not any(header.reserved)
                 and not any(footer.reserved), "an unknown kind or flag")
            need(header.flags == (1 if base else 0), "the flags of a record")
            need(base or not any(header.stands_for), "what a record stands for")
            need(newest < header.epoch and header.parent < header.epoch, "an epoch")
            need(header.parent == 0 or header.parent in records, "a parent")
            parent_hash = link_hash(*records[header.parent][:2]) if header.parent else bytes(32)
            runs = check_record(record, header, footer, parent_hash)
            records[header.epoch] = (header, footer, runs, record)
            newest, last_hash, at = header.epoch, link_hash(header, footer), end
        previous = len(content)
        if base:
            hashes = b"".join(footer.hash for _, footer, _, _ in records.values())
            need(blake3(hashes) == base.records_hash, "the records of a base")
            need(newest <= base.newest, "the newest epoch of a base")
            newest, previous, last_hash = base.newest, base.last_len, base.last_hash
    return records


def restore(records, epoch):
    wanted = records[epoch][0]
    size = 1 << wanted.page_shift
    lineage = [epoch]
    while records[lineage[-1]][0].parent:
        lineage.append(records[lineage[-1]][0].parent)
    # Page to (record, run, page of that run).
    image, parent_len_pages = {}, 0
    for epoch in reversed(lineage):
        header, _, runs, record = records[epoch]
        before = dict(image)
        for run in runs:
            for page in range(run.pgoff, run.pgoff + run.pages):
                image.pop(page, None)
                if run.codec in DECODE:
                    image[page] = (record, run, page)
        stored = dict(image)
        for run in runs:
            if run.codec in (PARENT, HERE):
                source = stored if run.codec == HERE else before
                for page, other in enumerate(referred(run), run.pgoff):
                    need(other in source, "a reference to a page that is not there")
                    need(run.codec == HERE or other < parent_len_pages,
                         "a reference beyond the parent's arena")
                    image[page] = source[other]
        parent_len_pages = header.arena_len_pages
    content = bytearray(wanted.arena_len_pages * size)
    decoded = {}
    for page, (record, run, other) in image.items():
        if page >= wanted.arena_len_pages:
            continue
        key = (id(record), run)
        if key not in decoded:
            stored = record[run.data_off:run.data_off + run.stored_len]
            need(crc32c(stored) == run.crc, "a run's checksum")
            decoded[key] = DECODE[run.codec](stored, run.pages * size)
        at = (other - run.pgoff) * size
        content[page * size:(page + 1) * size] = decoded[key][at:at + size]
    return content


def main():
    need(len(sys.argv) == 3, "usage: read_chain.py DIR EPOCH > IMAGE")
    records = records_of(Path(sys.argv[1]))
    epoch = int(sys.argv[2])
    need(epoch in records, f"no epoch {epoch}")
    sys.stdout.buffer.write(restore(records, epoch))


if __name__ == "__main__":
    main()
