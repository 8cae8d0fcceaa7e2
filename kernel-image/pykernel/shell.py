"""IPython's shell on our messages: its hooks are given by class, nothing of it is replaced afterwards."""

import builtins
import getpass
import os
import sys
import warnings

from IPython.core.error import StdinNotImplementedError, UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.profiledir import ProfileDir
from traitlets.config import Config

from . import display, highlight, messages, parent, system, tracebacks

# Of an error's message, and of its traceback, in characters.
LONGEST_ERROR = 1 << 20


class Shell(InteractiveShell):
    """The shell of one session: made and warmed in the zygote, then given a clean namespace."""

    # Set on the class by `make`, before IPython's constructor runs.
    channel = None
    interrupts = None

    # The error of the cell that runs, for its reply.
    last_error = None

    # Where libraries written for ipykernel look for the message that runs.
    kernel = parent.Parent()

    def get_parent(self):
        """Returns the message that runs."""
        return self.kernel.get_parent()

    def init_ipython_dir(self, ipython_dir):
        """Names the directory without making it: most sessions never need it."""
        self._trait_values["ipython_dir"] = os.path.join(os.path.expanduser("~"), ".ipython")

    def settle(self):
        """Takes the present home directory for its own, after the fork from a process that had another."""
        self.init_ipython_dir(None)
        # Past the traits, whose machinery would touch hundreds of shared pages for a path.
        self.profile_dir._trait_values["location"] = self._profile_location()

    def _profile_location(self):
        return os.path.join(self.ipython_dir, "profile_default")

    def init_profile_dir(self, profile_dir):
        """The same for the profile."""
        self.profile_dir = _LazyProfileDir(location=self._profile_location())

    def init_virtualenv(self):
        """Does nothing: the kernel runs in its own environment."""

    def init_sys_modules(self):
        """Makes the namespace `__main__`, so that what is defined in cells can be pickled."""
        super().init_sys_modules()
        # Programs that look for their own path find none, as in an interactive Python.
        sys.argv = [""]

    def set_next_input(self, s, replace=False):
        """Asks for a cell with this source, as `%load` does; the reply tells whoever edits the notebook."""
        self.payload_manager.write_payload({"source": "set_next_input", "text": s, "replace": replace})

    def system(self, command):
        """Runs `!command`; its output goes through the pipes, as it comes."""
        code = system.run(self.var_expand(command, depth=1))
        self.user_ns["_exit_code"] = code
        if self.system_raise_on_error and code:
            import subprocess

            raise subprocess.CalledProcessError(code, command)

    system_piped = system_raw = system

    def enable_gui(self, gui=None):
        """Refuses toolkits that need a screen."""
        if gui not in (None, "inline", "agg", "asyncio"):
            raise UsageError(
                f"a session has no screen for `{gui}`: use %matplotlib inline, or savefig to a file"
            )

    def ask_exit(self):
        """Ends the cell, as `exit()` would end a program; the session goes on."""
        raise SystemExit

    def _format_exception_for_storage(self, exception, filename=None, running_compiled_code=False):
        # IPython would format every traceback a second time for a history that nobody reads.
        return {}

    def init_traceback_handlers(self, custom_exceptions):
        """Puts our formatter in the place of IPython's."""
        super().init_traceback_handlers(custom_exceptions)
        self.InteractiveTB = tracebacks.Tracebacks(mode=self.xmode, theme_name=self.colors, tb_offset=1)

    # --- errors ---------------------------------------------------------------------------------------------

    def showtraceback(self, exc_tuple=None, filename=None, tb_offset=None, exception_only=False, **_options):
        """Sends the exception that just occurred as an error."""
        try:
            kind, value, tb = self._get_exc_info(exc_tuple)
        except ValueError:
            print("No traceback available to show.", file=sys.stderr)
            return
        if issubclass(kind, SyntaxError):
            self.showsyntaxerror(filename, running_compiled_code=True)
            return
        self._showtraceback(*self._describe_safely(kind, value, tb, tb_offset))

    def describe_error(self, error):
        """Returns an exception as the fields of an error, without showing it."""
        return _as_error(*self._describe_safely(type(error), error, error.__traceback__, None))

    def _describe_safely(self, kind, value, tb, tb_offset):
        try:
            tracebacks.trim(value)
            return self._describe(kind, value, value.__traceback__ if tb is not None else None, tb_offset)
        except KeyboardInterrupt as interrupt:
            # It came while the traceback was made (a __str__ that hangs, say): then it is what is reported.
            return KeyboardInterrupt, interrupt, ["KeyboardInterrupt, while an error was described"]
        except Exception:
            # A hostile or broken exception class must not hide that there was one.
            return kind, None, [f"{kind.__name__}: <the exception could not be described>"]

    def _describe(self, kind, value, tb, tb_offset):
        """Returns the type and value to report and the coloured text."""
        if kind is UsageError:
            return kind, value, [f"UsageError: {value}"]
        if issubclass(kind, SystemExit):
            hint = "the cell ended here; the session and its variables go on"
            return kind, value, [f"SystemExit: {value}".rstrip(": "), hint]
        if self.interrupts.seen and kind.__name__ == "CancelledError":
            # An interrupted `await` is cancelled: our way of doing it, not what the user asked for.
            kind, value = KeyboardInterrupt, KeyboardInterrupt().with_traceback(tb)
        render = getattr(value, "_render_traceback_", None)
        if callable(render):
            text = [str(line) for line in render()]
        else:
            text = self.InteractiveTB.describe(kind, value, tb, tb_offset)
        return kind, value, text

    def _showtraceback(self, etype, evalue, stb):
        """Sends the error; IPython calls this for syntax errors too."""
        self.last_error = _as_error(etype, evalue, stb)
        self.channel.send(self.last_error)

    # --- input ----------------------------------------------------------------------------------------------

    # Only while a cell runs that may: there is nobody to ask otherwise.
    allow_stdin = False
    _input_requests = 0

    def ask(self, prompt="", password=False):
        """Asks the user for a line and waits for it."""
        if not self.allow_stdin:
            raise StdinNotImplementedError(
                "nobody can answer input() outside of a cell, or in one that was run without allow_stdin"
            )
        type(self)._input_requests += 1
        request = str(self._input_requests)
        self.channel.send(messages.InputRequest(request, str(prompt), password))
        reply = self.channel.wait_for_input_reply(request)
        if reply.get("eof"):
            raise EOFError("the input request was closed without a value")
        return str(reply.get("value", ""))

    def take_over_input(self):
        """Makes `input` and `getpass` ask the user of the session."""

        def input(prompt="", /):
            """Reads a line from the user of the session."""
            return self.ask(prompt)

        def getpass_(prompt="Password: ", stream=None, **_options):
            """Reads a line from the user of the session, who does not see it while typing."""
            return self.ask(prompt, password=True)

        builtins.input = input
        getpass.getpass = getpass_


class _LazyProfileDir(ProfileDir):
    """A profile directory that is not made until something is stored in it."""

    def _location_changed(self, change):
        pass

    def check_dirs(self):
        pass


def make(channel, interrupts):
    """Returns the shell of this process."""
    highlight.install()
    Shell.channel = display.ResultHook.channel = display.MessagePublisher.channel = channel
    Shell.interrupts = interrupts
    config = Config()
    # The database costs 2 ms a cell and a thread; the session's log is the history.
    config.HistoryManager.enabled = False
    # Its static analysis runs for seconds on large modules and executes more than it says.
    config.IPCompleter.use_jedi = False
    config.InteractiveShell.colors = "neutral"
    config.InteractiveShell.autocall = 0
    # `name?` is an output like any other, not a pager's.
    config.InteractiveShell.display_page = True
    Shell.displayhook_class = display.ResultHook
    Shell.display_pub_class = display.MessagePublisher
    shell = Shell.instance(config=config)
    shell.take_over_input()
    shell.register_magics(system.PackageMagics, system.Scripts)
    # `exit()` in a cell is answered in `_describe`.
    warnings.filterwarnings("ignore", message="To exit: use 'exit', 'quit', or Ctrl-D.")
    return shell


def _as_error(kind, value, text):
    try:
        described = str(value) if value is not None else ""
    except (KeyboardInterrupt, Exception):
        described = "<the exception could not be described>"
    return messages.Error(kind.__name__, _cut(described), _cut("\n".join(map(str, text))).split("\n"))


def _cut(text):
    """Returns beginning and end of what nobody reads whole, and what a message could not take."""
    left_out = len(text) - LONGEST_ERROR
    if left_out <= 0:
        return text
    return f"{text[: LONGEST_ERROR // 2]} … {left_out} characters left out … {text[-LONGEST_ERROR // 2 :]}"
