"""SIGINT: an exception in the user's cell, and nothing anywhere else.

Python runs signal handlers between two bytecodes of the main thread, so a `KeyboardInterrupt` can appear
nearly anywhere. Here it appears only while the window is open (a cell runs) and no shield is held (half a
record is in the ring, a request is half read); an interrupt that meets a shield is kept and raised when the
shield is dropped.

Code can have SIGINT for itself: it ignores, handles or blocks it, or catches the exception. For that there is
a second means, which the server tries next: a signal that raises nothing, but cancels the task of a cell that
awaits, and takes SIGINT back.
"""

# Below `signal`, without its enumerations, a call costs a tenth; and one is made for every cell.
import _signal
import _thread
import signal
import threading

_SIGINT = int(signal.SIGINT)

# By which the agent cancels (`CANCEL_SIGNAL` in `src/protocol/agent.rs`).
CANCEL = 60


class Interrupts:
    """The one place that decides what a SIGINT does."""

    __slots__ = ("cancel", "pending", "redirect", "seen", "shield", "window")

    def __init__(self):
        # Plain attributes, since a store is atomic where a method call could itself be interrupted.
        self.window = False
        self.shield = 0
        self.pending = False
        # Whether this cell was interrupted at all; the error of a cancelled task is then called
        # KeyboardInterrupt.
        self.seen = False
        # While a cell awaits: takes the interrupt instead of raising it in a frame, when it returns True.
        self.redirect = None
        # While a cell awaits: cancels its task.
        self.cancel = None

    def install(self):
        """Makes this the handler of SIGINT, also after user code has put its own there."""
        _signal.signal(_SIGINT, self.on_signal)
        _signal.signal(CANCEL, self.on_cancel)

    def on_signal(self, _signum, frame):
        """The signal handler."""
        if not self.window:
            return
        self.seen = True
        if self.shield:
            self.pending = True
            return
        redirect = self.redirect
        if redirect is not None and redirect(frame):
            return
        raise KeyboardInterrupt

    def on_cancel(self, _signum, _frame):
        """The handler of the second means."""
        if not self.window:
            return
        self.seen = True
        cancel = self.cancel
        if cancel is not None:
            cancel()
        _signal.signal(_SIGINT, self.on_signal)
        # One that was blocked until now is raised here.
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_SIGINT,))

    def release(self):
        """Drops one shield, and raises what it has held back."""
        self.shield -= 1
        if self.pending and not self.shield:
            self.pending = False
            if _thread.get_ident() == threading.main_thread().ident:
                self.on_signal(0, None)
            else:
                # A thread of the user's held the shield; the interrupt is for the cell.
                _thread.interrupt_main()
