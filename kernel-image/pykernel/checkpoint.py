"""When a twin is made: always while the client thinks, and otherwise as often as it is hardly felt.

A twin costs twice. Its fork takes milliseconds, which nobody feels while a processor is idle; and the first
write to each page that it shares copies that page, which cells feel that rewrite much of what they hold.
"""

import enum
import math
import os
import resource
import time

from . import linux

# The part of the time in which cells run that checkpoints may take.
SHARE = 0.04

# After how many cells copying is tried once more, in case that cells have changed; twice as many each time
# they have not.
FIRST_TRY, LAST_TRY = 8, 1024

# For how long a client must be silent until it is believed to pause; longer for one that never does.
PATIENCE_S, LONG_PATIENCE_S, PAUSE_S = 0.002, 0.025, 0.05

# After so long a silence somebody thinks: a client that only waits for its turn on a busy machine does not
# wait that long.
THOUGHT_S = 0.25

# A kernel that has waited for a processor for more than this part of the time that it had one, is not alone.
CONTENTION = 0.25

# Set to `off`, nothing is protected, and nothing is paid for it.
SWITCH = "EVERCELL_CHECKPOINTS"


class Moment(enum.Enum):
    """What the client does when it is asked whether to make a twin."""

    WAITS = "its request is there already"
    PAUSES = "silent for milliseconds"
    THINKS = "silent for so long that it thinks"


# What copying may take whatever the share: nobody feels it, least of all after a thought ten times as long.
UNFELT_S = {Moment.WAITS: 0.0, Moment.PAUSES: 0.001, Moment.THINKS: THOUGHT_S / 10}


class Policy:
    """The decision, from measured times alone."""

    def __init__(self):
        # What the last fork took, what copying has cost beside the twin, for how long cells have run so, and
        # for how much of that they waited for a processor.
        self.fork_s = self.copy_s = self.ran_s = self.waited_s = 0.0
        self.cells = 0
        self.next_try = FIRST_TRY

    def ran(self, seconds):
        """Takes note of a cell."""
        self.ran_s += seconds
        self.cells += 1

    def copied(self, seconds):
        """Takes note of what copying has cost since the last twin was made."""
        self.copy_s = seconds

    def waited(self, seconds):
        """Takes note of what cells have waited for a processor since the last twin was made."""
        self.waited_s = seconds

    def refusal(self, moment):
        """Returns why no twin is made now, or `None`: then it should be."""
        cost_s = self.copy_s + (self.fork_s if moment is Moment.WAITS else 0.0)
        if cost_s <= max(UNFELT_S[moment], self._allowed_s()):
            return None
        if not self._is_costly():
            return "burst"
        return "costly" if self.cells < self.next_try or moment is Moment.WAITS else None

    def made(self, seconds):
        """Takes note of a twin, and of what its fork took."""
        if self._is_costly():
            self.next_try = min(2 * self.next_try, LAST_TRY)
        elif self.copy_s * self.cells <= self._allowed_s():
            # Each of these cells could have paid for it alone.
            self.next_try = FIRST_TRY
        self.fork_s, self.ran_s, self.waited_s, self.cells = seconds, 0.0, 0.0, 0

    def _allowed_s(self):
        return SHARE * max(self.ran_s - self.waited_s, 0.0)

    def _is_costly(self):
        return self.copy_s > max(UNFELT_S[Moment.THINKS], self._allowed_s())


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
        # The processor's times at the last silence, and how long this had waited for one at the last twin.
        self._at_silence = linux.processor_times()
        self._waited_s = self._at_silence[1]
        # Whether the twin, if any, is behind.
        self.is_due = True
        # Why there is none.
        self.reason = "burst"
        self._answered_at = time.perf_counter()
        self._gap_s = math.inf
        # What is asked about at the end of the silence that has begun.
        self._next = Moment.PAUSES

    def patience(self):
        """Returns for how long to wait for a request before `silence_came`."""
        if self._next is Moment.THINKS:
            silence_s = THOUGHT_S
        else:
            silence_s = PATIENCE_S if self._gap_s > PAUSE_S else LONG_PATIENCE_S
        return max(self._answered_at + silence_s - time.perf_counter(), 0.0)

    def ran(self, execution, seconds):
        """Takes note that code of the user's has run; `execution` is the request's id if it was a cell."""
        if isinstance(execution, int):
            self._after = execution
        self._is_used = True
        self._policy.ran(seconds)
        self._answered_at = time.perf_counter()
        self._next = Moment.PAUSES
        self.is_due = True

    def request_came(self, is_rehearsal):
        """Makes a twin before a request that is there already, if that takes little beside what it protects.

        Returns whether to serve the request: in a twin that was woken, it was the lost kernel's.
        """
        self._gap_s = time.perf_counter() - self._answered_at
        if is_rehearsal:
            # So that what the first cell writes to is copied beside the twin that it will have.
            return not self._make(Moment.THINKS)
        # Refused at its silence, it would be here too.
        is_asked = self.is_due and self._is_used and self._next is Moment.PAUSES
        return not (is_asked and self._make(Moment.WAITS))

    def silence_came(self):
        """Makes a twin while nobody waits."""
        moment = self._next
        if moment is Moment.THINKS:
            self.is_due = False
        else:
            self._next = Moment.THINKS
            if self._is_contended():
                # Silence may be a queue, and the fork is felt by whoever is in it.
                moment = Moment.WAITS
        self._make(moment)

    def hold(self, request):
        """Makes a twin because the agent asked for it, whatever that costs.

        Returns whether this process is one that was woken.
        """
        made = self._twins.make(self._after, request)
        if made == 0:
            self._begin_anew()
        return made == 0

    def _is_contended(self):
        """Tells whether processors were scarce since the last silence."""
        before, self._at_silence = self._at_silence, linux.processor_times()
        ran_s, waited_s = (now - then for now, then in zip(self._at_silence, before, strict=True))
        return waited_s > CONTENTION * ran_s

    def _make(self, moment):
        """Makes a twin, if it should be. Returns whether this process is one that was woken."""
        if os.environ.get(SWITCH) == "off":
            self.reason = "off"
            # To end the one that a warm kernel comes with takes time too.
            if self._twin is not None and moment is Moment.THINKS:
                self._twins.end(self._twin)
                self._twin = None
            return False
        self.reason = self._refusal(moment)
        if self.reason is not None:
            return False
        if moment is not Moment.WAITS:
            self._twins.learn()
        # Not what passes while others have the processor: that says nothing of the next time.
        started = time.thread_time()
        try:
            made = self._twins.make(self._after)
        except Exception:
            # No memory or no process left for it. The last cell may be the cause, so the next tries again.
            self.reason = "failed"
            return False
        if made == 0:
            self._begin_anew()
            return True
        self._policy.made(time.thread_time() - started)
        self._waited_s = linux.processor_times()[1]
        if moment is not Moment.WAITS:
            self._twins.copy_ahead()
        self._twin = made
        self._faults = _faults()
        self.is_due = False
        return False

    def _refusal(self, moment):
        """Asks the policy, with what copying has cost beside the twin.

        No more than each fault since; if that is too much, how many of them copied is counted, which takes
        too long where somebody waits.
        """
        if self._twin is None or self._twins.page_cost is None:
            return self._policy.refusal(moment)
        pages = _faults() - self._faults
        self._policy.copied(pages * self._twins.page_cost)
        reason = self._policy.refusal(moment)
        if moment is Moment.WAITS:
            if reason is None:
                self._policy.waited(linux.processor_times()[1] - self._waited_s)
                reason = self._policy.refusal(moment)
        elif reason is not None:
            pages = min(pages, self._twins.copied_pages(self._twin))
            self._policy.copied(pages * self._twins.page_cost)
            reason = self._policy.refusal(moment)
        return reason


def _faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
