"""A conversation about real data over a WebSocket: from opening the session to coming back later.

Uploads `data/wine.csv`, runs the cells of `wine.py` one after the other, shows what comes while it comes,
saves the figures, downloads the result, and then attaches as another client that finds everything again.

    export EVERCELL_URL=http://127.0.0.1:8888 EVERCELL_TOKEN=the-token-that-the-server-printed
    python examples/conversation.py

Needs `pip install websockets`, and otherwise the standard library.
"""

import argparse
import base64
import json
import os
import re
import struct
import sys
import urllib.error
import urllib.request
from pathlib import Path
from uuid import uuid4

try:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
except ImportError:
    sys.exit("this example needs a WebSocket client\n\nhint: python -m pip install websockets")

HERE = Path(__file__).resolve().parent


class Client:
    """One client of a session: commands over HTTP and WebSocket, events from the WebSocket."""

    def __init__(self, session, after=0):
        self.url = os.environ["EVERCELL_URL"].rstrip("/")
        self.headers = {"Authorization": f"Bearer {os.environ['EVERCELL_TOKEN']}"}
        self.session = f"/v1/sessions/{session}"
        # The last event that it has seen: all it needs to go on from there after whatever happens.
        self.after = after
        self.socket = None
        self.stream = self.messages()

    def http(self, method, path="", body=None):
        """The answer to an HTTP request, as bytes."""
        request = urllib.request.Request(self.url + self.session + path, body, self.headers, method=method)
        try:
            with urllib.request.urlopen(request) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            sys.exit(f"{method} {path}: {json.load(error)['error']['message']}")

    def messages(self):
        """What the server says: replies, and each event once, in order, also across lost connections."""
        while True:
            address = f"{self.url.replace('http', 'ws', 1)}{self.session}/ws?after={self.after}"
            with connect(address, additional_headers=self.headers, max_size=None) as self.socket:
                yield {"connected": True}
                try:
                    for text in self.socket:
                        message = json.loads(text)
                        if "seq" in message:
                            assert message["seq"] == self.after + 1, "events have no gaps"
                            self.after = message["seq"]
                        yield message
                except ConnectionClosed:
                    print("    (connection lost, connecting again)", flush=True)

    def attach(self):
        """Connects, to get every event after the last one it has seen."""
        next(self.stream)

    def leave(self):
        """Closes the connection, which changes nothing in the session."""
        self.stream.close()

    def command(self, op, **fields):
        """Sends a command."""
        self.socket.send(json.dumps({"op": op, **fields}))

    def run(self, code):
        """The events of a cell, from its start to its end."""
        # With a key it can be sent again after a lost connection: it runs once.
        cell = {"code": code, "key": uuid4().hex, "ref": "cell"}
        self.command("execute", **cell)
        ours, over = None, set()
        for message in self.stream:
            if "connected" in message and ours is None:
                self.command("execute", **cell)
            elif message.get("ref") == "cell":
                if not message["ok"]:
                    sys.exit(f"refused: {message['error']['message']}")
                ours = message["reply"]["cell"]
            elif "seq" in message:
                yield message
                if message["event"] == "deadline_warning":
                    # Whoever looks may ask for more time, up to the session's ceiling.
                    self.command("extend", cell=message["cell"], by_ms=min(30_000, message["extendable_ms"]))
                elif message["event"] == "cell_finished":
                    over.add(message["cell"])
            if ours in over:
                return


class Screen:
    """Shows text as a terminal does, indented; in a file a line that is redrawn stands once."""

    def __init__(self):
        self.line, self.at_start, self.redrawn = "", False, 0

    def write(self, text):
        """Shows a piece of text as it came."""
        for piece in re.split(r"([\r\n])", text):
            if piece == "\n":
                self.end_line()
            elif piece == "\r":
                self.at_start = True
            elif piece:
                kept = "" if self.at_start else self.line
                self.redrawn += self.at_start
                self.line, self.at_start = kept + piece, False
        if sys.stdout.isatty() and self.line:
            print(f"\r    {self.line}", end="\x1b[K", flush=True)

    def end_line(self):
        """Ends the line that is being written, if any."""
        if self.line:
            note = f"   (redrawn {self.redrawn} times)" if self.redrawn else ""
            print(f"{chr(13) if sys.stdout.isatty() else ''}    {self.line}{note}", flush=True)
        self.line, self.at_start, self.redrawn = "", False, 0

    def paragraph(self, text):
        """Shows lines of their own."""
        self.end_line()
        for line in text.splitlines():
            print(f"    {line}".rstrip(), flush=True)


def cells(path):
    """The cells of a file, each with its title."""
    parts = re.split(r"^# %% (.+)\n", path.read_text(), flags=re.MULTILINE)
    return list(zip(parts[1::2], (code.strip() for code in parts[2::2]), strict=True))


def show(events, directory):
    """Shows what a cell does; returns its last event."""
    screen = Screen()
    for event in events:
        match event["event"]:
            case "stream":
                screen.write(event["text"])
            case "display_data" | "execute_result" if "image/png" in event["data"]:
                image = base64.b64decode(event["data"]["image/png"])
                file = directory / f"figure-{len(list(directory.glob('figure-*.png'))) + 1}.png"
                file.write_bytes(image)
                width, height = struct.unpack(">II", image[16:24])
                screen.paragraph(f"a figure of {width} × {height} pixels, saved as {file.name}")
            case "display_data" | "execute_result":
                screen.paragraph(event["data"]["text/plain"])
            case "error":
                screen.paragraph("\n".join(event["traceback"]))
            case "cell_finished":
                screen.end_line()
    return event


def converse(session, directory):
    """The first client: uploads, runs all cells, downloads. Returns the events that it saw."""
    client = Client(session)
    opened = json.loads(client.http("PUT"))
    data = (HERE / "data" / "wine.csv").read_bytes()
    client.http("PUT", "/files/wine.csv", data)
    print(
        f"Session {session} is open ({opened['opened']}); wine.csv is uploaded: {len(data):,} bytes.",
        flush=True,
    )
    client.after = opened["head"]
    client.attach()
    seen = []

    def noting(events):
        for event in events:
            seen.append(event)
            yield event

    for title, code in cells(HERE / "wine.py"):
        print(f"\n{title}", flush=True)
        end = show(noting(client.run(code)), directory)
        if end["status"] != "ok":
            sys.exit(f"the cell ended with {end['cause']}")
        print(f"    [{end['execution_count']}] {end['usage']['wall_ms']} ms", flush=True)
    result = client.http("GET", "/files/predictions.csv")
    (directory / "predictions.csv").write_bytes(result)
    print(f"\npredictions.csv is downloaded: {len(result.splitlines()) - 1} wines.", flush=True)
    client.leave()
    return seen


def come_back(session, seen):
    """Another client, later: gets the whole log, and the variables are there."""
    client = Client(session, after=0)
    client.attach()
    head = json.loads(client.http("GET"))["head"]
    log = []
    for message in client.stream:
        log.append(message)
        if client.after == head:
            break
    assert [event for event in log if event["seq"] >= seen[0]["seq"]] == seen, "both saw the same"
    shown = [event["data"] for event in log if "data" in event and event["event"] != "comm"]
    figures = sum("image/png" in data for data in shown)
    print(
        f"\nAnother client attaches with after=0: {len(log)} events without a gap, {figures} figures in them,"
    )
    print("the same that the first client saw. It asks for `len(clean)`:", flush=True)
    screen = Screen()
    for event in client.run("len(clean)"):
        if event["event"] == "execute_result":
            screen.paragraph(event["data"]["text/plain"])
    client.leave()


def main():
    """Holds the conversation."""
    parser = argparse.ArgumentParser(description="A conversation about real data, over a WebSocket.")
    parser.add_argument("--session", default=f"wine-{uuid4().hex[:8]}", help="its id; a new one if left out")
    parser.add_argument("--save", type=Path, default=Path("wine-out"), help="where figures and the result go")
    asked = parser.parse_args()
    asked.save.mkdir(parents=True, exist_ok=True)
    for old in asked.save.glob("figure-*.png"):
        old.unlink()
    come_back(asked.session, converse(asked.session, asked.save))


if __name__ == "__main__":
    main()
