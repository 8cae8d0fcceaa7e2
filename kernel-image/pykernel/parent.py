"""The message that is being served, for libraries that ask ipykernel for it, as output widgets do."""


class Parent:
    """What `get_ipython().kernel` is here: who asks it for the parent of what is put out now is told."""

    def __init__(self):
        self._message = {}

    def serve(self, request):
        """Takes note of a request; one of no Jupyter client is known by its cell, or its number."""
        client = request.get("client") or {}
        header = client.get("header") or {"msg_id": str(request.get("cell") or request.get("id") or "")}
        self._message = {"header": header, "msg_id": header.get("msg_id", ""), "metadata": {}, "content": {}}
        return self._message

    def get_parent(self, channel=None):
        """Returns the message."""
        return self._message
