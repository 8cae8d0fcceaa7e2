"""When a twin is made: whenever nobody waits for it, and otherwise as often as it is hardly felt.

A twin costs twice. Its fork takes milliseconds, which nobody feels while the client thinks; and the first
write to each page that it shares copies that page, which cells feel that rewrite much of what they hold.
"""

import math
import os
import resource
import time

from . import twin

# The part of the time in which cells run that checkpoints may take.
SHARE = 0.05
# What copying may take whatever the share: nobody feels it.
UNFELT_S = 0.010

# After how many cells copying is tried once more, in case that cells have changed; twice as many each time
# they have not.
FIRST_TRY, LAST_TRY = 8, 1024

# For how long a client must be silent until it is believed to think; longer for one that never does.
PATIENCE_S, LONG_PATIENCE_S, PAUSE_S = 0.002, 0.025, 0.05

# Set to `off`, nothing is protected, and nothing is paid for it.
SWITCH = "EVERCELL_CHECKPOINTS"


class Policy:
    """The decision, from measured times alone."""

    def __init__(self):
        # What the last fork took, what copying has cost beside the twin, and for how long cells have run so.
        self.fork_s = self.copy_s = self.ran_s = 0.0
        self.cells = 0
        self.next_try = FIRST_TRY

    def ran(self, seconds):
        """Takes note of a cell."""
        self.ran_s += seconds
        self.cells += 1

    def copied(self, seconds):
        """Takes note of what copying has cost since the last twin was made."""
        self.copy_s = seconds

    def refusal(self, is_waited_for):
        """Returns why no twin is made now, or `None`: then it should be."""
        if self._is_costly() and self.cells < self.next_try:
            return "costly"
        if is_waited_for and self.fork_s + self.copy_s > SHARE * self.ran_s:
            return "burst"
        return None

    def made(self, seconds):
        """Takes note of a twin, and of what its fork took."""
        if self._is_costly():
            self.next_try = min(2 * self.next_try, LAST_TRY)
        elif self.copy_s * self.cells <= SHARE * self.ran_s:
            # Each of these cells could have paid for it alone.
            self.next_try = FIRST_TRY
        self.fork_s, self.ran_s, self.cells = seconds, 0.0, 0

    def _is_costly(self):
        return self.copy_s > max(UNFELT_S, SHARE * self.ran_s)


class Checkpoints:
    """Keeps a twin behind the kernel."""

    def __init__(self, twins):
        self._twins = twins
        # The execution that came last.
        self._after = 0
        # A kernel that has done nothing yet has nothing to lose.
        self._is_used = False
        self._begin_anew()

    def _begin_anew(self):
        """Begins without a twin: at the start, and when this process was one and has been woken."""
        self._policy = Policy()
        self._twin = None
        self._faults = 0
        # Whether the twin, if any, is behind.
        self.is_due = True
        # Why there is none.
        self.reason = "burst"
        self._answered_at = -math.inf
        self._gap_s = math.inf

    def patience(self):
        """Returns for how long to wait for a request before a twin is made."""
        return PATIENCE_S if self._gap_s > PAUSE_S else LONG_PATIENCE_S

    def ran(self, execution, seconds):
        """Takes note that code of the user's has run; `execution` is the request's id if it was a cell."""
        if isinstance(execution, int):
            self._after = execution
        self._is_used = True
        self._policy.ran(seconds)
        self._answered_at = time.perf_counter()
        self.is_due = True

    def request_came(self):
        """Makes a twin before a request that is there already, if that takes little beside what it protects.

        Returns whether to serve the request: in a twin that was woken, it was the lost kernel's.
        """
        self._gap_s = time.perf_counter() - self._answered_at
        return not (self.is_due and self._is_used and self._make(is_waited_for=True))

    def silence_came(self):
        """Makes a twin while nobody waits."""
        self.is_due = False
        self._make(is_waited_for=False)

    def hold(self, request):
        """Makes a twin because the agent asked for it, whatever that costs. Returns whether this process is one that was woken."""
        made = self._twins.make(self._after, request)
        if made == 0:
            self._begin_anew()
        return made == 0

    def _make(self, is_waited_for):
        """Makes a twin, if it should be. Returns whether this process is one that was woken."""
        if os.environ.get(SWITCH) == "off":
            self.reason = "off"
            return False
        started = time.perf_counter()
        self._measure()
        self.reason = self._policy.refusal(is_waited_for)
        if self.reason is not None:
            return False
        try:
            made = self._twins.make(self._after)
        except Exception:
            # No memory or no process left for it. The last cell may be the cause, so the next tries again.
            self.reason = "failed"
            return False
        if made == 0:
            self._begin_anew()
            return True
        self._policy.made(time.perf_counter() - started)
        self._twin = made
        self._faults = _faults()
        self.is_due = False
        return False

    def _measure(self):
        """Finds out what copying has cost beside the twin: each fault, but no more than it alone holds."""
        if self._twin is None or self._twins.page_cost is None:
            return
        copied = _faults() - self._faults - twin.ORDINARY_PAGES
        if copied > 0:
            copied = min(copied, self._twins.private_pages(self._twin) - twin.ORDINARY_PAGES)
        self._policy.copied(max(copied, 0) * self._twins.page_cost)


def _faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
