"""The request loop: one request after the other, and the session's asyncio loop while there is none."""

import asyncio
import atexit
import contextlib
import os
import random
import signal
import sys

from . import messages
from .channel import Closed
from .comms import UnknownComm
from .variables import Variables

# Completion and inspection run code of the user's (properties, __repr__) and must not hold up the next cell.
LOOKUP_SECONDS = 2.0


class BadRequest(Exception):
    """A field is missing or of the wrong type."""


class OutOfTime(BaseException):
    """A lookup took too long. Not an `Exception`, since what looks things up swallows those."""


class Kernel:
    """Serves the requests of one session until its control socket closes."""

    def __init__(self, channel, shell, interrupts, comms, flush_c):
        self.channel = channel
        self.shell = shell
        self.interrupts = interrupts
        self.comms = comms
        self.flush_c = channel.flush_c = flush_c
        self.variables = Variables(shell)
        self.loop = None

    def forget(self):
        """Forgets the variables seen so far: the next cell's are all new."""
        self.variables = Variables(self.shell)

    # --- the loop ----------------------------------------------------------------------------------------------------

    def serve(self):
        """Serves requests; never returns."""
        self._new_loop()
        while True:
            try:
                request = self.channel.next_request()
            except Closed:
                os._exit(0)
            if request is None:
                self._idle()
            else:
                self._handle(request)

    def _new_loop(self):
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._on_task_error)
        asyncio.set_event_loop(self.loop)

    def _idle(self):
        """Runs what the user's cells have left running, until a request arrives."""
        if self.loop.is_closed():
            self._new_loop()
        loop = self.loop
        loop.add_reader(self.channel.control, loop.stop)
        try:
            loop.run_forever()
        except BaseException as error:
            # A task called sys.exit(), or worse. It is over, the kernel is not.
            self._report_asynchronous(error)
        finally:
            if not loop.is_closed():
                loop.remove_reader(self.channel.control)

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
        identity, operation = request.get("id"), request.get("op")
        if operation == "input_reply":
            # Nobody waits for it any more.
            return
        handler = self._HANDLERS.get(operation) if isinstance(operation, str) else None
        try:
            if handler is None:
                answer = _refusal("unknown_op", f"this kernel knows no request `{operation}`")
            else:
                answer = handler(self, request)
        except BadRequest as error:
            answer = _refusal("bad_request", str(error))
        except UnknownComm as error:
            answer = _refusal("unknown_comm", str(error))
        except (OutOfTime, KeyboardInterrupt):
            answer = _refusal("timeout", f"`{operation}` took longer than {LOOKUP_SECONDS:g} seconds and was given up")
        except Exception as error:
            answer = _refusal("internal", f"`{operation}` went wrong: {type(error).__name__}: {error}")
        self.channel.reply(identity, answer)
        if operation == "shutdown" and "error" not in answer:
            self._leave()

    def _leave(self):
        """Ends the process as an ordinary end of Python would."""
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        self.flush_c()
        os._exit(0)

    # --- cells -------------------------------------------------------------------------------------------------------

    def execute(self, request):
        """Runs a cell."""
        code = _text(request, "code")
        silent = bool(request.get("silent", False))
        store_history = bool(request.get("store_history", True)) and not silent
        expressions = request.get("user_expressions") or {}
        if not isinstance(expressions, dict):
            raise BadRequest("`user_expressions` must be an object of expressions by name")
        shell, interrupts = self.shell, self.interrupts
        shell.allow_stdin = bool(request.get("allow_stdin", True))
        shell.last_error = None
        self.channel.cell = request.get("cell")
        # User code may have put a handler of its own in place, or blocked the signal for a library's sake.
        interrupts.install()
        interrupts.seen = interrupts.pending = False
        interrupts.shield = 0
        failed, answers = True, {}
        try:
            try:
                # Stores without a call: no interrupt can come between them and the block they guard.
                interrupts.window = True
                failed = self._run(code, silent, store_history)
                if not failed and expressions:
                    answers = self._evaluate(expressions)
            finally:
                interrupts.window = False
        except BaseException as error:
            # An interrupt outside the user's own code: in the display of a result, or between two lines of IPython.
            interrupts.window = False
            shell.showtraceback((type(error), error, None))
        asyncio._set_running_loop(None)
        interrupts.redirect = None
        if failed and shell.last_error is None:
            shell.last_error = messages.Error("Error", "the cell failed without saying why", [])
        self.flush_c()
        answer = {
            "status": "error" if failed else "ok",
            "execution_count": shell.execution_count - 1,
            "error": _error_fields(shell.last_error) if failed else None,
            "user_expressions": answers,
            "payload": [],
            "variables": self._receipt(),
        }
        self.channel.cell = None
        return answer

    def _receipt(self):
        try:
            return self.variables.receipt()
        except Exception:
            # Whatever a namespace holds, the cell has an answer.
            return {"added": [], "changed": [], "removed": [], "total": 0, "truncated": True, "took_us": 0}

    def _run(self, code, silent, store_history):
        """Runs the cell's code and what IPython does after it. Returns whether it failed."""
        shell = self.shell
        transformed, problem = code, None
        try:
            transformed = shell.transform_cell(code)
        except Exception:
            problem = sys.exc_info()
        # The test compiles the cell a second time, so it is kept to cells that could await at all.
        awaits = ("await" in transformed or "async" in transformed) and shell.should_run_async(
            code, transformed_cell=transformed, preprocessing_exc_tuple=problem
        )
        cell = shell.run_cell_async(
            code,
            store_history=store_history,
            silent=silent,
            transformed_cell=transformed,
            preprocessing_exc_tuple=problem,
        )
        result = None
        try:
            result = self._await(cell) if awaits else self._step(cell)
        finally:
            asyncio._set_running_loop(None)
            # Figures that were drawn and not shown are shown here.
            shell.events.trigger("post_execute")
            if not silent:
                shell.events.trigger("post_run_cell", result)
        return not result.success

    def _step(self, cell):
        """Runs a cell that does not await. The loop counts as running, so that cells can make tasks."""
        asyncio._set_running_loop(self.loop)
        try:
            cell.send(None)
        except StopIteration as stop:
            return stop.value
        raise RuntimeError("the cell awaits something where it cannot")

    def _await(self, cell):
        """Runs a cell with `await` in it, on the session's loop."""
        loop = self.loop
        task = loop.create_task(cell)
        redirected = False

        def redirect():
            nonlocal redirected
            # Only while nothing runs but the loop itself: an exception there would go through the loop's own state.
            if redirected or asyncio.current_task(loop) is not None:
                return False
            redirected = True
            loop.call_soon_threadsafe(task.cancel)
            return True

        self.interrupts.redirect = redirect
        while True:
            try:
                return loop.run_until_complete(task)
            except KeyboardInterrupt:
                if task.done():
                    raise
                task.cancel()
            finally:
                redirected = False

    def _evaluate(self, expressions):
        answers = self.shell.user_expressions({str(name): str(text) for name, text in expressions.items()})
        for answer in answers.values():
            if "data" in answer:
                answer["data"] = messages.encode_bundle(answer["data"])
        return answers

    # --- looking things up -------------------------------------------------------------------------------------------

    def complete(self, request):
        """Returns what could stand at the cursor."""
        from IPython.core.completer import provisionalcompleter, rectify_completions

        code, cursor = _text(request, "code"), _number(request, "cursor")
        with bounded_time(), provisionalcompleter():
            found = list(rectify_completions(code, self.shell.Completer.completions(code, cursor)))
        start, end = (found[0].start, found[0].end) if found else (cursor, cursor)
        texts = [match.text for match in found[:1000]]
        if texts and code[start : start + 1] == "." and all(text.startswith(".") for text in texts):
            # What is replaced begins after the dot, and so does what a list of choices should show.
            texts, start = [text[1:] for text in texts], start + 1
        types = [match.type or "" for match in found]
        matches = [{"text": text, "type": kind} for text, kind in zip(texts, types, strict=False)]
        return {"matches": matches, "start": start, "end": end}

    def inspect(self, request):
        """Returns documentation of what is at the cursor."""
        from IPython.utils.tokenutil import token_at_cursor

        name = token_at_cursor(_text(request, "code"), _number(request, "cursor"))
        with bounded_time():
            try:
                data = self.shell.object_inspect_mime(name, detail_level=1 if request.get("detail") else 0)
            except KeyError:
                return {"found": False, "data": {}}
        return {"found": True, "data": messages.encode_bundle(data)}

    def is_complete(self, request):
        """Tells whether code is a whole cell."""
        status, indent = self.shell.input_transformer_manager.check_complete(_text(request, "code"))
        return {"status": status, "indent": " " * (indent or 0)}

    def list_variables(self, _request):
        """Returns all variables."""
        return self.variables.listing()

    # --- comms -------------------------------------------------------------------------------------------------------

    def _comm(self, operation, request):
        """Runs the handler of a comm, which is user code: what it raises is shown, not answered."""
        self.interrupts.install()
        self.interrupts.seen = False
        asyncio._set_running_loop(self.loop)
        try:
            try:
                self.interrupts.window = True
                operation(request)
            finally:
                self.interrupts.window = False
        except UnknownComm:
            raise
        except BaseException as error:
            self.interrupts.window = False
            self._report_asynchronous(error)
        finally:
            asyncio._set_running_loop(None)
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

    # --- the session -------------------------------------------------------------------------------------------------

    def configure(self, request):
        """Sets the session's environment variables and, when asked, its random seed."""
        environment = request.get("env") or {}
        if not isinstance(environment, dict) or not all(isinstance(v, str) for v in environment.values()):
            raise BadRequest("`env` must be an object of texts")
        for name, value in environment.items():
            if not name or "=" in name or "\0" in name or "\0" in value:
                raise BadRequest(f"`{name}` is no name for an environment variable, or its value holds a NUL")
        seed = request.get("seed")
        if seed is not None and not (isinstance(seed, int) and 0 <= seed < 2**32):
            raise BadRequest("`seed` must be an integer from 0 to 4294967295, or null")
        os.environ.update(environment)
        if seed is not None:
            random.seed(seed)
            if "numpy" in sys.modules:
                sys.modules["numpy"].random.seed(seed)
        return {}

    def shutdown(self, _request):
        """Agrees to end; the process goes once the reply is out."""
        return {}

    _HANDLERS = {
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
        "shutdown": shutdown,
    }


@contextlib.contextmanager
def bounded_time():
    """Ends what runs too long with `OutOfTime`; the user's own alarm and its handler are put back afterwards."""
    armed = True

    def ring(_signum, _frame):
        # The store below has no call in it, so this cannot be raised once the work is over.
        if armed:
            raise OutOfTime

    handler = signal.signal(signal.SIGALRM, ring)
    # Again and again after the first time: IPython swallows what a completer raises, and asks the next one.
    left, interval = signal.setitimer(signal.ITIMER_REAL, LOOKUP_SECONDS, 0.02)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, handler if handler is not None else signal.SIG_DFL)


def _refusal(code, message):
    return {"error": {"code": code, "message": message}}


def _error_fields(error):
    return {"ename": error.ename, "evalue": error.evalue, "traceback": error.traceback}


def _text(request, name):
    value = request.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"`{name}` must be a text")
    return value


def _number(request, name):
    value = request.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRequest(f"`{name}` must be an integer from 0")
    return value
