"""The recipes of the documentation, run as they stand there."""

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "jupyter.md"
RECIPES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)
# The last line that a recipe prints, or a text in it.
RESULTS = {"nbclient": 42, "jupyter_kernel_client": 42, "autogen": 42, "smolagents": 6}


@pytest.mark.parametrize("name", RESULTS)
def test_a_recipe_does_what_it_says(name, host, token, with_token, capsys):
    (recipe,) = [text for text in RECIPES if re.search(rf"^from {name}", text, flags=re.M)]
    run(recipe, host, token)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert re.search(rf"(^|'){RESULTS[name]}(\\n)?('|$)", last), last


def test_the_token_is_added_where_a_client_forgets_it(host, token, monkeypatch):
    import websocket

    # Put back afterwards.
    monkeypatch.setattr(websocket, "create_connection", websocket.create_connection)
    first, *_ = [text for text in RECIPES if "websocket.create_connection =" in text]
    run(first, host, token)
    (recipe,) = [text for text in RECIPES if re.search("^from nbclient", text, flags=re.M)]
    run(recipe, host, token)


def run(recipe, host, token):
    """Runs a recipe with this server's address in the place of the one that is shown."""
    name, port = host.split(":")
    recipe = recipe.replace("127.0.0.1", name).replace("8888", port).replace('"TOKEN"', repr(token))
    code = compile(recipe, "recipe", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, {"__name__": "recipe"})
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)
