"""Programs started from cells: `!command`, and `%pip` where there may be no network."""

import os
import shlex
import signal
import subprocess
import sys

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.core.magics.script import ScriptMagics
from IPython.utils.process import arg_split

# What some kernels put into every new network namespace, down and without an address.
_NOT_INTERFACES = ("sit", "ip6tnl", "tunl", "gre", "erspan", "ip_vti", "ip6_vti", "ip6gre", "dummy")

_NO_NETWORK = """\
%pip: this session has no network, so nothing can be downloaded.
What to do instead:
  - see what is there already: %pip list
  - upload a wheel into the workspace and install it from there: %pip install ./name.whl
  - ask the operator to add the package to the Python environment of the server\
"""


def run(command):
    """Runs a command in the shell and returns its exit code; negative is the signal that ended it."""
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    return _wait(subprocess.Popen(command, shell=True, executable=shell, stdin=subprocess.DEVNULL))


def os_system(command):
    """Stands for `os.system`, whose C code ignores interrupts for as long as the command runs."""
    code = _wait(subprocess.Popen(command, shell=True))
    return -code if code < 0 else code << 8


def _wait(process, given=None):
    """Waits for a process, and ends it when the cell is interrupted."""
    try:
        process.communicate(given)
    except KeyboardInterrupt:
        for sign, seconds in ((signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGKILL, None)):
            process.send_signal(sign)
            try:
                process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                continue
        raise
    return process.returncode


def has_network():
    """Tells whether there is an interface besides the loopback. Asks the kernel only, so it takes no time."""
    try:
        # Under `self`: a sandbox's /proc shows processes only. Not by netlink, which a sandbox does not have.
        with open("/proc/self/net/dev") as interfaces:
            names = [line.split(":")[0].strip() for line in interfaces if ":" in line]
    except OSError:
        return True
    return any(name != "lo" and not name.startswith(_NOT_INTERFACES) for name in names)


def packages_directory():
    """Returns where `%pip install` puts packages: the environment itself is read-only."""
    return os.path.join(os.path.expanduser("~"), ".local", "lib", "evercell-packages")


@magics_class
class PackageMagics(Magics):
    """Replaces IPython's `%pip`."""

    @line_magic
    def pip(self, line):
        """Runs pip in this environment; what it installs belongs to this session only."""
        arguments = shlex.split(self.shell.var_expand(line))
        command = [sys.executable, "-m", "pip", *arguments]
        if arguments[:1] in (["install"], ["download"], ["wheel"]):
            wanted = [a for a in arguments[1:] if not a.startswith("-")]
            local = bool(wanted) and all(os.path.exists(a) for a in wanted)
            if not has_network():
                if not local:
                    print(_NO_NETWORK, file=sys.stderr)
                    self.shell.user_ns["_exit_code"] = 1
                    return
                command.append("--no-index")
            if arguments[0] == "install" and not {"-t", "--target", "--prefix", "--user"} & set(arguments):
                command += ["--target", packages_directory()]
                if packages_directory() not in sys.path:
                    sys.path.append(packages_directory())
        self.shell.user_ns["_exit_code"] = run(shlex.join(command))
        if arguments[:1] == ["install"]:
            import importlib

            importlib.invalidate_caches()


@magics_class
class Scripts(ScriptMagics):
    """`%%bash` and its like without IPython's event loop in a thread: a thread would not survive a fork."""

    @cell_magic("script")
    def shebang(self, line, cell):
        """Runs the cell in a program; its output comes as the program writes it."""
        options, command = ScriptMagics.shebang.parser.parse_known_args(arg_split(line, posix=True))
        if options.out or options.err or options.bg or options.proc:
            return super().shebang(line, cell)
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE)
        except FileNotFoundError:
            raise UsageError(f"there is no program `{command[0]}` in this session") from None
        code = _wait(process, cell.encode())
        if code and options.raise_error:
            raise subprocess.CalledProcessError(code, cell)
        return None

    # IPython's own version looks for it here.
    shebang.parser = ScriptMagics.shebang.parser
