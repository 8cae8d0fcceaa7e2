"""Programs started from cells: `!command`, and `%pip` where there may be no network."""

import os
import shlex
import signal
import subprocess
import sys

from IPython.core.magic import Magics, line_magic, magics_class

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
    process = subprocess.Popen(command, shell=True, executable=shell, stdin=subprocess.DEVNULL)
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The command usually has had the signal too, being in the same process group.
        for sign, seconds in ((signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGKILL, None)):
            process.send_signal(sign)
            try:
                process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                continue
        raise


def has_network():
    """Tells whether there is any interface besides the loopback. Asks the kernel only, so it takes no time."""
    try:
        with open("/proc/net/dev") as interfaces:
            names = [line.split(":")[0].strip() for line in interfaces if ":" in line]
    except OSError:
        return True
    return any(name != "lo" and not name.startswith(("sit", "ip6tnl", "tunl", "gre", "ip_vti", "ip6_vti", "dummy"))
               for name in names)  # fmt: skip


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
