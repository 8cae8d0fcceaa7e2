"""What is shown: every mime type, updates, figures when they are shown."""

import base64

import pytest

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


@pytest.mark.parametrize(
    ("code", "mime", "value"),
    [
        ("HTML('<b>x</b>')", "text/html", "<b>x</b>"),
        ("Markdown('*x*')", "text/markdown", "*x*"),
        ("Latex('$x$')", "text/latex", "$x$"),
        ("Math('x')", "text/latex", "$\\displaystyle x$"),
        ("SVG('<svg></svg>')", "image/svg+xml", "<svg/>"),
        ("JSON({'a': [1]})", "application/json", {"a": [1]}),
        ("Javascript('x')", "application/javascript", "x"),
        ("Image(b'\\x89PNG\\r\\n\\x1a\\n', format='png')", "image/png", PNG),
        ("Image(b'\\xff\\xd8', format='jpeg')", "image/jpeg", "/9g="),
        ("GeoJSON({'type': 'Point'})", "application/geo+json", {"type": "Point"}),
    ],
)
def test_every_mime_type(kernel, code, mime, value):
    kernel.ok(f"from IPython.display import *\ndisplay({code})")
    [shown] = kernel.messages("display_data")
    assert shown["data"][mime] == value


def test_objects_show_themselves(kernel):
    kernel.ok(
        "class Rich:\n"
        "    def _repr_html_(self): return '<i>r</i>'\n"
        "    def _repr_png_(self): return b'\\x89PNG\\r\\n\\x1a\\n'\n"
        "    def _repr_pdf_(self): return b'%PDF'\n"
        "    def _repr_mimebundle_(self, include, exclude): return {'application/vnd.mine+json': {'k': 1}, 'video/mp4': b'\\0'}\n"
        "Rich()"
    )
    [shown] = kernel.messages("execute_result")
    assert shown["data"]["text/html"] == "<i>r</i>"
    assert shown["data"]["image/png"] == PNG
    assert shown["data"]["application/vnd.mine+json"] == {"k": 1}
    assert shown["data"]["video/mp4"] == "AA=="


def test_update_display_replaces_by_id(kernel):
    kernel.ok("from IPython.display import display, update_display, clear_output\n"
              "h = display('one', display_id='d'); h.update('two'); update_display('three', display_id='d')")  # fmt: skip
    assert kernel.order() == ["display_data", "update_display_data", "update_display_data"]
    assert {m["transient"]["display_id"] for m in kernel.messages()} == {"d"}
    kernel.ok("clear_output(wait=True)")
    assert kernel.messages("clear_output")[0]["wait"] is True


def test_a_figure_is_shown_at_the_end_of_the_cell(kernel):
    kernel.ok("import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])")
    [shown] = kernel.messages("display_data")
    assert base64.b64decode(shown["data"]["image/png"]).startswith(b"\x89PNG")
    kernel.ok("1;")
    assert kernel.messages() == []


def test_figures_of_a_loop_come_as_they_are_shown(kernel):
    kernel.ok(
        "import matplotlib.pyplot as plt\nfor n in range(3):\n    print('before', n)\n    plt.plot([n])\n    plt.show()\nprint('after')"
    )
    assert kernel.order() == [
        "stdout before 0\n", "display_data", "stdout before 1\n", "display_data", "stdout before 2\n", "display_data", "stdout after\n",
    ]  # fmt: skip


def test_a_figure_as_last_value_is_shown_once_as_display(kernel):
    kernel.ok("import pandas as pd\npd.Series([1, 2, 3]).plot();")
    assert kernel.order() == ["display_data"]


def test_a_figure_of_a_failed_cell_is_still_shown(kernel):
    kernel.run("import matplotlib.pyplot as plt\nplt.plot([1])\n1 / 0")
    assert kernel.order() == ["error", "display_data"]


def test_figure_formats_can_be_chosen(kernel):
    kernel.ok(
        "%config InlineBackend.figure_formats = ['svg']\nimport matplotlib.pyplot as plt\nplt.plot([1]); plt.show()"
    )
    assert kernel.messages("display_data")[0]["data"]["image/svg+xml"].lstrip().startswith("<?xml")


def test_a_screen_toolkit_is_refused_clearly(kernel):
    reply = kernel.run("%matplotlib qt")
    assert reply["status"] == "error"
    assert kernel.ok("import matplotlib.pyplot as plt; plt.plot([1]); plt.show()")


def test_plots_of_plotly_and_altair_are_data(kernel):
    kernel.ok("import plotly.graph_objects as go\ngo.Figure(go.Bar(y=[1, 2])).show()")
    assert (
        kernel.messages("display_data")[0]["data"]["application/vnd.plotly.v1+json"]["data"][0]["type"]
        == "bar"
    )
    kernel.ok(
        "import altair as alt, pandas as pd\nalt.Chart(pd.DataFrame({'a': [1], 'b': [2]})).mark_bar().encode(x='a', y='b')"
    )
    [shown] = kernel.messages("execute_result")
    assert {"text/html"} & set(shown["data"]) or any("vega" in mime for mime in shown["data"])


def test_a_display_larger_than_the_ring_arrives_whole(kernel):
    kernel.ok(
        "from IPython.display import display, HTML\nprint('a'); display(HTML('x' * 5_000_000)); print('b')"
    )
    assert kernel.order() == ["stdout a\n", "display_data", "stdout b\n"]
    assert len(kernel.messages()[0]["data"]["text/html"]) == 5_000_000


def test_progress_bars_are_text_that_moves(kernel):
    kernel.ok("from tqdm.auto import tqdm\nfor _ in tqdm(range(3), mininterval=0): pass")
    text = kernel.text("stderr")
    assert text.startswith("\r")
    assert text.count("\n") == 1
    assert "3/3" in text
    assert kernel.messages() == []


def test_a_display_in_a_forked_child_goes_to_its_stdout(kernel):
    kernel.ok(
        "import os\nfrom IPython.display import display\npid = os.fork()\nif not pid:\n    display({'text/plain': 'from the child'}, raw=True); os._exit(0)\nos.waitpid(pid, 0);"
    )
    assert kernel.text() == "from the child\n"


def test_a_wide_table_is_shown_as_in_a_notebook(kernel):
    kernel.ok("import pandas as pd\npd.DataFrame([range(20)])")
    table = kernel.messages("execute_result")[0]["data"]["text/html"]
    assert table.count("<td>") == 20


def test_what_is_too_large_for_a_message_is_refused_and_the_cell_goes_on_with_its_variables(kernel):
    reply = kernel.run("x = 'v' * 70_000_000\nx")
    assert reply["status"] == "error"
    [error] = kernel.messages("error")
    assert error["ename"] == "ValueError"
    assert "bytes is not kept: at most 67108864 are; write it to a file instead" in error["evalue"]
    kernel.ok("print(len(x))")
    assert kernel.text() == "70000000\n"


def test_a_long_error_is_cut_in_its_middle(kernel):
    assert kernel.run("raise ValueError('v' * 70_000_000)")["status"] == "error"
    [error] = kernel.messages("error")
    assert len(error["evalue"]) < 1.1 * 2**20
    assert "characters left out" in error["evalue"]


def test_an_expression_too_large_for_a_reply_costs_itself_only(kernel):
    reply = kernel.ok("x = 'v' * 70_000_000", user_expressions={"x": "x"})
    assert "have more than 16777216 bytes" in reply["user_expressions"]["x"]["evalue"]
