"""Running one cell: what IPython does, on the session's asyncio loop, with an end to every interrupt."""

import asyncio
import sys

from . import messages

# Of all expressions that come with a cell, together: they go with its reply, which has a bound.
LARGEST_ANSWERS = 16 * 1024 * 1024


class Cells:
    """Runs cells in the shell."""

    def __init__(self, shell, interrupts):
        self.shell = shell
        self.interrupts = interrupts
        # Set when the kernel has one: the zygote's warm-up cells need none.
        self.loop = None

    def run_guarded(self, work):
        """Calls `work` with interrupts allowed. Returns what it raised, or `None`."""
        interrupts = self.interrupts
        # User code may have put a handler of its own in place, or taken the signal for a library's sake.
        interrupts.install()
        interrupts.seen = interrupts.pending = False
        raised = None
        try:
            try:
                # Stores without a call: no interrupt can come between them and the block they guard.
                interrupts.window = True
                work()
            finally:
                interrupts.window = False
        except BaseException as error:
            # An interrupt may also have come on the way to the store.
            interrupts.window = False
            raised = error
        asyncio._set_running_loop(None)
        interrupts.redirect = interrupts.cancel = None
        return raised

    def run(self, code, silent, store_history):
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

        def redirect(frame):
            nonlocal redirected
            # Only while nothing runs but the loop itself, whose state an exception would break: also where a
            # task is in the middle of asking it for its next step, which would never come then.
            is_in_loop = frame is not None and frame.f_globals.get("__name__", "").startswith("asyncio.")
            if redirected or (asyncio.current_task(loop) is not None and not is_in_loop):
                return False
            redirected = True
            loop.call_soon_threadsafe(task.cancel)
            return True

        self.interrupts.redirect = redirect
        # As soon as the loop comes to it, whatever runs now.
        self.interrupts.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        while True:
            try:
                return loop.run_until_complete(task)
            except KeyboardInterrupt:
                if task.done():
                    raise
                task.cancel()
            finally:
                redirected = False

    def evaluate(self, expressions):
        """Returns the values of expressions, by their names."""
        room = LARGEST_ANSWERS
        answers = self.shell.user_expressions(expressions)
        for name, answer in answers.items():
            if "data" in answer:
                answer["data"] = messages.encode_bundle(answer["data"])
            room -= len(messages.to_json(answer))
            if room < 0:
                why = f"the values of all expressions have more than {LARGEST_ANSWERS} bytes"
                answers[name] = {"status": "error", "ename": "ValueError", "evalue": why, "traceback": []}
        return answers
