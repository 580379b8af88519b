"""Random streams by name: each thing that is random has its own, so that adding one changes no other.

A stream is PCG64 seeded with (seed, name); only its raw 64-bit words are used, which numpy promises to keep the same
on every machine and in every release. No global random state anywhere.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import numpy as np

#: What Kubernetes makes generated pod names of.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_MIXER = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: spreads neighbouring numbers (Fibonacci hashing)


class Stream:
    """The random words of (seed, name)."""

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.sha256(name.encode()).digest()
        key = tuple(int.from_bytes(digest[at : at + 4], "big") for at in range(0, 16, 4))
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=key))

    def word(self) -> int:
        """The next 64 random bits."""
        return int(self._bits.random_raw())

    def below(self, bound: int) -> int:
        """An integer in [0, bound): multiply and shift, its bias is below bound / 2^64."""
        return (self.word() * bound) >> 64

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def chance(self, share: float) -> bool:
        """True with that probability."""
        return self.word() < share * 2.0**64

    def exponential(self, mean: Fraction) -> int:
        """A Poisson process's next gap, in the unit of mean, rounded (half to even) to an integer."""
        uniform = ((self.word() >> 11) + 0.5) * 2.0**-53  # in (0, 1), never an end
        return round(-math.log(uniform) * float(mean))

    def sample(self, population: int, count: int) -> list[int]:
        """`count` distinct integers of [0, population), sorted (Floyd's algorithm)."""
        chosen: set[int] = set()
        for top in range(population - count, population):
            pick = self.below(top + 1)
            chosen.add(top if pick in chosen else pick)
        return sorted(chosen)


def suffix(word: int, length: int = 5) -> str:
    """The random end of a generated name, as Kubernetes writes them (`x7k2p`)."""
    bits = (word * _MIXER) & (2**64 - 1)
    text = ""
    for _ in range(length):
        bits, letter = divmod(bits, len(_ALPHABET))
        text += _ALPHABET[letter]
    return text
