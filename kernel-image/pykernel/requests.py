"""What a request must look like, and how one is refused."""


class BadRequest(Exception):
    """A field is missing or of the wrong type."""


def text(request, name):
    """Returns a field that must be a text."""
    value = request.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"`{name}` must be a text")
    return value


def number(request, name):
    """Returns a field that must be a position."""
    value = request.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRequest(f"`{name}` must be an integer from 0")
    return value


def texts(request, name):
    """Returns a field that must be an object of texts; missing is empty."""
    value = request.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise BadRequest(f"`{name}` must be an object of texts")
    return value


def refusal(code, message):
    """Returns the answer to a request that is not served."""
    return {"error": {"code": code, "message": message}}
