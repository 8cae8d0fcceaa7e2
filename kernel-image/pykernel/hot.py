"""Which pages cells write to again and again: copied while nobody waits, so that no cell has to.

A page that was copied ahead looks as if a cell had written to it. So in one turn of so many it is left alone,
and forgotten if no cell writes to it then.
"""

import re

# How many pages are copied ahead at most: 16 MiB, which the twin holds besides what cells copy.
MOST = 4096
# How many turns there are, and how many neighbours are left alone together.
TURNS, NEIGHBOURS = 16, 16
# After so many turns what was written to once is forgotten.
MEMORY = 4

_RUN = re.compile(b"\1+")


class HotPages:
    """Learns from one twin to the next.

    By the number of its first page, an area of memory is one long number, with a byte for each page, 0 or 1.
    """

    def __init__(self):
        self._known, self._once = {}, {}
        self._turn = 0

    def learn(self, written):
        """Takes note of the pages that were written to or copied ahead since the last fork: bytes, 0 or 1."""
        pages = {start: int.from_bytes(flags, "little") for start, flags in written.items()}
        known = {start: own & self._known.get(start, 0) for start, own in pages.items()}
        once, count = {}, sum(kept.bit_count() for kept in known.values())
        for start, own in pages.items():
            found = own & ~known[start]
            before = self._once.get(start, 0)
            again = found & before
            if count + again.bit_count() <= MOST:
                known[start] |= again
                count += again.bit_count()
            once[start] = found if self._turn % MEMORY == 0 else found | before
        self._known, self._once = known, once
        self._turn += 1

    def ahead(self):
        """Returns the pages to copy now, as pairs of first page and count."""
        turn = self._turn % TURNS
        left = [b"\0" if turn == one else b"\1" for one in range(TURNS)]
        pattern = b"".join(flag * NEIGHBOURS for flag in left)
        for start, pages in self._known.items():
            length = -(-pages.bit_length() // 8)
            pages &= int.from_bytes(pattern * -(-length // len(pattern)), "little")
            for run in _RUN.finditer(pages.to_bytes(length, "little")):
                yield start + run.start(), run.end() - run.start()
