# SPDX-License-Identifier: Apache-2.0 OR MIT
"""BLAKE3 of bytes, 32 bytes long, without a key; from its paper, slow and short."""

import struct

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
      0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
CHUNK = 1024
MASK = 0xFFFFFFFF


def compress(chaining, words, counter, length, flags):
    v = list(chaining) + [*IV[:4], counter & MASK, counter >> 32, length, flags]

    def mix(a, b, c, d, x, y):
        for add, right in ((x, (16, 12)), (y, (8, 7))):
            v[a] = (v[a] + v[b] + add) & MASK
            v[d] ^= v[a]
            v[d] = (v[d] >> right[0] | v[d] << (32 - right[0])) & MASK
            v[c] = (v[c] + v[d]) & MASK
            v[b] ^= v[c]
            v[b] = (v[b] >> right[1] | v[b] << (32 - right[1])) & MASK

    m = words
    for _ in range(7):
        for i in range(4):
            mix(i, i + 4, i + 8, i + 12, m[2 * i], m[2 * i + 1])
        for i in range(4):
            mix(i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12, m[2 * i + 8], m[2 * i + 9])
        m = [m[i] for i in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def words_of(block):
    return struct.unpack("<16I", block.ljust(64, b"\0"))


def chunk(data, counter, flags):
    chaining = IV
    blocks = [data[i:i + 64] for i in range(0, len(data), 64)] or [b""]
    for i, block in enumerate(blocks):
        last = i + 1 == len(blocks)
        own = (CHUNK_START if i == 0 else 0) | ((CHUNK_END | flags) if last else 0)
        chaining = compress(chaining, words_of(block), counter, len(block), own)
    return chaining


def tree(data, counter, flags):
    if len(data) <= CHUNK:
        return chunk(data, counter, flags)
    # The left half has as many chunks as the largest power of two leaves some for the right.
    chunks = (len(data) - 1) // CHUNK
    left = 1 << (chunks.bit_length() - 1)
    split = left * CHUNK
    both = tree(data[:split], counter, 0) + tree(data[split:], counter + left, 0)
    return compress(IV, both, 0, 64, PARENT | flags)


def blake3(data):
    return struct.pack("<8I", *tree(bytes(data), 0, ROOT))
