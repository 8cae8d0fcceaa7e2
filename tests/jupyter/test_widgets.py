"""Widgets and figures, as a page with a notebook uses them: comms both ways, with their buffers, and output that belongs to a widget."""

import itertools
import json
import uuid

import pytest
import requests
import websocket


class Page:
    """As much of a notebook's page as a widget needs."""

    def __init__(self, url, host, token):
        headers = {"Authorization": f"token {token}"}
        self.kernel = requests.post(f"{url}/api/kernels", headers=headers, timeout=60).json()["id"]
        address = (
            f"ws://{host}/api/kernels/{self.kernel}/channels?session_id={uuid.uuid4().hex}&token={token}"
        )
        self.socket = websocket.create_connection(address, timeout=60)
        self.comms = {}

    def request(self, kind, content, metadata=None):
        """Sends a request; returns its id and all that has it for its parent, until the kernel is idle with it."""
        identity = uuid.uuid4().hex
        header = {
            "msg_id": identity,
            "msg_type": kind,
            "session": "page",
            "username": "",
            "date": "",
            "version": "5.4",
        }
        message = {
            "header": header,
            "parent_header": {},
            "metadata": metadata or {},
            "content": content,
            "channel": "shell",
        }
        self.socket.send(json.dumps(message))
        seen = []
        while True:
            message = self.receive()
            if message["parent_header"].get("msg_id") != identity:
                continue
            seen.append(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return identity, seen

    def receive(self):
        """Takes a message, whichever way it is framed."""
        data = self.socket.recv()
        if isinstance(data, str):
            message = json.loads(data)
        else:
            count = int.from_bytes(data[:4], "big")
            edges = [int.from_bytes(data[4 * n : 4 * n + 4], "big") for n in range(1, count + 1)] + [
                len(data)
            ]
            parts = [data[start:end] for start, end in itertools.pairwise(edges)]
            message = json.loads(parts[0])
            message["buffers"] = parts[1:]
        content = message["content"]
        if message["msg_type"] == "comm_open":
            self.comms[content["comm_id"]] = {
                "target": content["target_name"],
                **content["data"].get("state", {}),
            }
        elif message["msg_type"] == "comm_msg" and content["data"].get("method") == "update":
            self.comms.setdefault(content["comm_id"], {}).update(content["data"]["state"])
        return message

    def run(self, code):
        """Runs a cell that ends well."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        identity, seen = self.request("execute_request", content)
        errors = [message["content"] for message in seen if message["msg_type"] == "error"]
        assert not errors, errors
        return identity, seen

    def move(self, comm, **state):
        """Changes a widget, as somebody who moves a slider does."""
        return self.request(
            "comm_msg", {"comm_id": comm, "data": {"method": "update", "state": state, "buffer_paths": []}}
        )

    def find(self, model):
        """The comm of the widget with this model."""
        found = [comm for comm, state in self.comms.items() if state.get("_model_name") == model]
        assert len(found) == 1, self.comms
        return found[0]


@pytest.fixture
def page(url, host, token):
    """A page with a kernel of its own."""
    return Page(url, host, token)


def text_of(messages):
    """What messages show, as text."""
    texts = []
    for message in messages:
        content = message["content"]
        if message["msg_type"] == "stream":
            texts.append(content["text"])
        elif message["msg_type"] in ("display_data", "execute_result"):
            texts.append(content["data"].get("text/plain", ""))
    return "".join(texts)


def test_a_slider_that_is_moved_moves_in_the_kernel(page):
    _, seen = page.run("import ipywidgets as w\ns = w.IntSlider(value=3)\ns")
    assert any("application/vnd.jupyter.widget-view+json" in m["content"].get("data", {}) for m in seen)
    slider = page.find("IntSliderModel")
    _, seen = page.move(slider, value=7)
    assert [m["content"].get("execution_state") for m in seen if m["msg_type"] == "status"] == [
        "busy",
        "idle",
    ]
    assert text_of(page.run("s.value")[1]) == "7"
    # And back: the kernel moves the slider of the page.
    page.run("s.value = 11")
    assert page.comms[slider]["value"] == 11


def test_interact_puts_its_output_where_it_belongs(page):
    page.run(
        "from ipywidgets import interact\n@interact(x=(0, 10))\ndef square(x=2):\n    print('square', x * x)"
    )
    slider, output = page.find("IntSliderModel"), page.find("OutputModel")
    identity, seen = page.move(slider, value=5)
    assert "square 25" in text_of(seen)
    # By this the page knows which output is the widget's.
    ids = [
        m["content"]["data"]["state"].get("msg_id")
        for m in seen
        if m["msg_type"] == "comm_msg"
        and m["content"]["comm_id"] == output
        and m["content"]["data"]["method"] == "update"
    ]
    assert identity in ids, ids


def test_buffers_go_both_ways(page):
    page.run("import ipywidgets as w\nimage = w.Image(value=b'\\x89PNG\\x00\\xff', format='png')\nimage")
    comm = page.find("ImageModel")
    # As a page sends them: behind the JSON, with a table of where each begins.
    content = {"comm_id": comm, "data": {"method": "update", "state": {}, "buffer_paths": [["value"]]}}
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": "comm_msg",
        "session": "page",
        "username": "",
        "date": "",
        "version": "5.4",
    }
    text = json.dumps(
        {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    ).encode()
    edges = [12, 12 + len(text)]
    page.socket.send_binary(
        b"".join(number.to_bytes(4, "big") for number in [2, *edges]) + text + b"new\x00bytes"
    )
    assert text_of(page.run("bytes(image.value)")[1]) == repr(b"new\x00bytes")
    _, seen = page.run("image.value = b'again'")
    [update] = [m for m in seen if m["msg_type"] == "comm_msg" and m["content"]["comm_id"] == comm]
    assert (update["content"]["data"]["buffer_paths"], update["buffers"]) == ([["value"]], [b"again"])
    _, seen = page.run(
        "import comm\nc = comm.create_comm(target_name='t')\nc.send({'n': 1}, buffers=[b'\\x00\\x01', memoryview(b'zz')])"
    )
    [sent] = [m for m in seen if m["msg_type"] == "comm_msg" and m["content"]["data"] == {"n": 1}]
    assert sent["buffers"] == [b"\x00\x01", b"zz"]


def test_a_progress_bar_and_figures_of_all_libraries_are_shown(page):
    page.run("from tqdm.notebook import tqdm\nfor n in tqdm(range(3)): pass")
    assert any(
        state.get("_model_name") == "FloatProgressModel" and state.get("value") == 3
        for state in page.comms.values()
    )
    for code, mime in [
        ("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);", "image/png"),
        (
            "import plotly.graph_objects as go\ngo.Figure(go.Scatter(y=[1, 2])).show()",
            "application/vnd.plotly.v1+json",
        ),
        (
            "import altair as alt, pandas as pd\nalt.Chart(pd.DataFrame({'x': [1]})).mark_point().encode(x='x')",
            "text/html",
        ),
    ]:
        _, seen = page.run(code)
        kinds = {kind for m in seen for kind in m["content"].get("data", {})}
        assert any(kind.startswith(mime) for kind in kinds), (mime, kinds)
