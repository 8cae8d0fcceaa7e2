"""The request loop: one request after the other, and the session's asyncio loop while there is none."""

import asyncio
import atexit
import contextlib
import os
import random
import sys
import time
from typing import ClassVar

from . import lookups, messages, preload, requests
from .cells import Cells
from .channel import Closed
from .comms import UnknownComm
from .variables import Variables


class Kernel:
    """Serves the requests of one session until its control socket closes."""

    def __init__(self, channel, shell, interrupts, comms, flush_c):
        self.channel = channel
        self.shell = shell
        self.interrupts = interrupts
        self.comms = comms
        self.flush_c = channel.flush_c = flush_c
        self.variables = Variables(shell)
        self.cells = Cells(shell, interrupts)
        # Set when the kernel is a session's: the zygote's warm-up cells need none.
        self.checkpoints = None

    def forget(self):
        """Forgets the variables seen so far: the next cell's are all new."""
        self.variables = Variables(self.shell)

    # --- the loop -------------------------------------------------------------------------------------------

    def serve(self):
        """Serves requests; never returns."""
        self._new_loop()
        while True:
            try:
                request = self.channel.next_request()
            except Closed:
                os._exit(0)
            if self.cells.loop.is_closed():
                self._new_loop()
            if request is not None:
                if self.checkpoints.request_came(is_rehearsal=request.get("op") == "rehearse"):
                    self._handle(request)
            elif not self.checkpoints.is_due:
                self._idle()
            elif not self._idle(self.checkpoints.patience()):
                self.checkpoints.silence_came()

    def _new_loop(self):
        """Makes the session's loop, at the start and when user code has closed it."""
        self.cells.loop = asyncio.new_event_loop()
        self.cells.loop.set_exception_handler(self._on_task_error)
        asyncio.set_event_loop(self.cells.loop)

    def _idle(self, seconds=None):
        """Runs what the user's cells have left running, until a request arrives, or for so long.

        Returns whether one may have arrived.
        """
        loop = self.cells.loop
        silent = False

        def on_silence():
            nonlocal silent
            silent = True
            loop.stop()

        timer = None if seconds is None else loop.call_later(seconds, on_silence)
        loop.add_reader(self.channel.control, loop.stop)
        try:
            loop.run_forever()
        except BaseException as error:
            # A task called sys.exit(), or worse. It is over, the kernel is not.
            self._report_asynchronous(error)
        finally:
            if not loop.is_closed():
                loop.remove_reader(self.channel.control)
            if timer is not None:
                timer.cancel()
        return not silent

    def _on_task_error(self, _loop, context):
        error = context.get("exception")
        if error is None:
            print(context.get("message", "asyncio: something went wrong"), file=sys.stderr)
        else:
            self._report_asynchronous(error)

    def _report_asynchronous(self, error):
        report = self.shell.describe_error(error)
        self.channel.send(messages.AsynchronousError(report.ename, report.evalue, report.traceback))

    def _handle(self, request):
        """Answers one request, whatever happens."""
        started = time.perf_counter()
        identity, operation = request.get("id"), request.get("op")
        if operation == "input_reply":
            # Nobody waits for it any more.
            return
        handler = self._HANDLERS.get(operation) if isinstance(operation, str) else None
        try:
            if handler is None:
                answer = requests.refusal("unknown_op", f"this kernel knows no request `{operation}`")
            else:
                answer = handler(self, request)
        except requests.BadRequest as error:
            answer = requests.refusal("bad_request", str(error))
        except UnknownComm as error:
            answer = requests.refusal("unknown_comm", str(error))
        except (lookups.OutOfTime, KeyboardInterrupt):
            answer = requests.refusal(
                "timeout", f"`{operation}` took longer than {lookups.SECONDS:g} seconds and was given up"
            )
        except Exception as error:
            answer = requests.refusal(
                "internal", f"`{operation}` went wrong: {type(error).__name__}: {error}"
            )
        if answer is None:
            # This is a twin that was woken: it was the lost kernel's request.
            return
        self.channel.reply(identity, answer)
        if operation in self._CHANGING:
            self.checkpoints.ran(identity if operation == "execute" else None, time.perf_counter() - started)
        if operation == "shutdown" and "error" not in answer:
            self._leave()

    def _leave(self):
        """Ends the process as an ordinary end of Python would."""
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        self.flush_c()
        os._exit(0)

    # --- cells ----------------------------------------------------------------------------------------------

    def execute(self, request):
        """Runs a cell."""
        code = requests.text(request, "code")
        silent = bool(request.get("silent", False))
        store_history = bool(request.get("store_history", True)) and not silent
        expressions = requests.texts(request, "user_expressions")
        shell = self.shell
        shell.allow_stdin = bool(request.get("allow_stdin", True))
        shell.last_error = None
        failed, answers = True, {}

        def work():
            nonlocal failed, answers
            failed = self.cells.run(code, silent, store_history)
            if not failed and expressions:
                answers = self.cells.evaluate(expressions)

        self.channel.cell = request.get("cell")
        shell.kernel.serve(request)
        raised = self.cells.run_guarded(work)
        if raised is not None:
            # An interrupt outside the user's own code: in the display of a result, or in IPython.
            failed = True
            shell.showtraceback((type(raised), raised, None))
        shell.allow_stdin = False
        if failed and shell.last_error is None:
            shell.last_error = messages.Error("Error", "the cell failed without saying why", [])
        self.flush_c()
        error = shell.last_error if failed else None
        answer = {
            "status": "error" if failed else "ok",
            "execution_count": shell.execution_count - 1,
            "error": error and {"ename": error.ename, "evalue": error.evalue, "traceback": error.traceback},
            "user_expressions": answers,
            "payload": self._payload(),
            "variables": self._receipt(),
            "unprotected": self.checkpoints and self.checkpoints.reason,
        }
        self.channel.end_cell()
        return answer

    def _payload(self):
        """Takes what the cell has asked of whoever edits it, such as `%load` the source of a cell."""
        manager = self.shell.payload_manager
        payload = manager.read_payload()
        if payload:
            manager.clear_payload()
        return payload

    def _receipt(self):
        try:
            return self.variables.receipt()
        except Exception:
            # Whatever a namespace holds, the cell has an answer.
            return {"added": [], "changed": [], "removed": [], "total": 0, "truncated": True, "took_us": 0}

    # --- looking things up ---

    def complete(self, request):
        """Returns what could stand at the cursor."""
        return lookups.complete(self.shell, request)

    def inspect(self, request):
        """Returns documentation of what is at the cursor."""
        return lookups.inspect(self.shell, request)

    def is_complete(self, request):
        """Tells whether code is a whole cell."""
        return lookups.is_complete(self.shell, request)

    def list_variables(self, _request):
        """Returns all variables."""
        return self.variables.listing()

    # --- comms ----------------------------------------------------------------------------------------------

    def _comm(self, operation, request):
        """Runs the handler of a comm, which is user code: what it raises is shown, not answered."""
        asyncio._set_running_loop(self.cells.loop)
        self.shell.kernel.serve(request)
        raised = self.cells.run_guarded(lambda: operation(request))
        if isinstance(raised, UnknownComm):
            raise raised
        if raised is not None:
            self._report_asynchronous(raised)
        self.flush_c()
        return {}

    def comm_open(self, request):
        """Opens a comm that the client asked for."""
        return self._comm(self.comms.open, request)

    def comm_msg(self, request):
        """Hands data to a comm."""
        return self._comm(self.comms.message, request)

    def comm_close(self, request):
        """Closes a comm."""
        return self._comm(self.comms.close, request)

    def comm_info(self, _request):
        """Returns the open comms."""
        return {"comms": self.comms.info()}

    # --- the session ----------------------------------------------------------------------------------------

    def configure(self, request):
        """Sets the session's environment variables and, when asked, its random seed."""
        environment = requests.texts(request, "env")
        for name, value in environment.items():
            if not name or "=" in name or "\0" in name or "\0" in value:
                raise requests.BadRequest(
                    f"`{name}` is no name for an environment variable, or its value holds a NUL"
                )
        seed = request.get("seed")
        if seed is not None and not (isinstance(seed, int) and 0 <= seed < 2**32):
            raise requests.BadRequest("`seed` must be an integer from 0 to 4294967295, or null")
        os.environ.update(environment)
        if seed is not None:
            random.seed(seed)
            if "numpy" in sys.modules:
                sys.modules["numpy"].random.seed(seed)
        return {}

    def checkpoint(self, request):
        """Makes a twin for the agent to keep."""
        try:
            return None if self.checkpoints.hold(request.get("id")) else {}
        except OSError as error:
            return requests.refusal("failed", f"no checkpoint could be made: {error}")

    def rehearse(self, _request):
        """Makes the first cell as quick as those after it; for a kernel that nobody has used yet."""
        preload.rehearse(self.shell, self)
        return {}

    def shutdown(self, _request):
        """Agrees to end; the process goes once the reply is out."""
        return {}

    # What the twin has to be made anew for.
    _CHANGING: ClassVar = ("execute", "configure", "comm_open", "comm_msg", "comm_close")
    _HANDLERS: ClassVar = {
        "configure": configure,
        "execute": execute,
        "complete": complete,
        "inspect": inspect,
        "is_complete": is_complete,
        "variables": list_variables,
        "comm_open": comm_open,
        "comm_msg": comm_msg,
        "comm_close": comm_close,
        "comm_info": comm_info,
        "checkpoint": checkpoint,
        "rehearse": rehearse,
        "shutdown": shutdown,
    }
