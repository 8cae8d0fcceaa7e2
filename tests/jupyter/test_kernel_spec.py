"""The tests of Jupyter's messaging protocol, as its own project has them, over a bridge to a kernel behind the server.

Left out, with the reason: `code_page_something`, since `name?` is shown as an output here and not in a pager that the client would have to have;
`support_iopub_welcome`, which is about the sockets of a local kernel.
"""

from jupyter_kernel_client.manager import KernelHttpManager
from jupyter_kernel_client.wsclient import JupyterSubprotocol
from jupyter_kernel_test import KernelTests

from conftest import TOKEN, URL


class Remote(KernelTests):
    """The tests, with a kernel that is not started here."""

    subprotocol = JupyterSubprotocol.DEFAULT

    @classmethod
    def setUpClass(cls):
        """Starts a kernel behind the server, and connects."""
        cls.km = KernelHttpManager(URL, TOKEN, client_kwargs={"subprotocol": cls.subprotocol})
        cls.km.start_kernel(name="python3")
        cls.kc = cls.km.client
        # This client's log line wants to name the channel, which a message in the second framing does not do itself.
        deserialize = cls.kc.session.deserialize
        cls.kc.session.deserialize = lambda *parts, **keys: {"channel": "", **deserialize(*parts, **keys)}
        cls.kc.start_channels()
        cls.kc.wait_for_ready(timeout=60)

    @classmethod
    def tearDownClass(cls):
        """Ends it."""
        cls.km.shutdown_kernel()
        cls.kc.stop_channels()

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = ({"text": "zi", "matches": {"zip"}},)
    complete_code_samples = ("print('hi')", "for i in range(2): pass\n\n")
    incomplete_code_samples = ("print('''hello", "for i in range(2):\n  x = i*2")
    invalid_code_samples = ("import = 7q",)
    code_generate_error = "raise"
    code_execute_result = (
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    )
    code_display_data = (
        {
            "code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))",
            "mime": "text/html",
        },
        {
            "code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))",
            "mime": "text/latex",
        },
    )
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


class TestJson(Remote):
    """Over the JSON framing."""

    __test__ = True


class TestV1(Remote):
    """Over `v1.kernel.websocket.jupyter.org`."""

    __test__ = True
    subprotocol = JupyterSubprotocol.V1


# The class that is imported, and the one that has no framing, are not tests by themselves.
KernelTests.__test__ = False
Remote.__test__ = False
