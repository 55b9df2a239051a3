"""Noise version 1 once more, one weight at a time, in plain integers: what the fast code is tested against."""

import hashlib
import math
from functools import cache

import numpy as np
from scipy.special import ndtri


def philox(counter, key):
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 % 2**32, (p0 >> 32) ^ c[3] ^ k1, p0 % 2**32]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c


def block_words(seed, name, block):
    key = int.from_bytes(hashlib.blake2b(name.encode("utf-8"), digest_size=64).digest()[:8], "little")
    return philox((block % 2**32, block // 2**32, key % 2**32, key // 2**32), (seed % 2**32, seed // 2**32))


@cache
def quantiles():
    q = ndtri((np.arange(65536) + 0.5) / 65536)
    return (q / math.sqrt(np.mean(q**2))).astype(np.float32)


def uniform16(seed, name, i):
    word = block_words(seed, name, i // 8)[i % 8 // 2]
    return word // 65536 if i % 2 else word % 65536


def noise(family, seed, name, i):
    if family == "gaussian":
        return float(quantiles()[uniform16(seed, name, i)])
    word = block_words(seed, name, i // 128)[i % 128 // 32]
    return -1.0 if word >> (i % 32) & 1 else 1.0


def low_rank(rank, seed, name, i, width):
    """Rank `rank`, the weight at flat index i of a matrix of that width."""
    row, column = divmod(i, width)
    total = sum(
        noise("rademacher", seed, name + "#u", row * rank + k)
        * noise("rademacher", seed, name + "#v", column * rank + k)
        for k in range(rank)
    )
    return float(np.float32(total) * np.float32(1 / math.sqrt(rank)))
