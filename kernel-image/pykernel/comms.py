"""Comms: the channel of ipywidgets and the like, both ways, over the `comm` package's two hooks."""

import base64

import comm
from comm.base_comm import BaseComm, CommManager

from . import messages


class KernelComm(BaseComm):
    """A comm whose kernel side is here."""

    # Set on the class by `install`, since `comm` builds the instances.
    channel = None

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        """Sends one comm message. `comm` names the three kinds as the protocol does."""
        buffers = [memoryview(buffer).cast("B") for buffer in buffers or ()]
        common = (data or {}, metadata or {}, [buffer.nbytes for buffer in buffers])
        if msg_type == "comm_open":
            message = messages.CommOpen(self.comm_id, keys.get("target_name") or self.target_name, *common)
        elif msg_type == "comm_close":
            message = messages.CommClose(self.comm_id, *common)
        else:
            message = messages.CommMsg(self.comm_id, *common)
        self.channel.send(message, buffers)


class UnknownComm(Exception):
    """A request names a comm, or a target, that this kernel does not have."""


class Comms:
    """The open comms of this kernel and the requests about them."""

    def __init__(self, channel):
        KernelComm.channel = channel
        self.manager = CommManager()
        comm.create_comm = KernelComm
        comm.get_comm_manager = lambda: self.manager

    def info(self):
        """Returns the target name of every open comm by its id."""
        return {comm_id: found.target_name for comm_id, found in self.manager.comms.items()}

    def open(self, request):
        """Opens the kernel side of a comm that the client has opened."""
        name = str(request.get("target_name"))
        target = self.manager.targets.get(name)
        if target is None:
            raise UnknownComm(f"no comm target `{name}` in this kernel: register it in a cell first")
        opened = KernelComm(comm_id=str(request["comm_id"]), primary=False, target_name=name)
        self.manager.register_comm(opened)
        try:
            target(opened, _message(request))
        except BaseException:
            opened.close()
            raise

    def message(self, request):
        """Hands data to the comm it is for."""
        self._find(request).handle_msg(_message(request))

    def close(self, request):
        """Ends a comm that the client has closed."""
        found = self._find(request)
        found._closed = True
        self.manager.comms.pop(found.comm_id, None)
        found.handle_close(_message(request))

    def _find(self, request):
        found = self.manager.comms.get(str(request.get("comm_id")))
        if found is None:
            name = request.get("comm_id")
            raise UnknownComm(f"no comm `{name}` in this kernel: it was closed, or the kernel was restarted")
        return found


def _message(request):
    """Returns a request in the form that handlers written for Jupyter expect."""
    content = {key: request.get(key) for key in ("comm_id", "target_name") if key in request}
    content["data"] = request.get("data") or {}
    buffers = [memoryview(base64.b64decode(buffer)) for buffer in request.get("buffers") or ()]
    header = (request.get("client") or {}).get("header") or {}
    return {"content": content, "metadata": request.get("metadata") or {}, "buffers": buffers,
            "header": header, "parent_header": {}}  # fmt: skip
