"""The loop of an agent: submit a cell, wait for its result, read it, decide on the next one.

    export EVERCELL_URL=http://127.0.0.1:8888 EVERCELL_TOKEN=the-token-that-the-server-printed
    python examples/agent_loop.py

The model is played by a few rules, so that this runs anywhere and always in the same way; put yours into
`next_cell`. Needs nothing but the standard library.
"""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from uuid import uuid4

QUESTION = "Which cultivar makes the strongest wine?"


def call(method, path, body=None, key=None):
    """A request to the server; JSON in and out, but for bytes, which are sent as they are."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {os.environ['EVERCELL_TOKEN']}"}
    if key is not None:
        headers["Idempotency-Key"] = key
    request = urllib.request.Request(os.environ["EVERCELL_URL"] + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        # The message says what is wrong and what to do; a model can read it as well as a person.
        raise RuntimeError(json.load(error)["error"]["message"]) from error


def observation(result):
    """What the model is shown of a result: short, whatever the cell did."""
    parts = [result["text"]["stdout"]["preview"], result["text"]["stderr"]["preview"]]
    if result["result"]:
        parts.append(result["result"]["data"]["text/plain"])
    if result["error"]:
        parts.append(f"{result['error']['ename']}: {result['error']['evalue']}")
    if result["status"] != "ok":
        # Never a guess whether the variables are still there.
        parts.append(
            f"(the cell ended with {result['cause']['kind']}; variables: {result['state']['verdict']})"
        )
    return "\n".join(part.rstrip("\n") for part in parts if part)


def next_cell(observations):
    """The next step, from what was seen so far: the part of the model. None when the question is answered."""
    if not observations:
        return (
            "import pandas as pd\nwine = pd.read_csv('wine.csv')\nwine.groupby('variety')['alcohol'].mean()"
        )
    last = observations[-1]
    if "KeyError: 'variety'" in last:
        return "list(wine.columns)"
    if "'cultivar'" in last:
        return "wine.groupby('cultivar')['alcohol'].mean().round(2)"
    if "BARBERA" in last:
        return (
            "wine['cultivar'] = wine['cultivar'].str.strip().str.capitalize()\n"
            "wine.drop_duplicates().groupby('cultivar')['alcohol'].mean().round(2).sort_values(ascending=False)"
        )
    return None


def main():
    """Asks until there is an answer."""
    session = f"/v1/sessions/agent-{uuid4().hex[:8]}"
    call("PUT", session, {"cell_ms": 60_000})
    call("PUT", f"{session}/files/wine.csv", (Path(__file__).parent / "data" / "wine.csv").read_bytes())
    print(f"? {QUESTION}")
    observations = []
    while (code := next_cell(observations)) is not None:
        print("\n" + "\n".join(f">>> {line}" for line in code.splitlines()), flush=True)
        # Should this call break off, the same key gets the result instead of running the cell again.
        result = call("POST", f"{session}/run", {"code": code}, key=f"step-{len(observations)}")
        observations.append(observation(result))
        print(observations[-1], flush=True)
    strongest, alcohol = observations[-1].splitlines()[1].split()
    print(f"\n! {strongest}, with {alcohol} % on average; found in {len(observations)} steps.")


if __name__ == "__main__":
    main()
