"""SIGINT: an exception in the user's cell, and nothing anywhere else.

Python runs signal handlers between two bytecodes of the main thread, so a `KeyboardInterrupt` can appear
nearly anywhere. Here it appears only while the window is open (a cell runs) and no shield is held (half a
record is in the ring, a request is half read); an interrupt that meets a shield is kept and raised when the
shield is dropped.
"""

# Below `signal`, without its enumerations, a call costs a tenth; and one is made for every cell.
import _signal
import _thread
import signal
import threading

_SIGINT = int(signal.SIGINT)


class Interrupts:
    """The one place that decides what a SIGINT does."""

    __slots__ = ("pending", "redirect", "seen", "shield", "window")

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

    def install(self):
        """Makes this the handler of SIGINT, also after user code has put its own there."""
        _signal.signal(_SIGINT, self.on_signal)

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
