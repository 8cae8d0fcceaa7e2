"""`python -m pykernel zygote|kernel`: the start order as numbered steps; nothing runs at import."""

import argparse
import gc
import json
import os
import signal
import sys
import time


def main(arguments):
    """Starts a zygote or a kernel. Returns only when the command line is wrong."""
    options = parser().parse_args(arguments)

    # 1. Nothing the environment or a terminal does may end or change us: interrupts are for cells.
    started = time.monotonic()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())

    # 2. Imports, the shell, the collector frozen: everything for all kernels to come, the least for this one.
    # There is next to no garbage before that, and to look for it would take a tenth of the time.
    gc.disable()
    from . import preload, start, zygote

    prepared = start.Prepared(has_libraries=options.command == "zygote")

    # 3. Whose kernel: forked for a request, or this process itself.
    if options.command == "zygote":
        ready = {
            "ready": True,
            "python": preload.python_version(),
            "took_ms": int((time.monotonic() - started) * 1000),
        }
        jail, descriptors = zygote.serve(options.listen, options.lifeline, ready)
    else:
        with open(options.jail, encoding="utf-8") as file:
            jail = json.load(file)
        descriptors = json.loads(os.environ.pop("EVERCELL_FDS"))

    # 4. From here on there is one session, and what it may do is little.
    start.run(prepared, jail, descriptors)


def parser():
    """Returns the command line."""
    found = argparse.ArgumentParser(prog="pykernel", description="the Python kernel of an Evercell session")
    commands = found.add_subparsers(dest="command", required=True)
    zygote = commands.add_parser("zygote", help="load everything once and fork kernels on request")
    zygote.add_argument(
        "--listen", type=int, required=True, metavar="FD", help="listening SOCK_SEQPACKET socket"
    )
    zygote.add_argument(
        "--lifeline", type=int, required=True, metavar="FD", help="the zygote ends when it closes"
    )
    kernel = commands.add_parser("kernel", help="be a kernel; descriptors are named in EVERCELL_FDS")
    kernel.add_argument("--jail", type=int, required=True, metavar="FD", help="file with the jail as JSON")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
