"""Clients and frameworks that speak to a Jupyter server, each at real work."""

import asyncio
import json
import logging

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

GATEWAY = "jupyter_server.gateway.managers.GatewayKernelManager"


def notebook(*sources):
    """A notebook of these cells."""
    return new_notebook(cells=[new_code_cell(source) for source in sources])


def text_of(cell):
    """What a cell has put out, as text."""
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        elif output.output_type == "error":
            texts.append(f"{output.ename}: {output.evalue}")
        else:
            texts.append(output.data.get("text/plain", ""))
    return "".join(texts)


def test_nbclient_runs_a_notebook_through_the_gateway(with_token):
    from nbclient import NotebookClient

    nb = notebook(
        "import pandas as pd\nframe = pd.DataFrame({'a': [1, 2, 3]})",
        "print('sum', frame.a.sum())\nfloat(frame.a.mean())",
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot(frame.a);",
        "from IPython.display import display, update_display\nshown = display('before', display_id=True)\nshown.update('after')",
        "from IPython.display import clear_output\nprint('gone')\nclear_output()\nprint('stays')",
    )
    NotebookClient(nb, kernel_manager_class=GATEWAY, timeout=60).execute()
    assert text_of(nb.cells[1]) == "sum 6\n2.0"
    assert nb.cells[1].execution_count == 2
    assert any("image/png" in output.get("data", {}) for output in nb.cells[2].outputs)
    assert text_of(nb.cells[3]) == "'after'"
    assert text_of(nb.cells[4]) == "stays\n"


def test_nbclient_sees_an_error_as_one(with_token):
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    nb = notebook("1 / 0", "print('never')")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        NotebookClient(nb, kernel_manager_class=GATEWAY, timeout=60).execute()


def test_nbclient_sees_a_rollback_as_an_error_and_goes_on(with_token):
    from nbclient import NotebookClient

    nb = notebook("x = 41", "x = 0\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "x + 1")
    NotebookClient(nb, kernel_manager_class=GATEWAY, timeout=60, allow_errors=True).execute()
    lost = text_of(nb.cells[1])
    assert "evercell: the kernel was ended by SIGKILL" in lost
    assert "KernelDied" in lost
    # Whether a checkpoint was made right before it is the kernel's decision; the text says what became of the variables.
    kept = "variables are as they were before this cell" in lost or "before cell [2]" in lost
    assert ("42" if kept else "NameError") in text_of(nb.cells[2])


def test_papermill_fills_in_parameters(with_token, tmp_path):
    import papermill

    nb = notebook("rate = 1", "print(rate * 2)")
    nb.cells[0].metadata["tags"] = ["parameters"]
    nb.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    before, after = tmp_path / "before.ipynb", tmp_path / "after.ipynb"
    nbformat.write(nb, before)
    papermill.execute_notebook(
        str(before), str(after), parameters={"rate": 21}, kernel_manager_class=GATEWAY, progress_bar=False
    )
    assert text_of(nbformat.read(after, 4).cells[-1]) == "42\n"


def test_jupyter_kernel_client_works_with_variables(url, token):
    from jupyter_kernel_client import JupyterKernelClient

    with JupyterKernelClient(server_url=url, token=token) as kernel:
        answer = kernel.execute("x = [1, 2]\nprint(len(x))\nx")
        assert answer["status"] == "ok"
        # This client does not join what a busy machine has cut.
        *printed, result = answer["outputs"]
        assert "".join(output["text"] for output in printed) == "2\n"
        assert result["output_type"] == "execute_result"
        assert kernel.execute("sum(x)")["outputs"][0]["data"]["text/plain"] == "3"
        kernel.restart()
        assert kernel.execute("x")["status"] == "error"


def test_smolagents_runs_an_agents_code(url, host, token):
    import websocket
    from smolagents.monitoring import AgentLogger, LogLevel
    from smolagents.remote_executors import (
        RemotePythonExecutor,
        _create_kernel_http,
        _websocket_run_code_raise_errors,
    )

    class EvercellExecutor(RemotePythonExecutor):
        """smolagents' own functions for a kernel gateway, without the container that its executor starts for one."""

        def __init__(self, logger):
            super().__init__([], logger)
            kernel = _create_kernel_http(f"{url}/api/kernels?token={token}", logger)
            self.ws = websocket.create_connection(f"ws://{host}/api/kernels/{kernel}/channels?token={token}")

        def run_code_raise_errors(self, code):
            return _websocket_run_code_raise_errors(code, self.ws, self.logger)

    executor = EvercellExecutor(AgentLogger(LogLevel.ERROR))
    executor.send_variables({"numbers": [1, 2, 3]})
    output = executor("print('total')\nsum(numbers)")
    assert (output.output, "total" in output.logs) == ("6", True)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        executor("1/0")


def test_autogen_runs_code_blocks(host, token, tmp_path):
    from autogen_core import CancellationToken
    from autogen_core.code_executor import CodeBlock
    from autogen_ext.code_executors.docker_jupyter import DockerJupyterCodeExecutor
    from autogen_ext.code_executors.docker_jupyter._jupyter_server import JupyterConnectionInfo

    name, port = host.split(":")
    there = JupyterConnectionInfo(host=name, use_https=False, port=int(port), token=token)

    async def run():
        async with DockerJupyterCodeExecutor(there, output_dir=tmp_path) as executor:
            blocks = [
                CodeBlock(code="y = 20", language="python"),
                CodeBlock(code="print(y + 1)", language="python"),
            ]
            result = await executor.execute_code_blocks(blocks, CancellationToken())
            assert (result.exit_code, result.output.strip()) == (0, "21")
            failed = await executor.execute_code_blocks(
                [CodeBlock(code="1/0", language="python")], CancellationToken()
            )
            assert failed.exit_code == 1
            assert "ZeroDivisionError" in failed.output

    asyncio.run(run())


def test_open_webui_s_exchange(url, host, token):
    """What Open WebUI's code interpreter sends: a kernel without a body, a socket with the token in its address, one message."""
    import aiohttp
    import websockets

    async def run():
        async with aiohttp.ClientSession(base_url=f"{url}/") as session:
            async with session.post("api/kernels", params={"token": token}) as response:
                response.raise_for_status()
                kernel = (await response.json())["id"]
            address = f"ws://{host}/api/kernels/{kernel}/channels?token={token}"
            async with websockets.connect(address) as socket:
                header = {
                    "msg_id": "m1",
                    "msg_type": "execute_request",
                    "username": "user",
                    "session": "s",
                    "date": "",
                    "version": "5.3",
                }
                content = {
                    "code": "print(6 * 7)",
                    "silent": False,
                    "store_history": True,
                    "user_expressions": {},
                    "allow_stdin": False,
                    "stop_on_error": True,
                }
                message = {
                    "header": header,
                    "parent_header": {},
                    "metadata": {},
                    "content": content,
                    "channel": "shell",
                }
                await socket.send(json.dumps(message))
                text = ""
                while True:
                    answer = json.loads(await asyncio.wait_for(socket.recv(), 60))
                    if answer["parent_header"].get("msg_id") != "m1":
                        continue
                    if answer["msg_type"] == "stream":
                        text += answer["content"]["text"]
                    if answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
                        break
            assert text == "42\n"
            async with session.delete(f"api/kernels/{kernel}", params={"token": token}) as response:
                assert response.status == 204

    asyncio.run(run())


def test_the_gateway_s_managers_list_and_find_kernels():
    from jupyter_server.gateway.managers import GatewayKernelSpecManager, GatewayMappingKernelManager

    async def run():
        specs = GatewayKernelSpecManager()
        assert (await specs.get_kernel_spec("python3"))["spec"]["language"] == "python"
        with pytest.raises(KeyError):
            await specs.get_kernel_spec("nothing")
        kernels = GatewayMappingKernelManager(log=logging.getLogger())
        kernel = await kernels.start_kernel(kernel_name="python3")
        assert [model["id"] for model in await kernels.list_kernels()] == [kernel]
        await kernels.interrupt_kernel(kernel)
        await kernels.restart_kernel(kernel)
        await kernels.shutdown_kernel(kernel)
        assert kernel not in kernels

    asyncio.run(run())
