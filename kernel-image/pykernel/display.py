"""What IPython shows, as messages: results of expressions and displayed data."""

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher

from . import messages


class ResultHook(DisplayHook):
    """Sends the value of a cell's last expression."""

    # Set on the class by `shell.make`, since IPython builds the instance.
    channel = None

    def write_output_prompt(self):
        """Does nothing: the message has the execution count."""

    def write_format_data(self, format_dict, md_dict=None):
        """Sends the result."""
        data = messages.encode_bundle(format_dict)
        self.channel.send(messages.ExecuteResult(self.prompt_count, data, md_dict or {}))

    def log_output(self, format_dict):
        """Keeps nothing: IPython would hold every figure and table ever shown; the session's log has them."""

    def finish_displayhook(self):
        """Ends the display of a result."""
        self._is_active = False

    def quiet(self):
        """Tells whether a semicolon asks for silence. Tokenizing is for cells that have one at all."""
        cells = self.shell.history_manager.input_hist_parsed
        return bool(cells) and ";" in cells[-1] and super().quiet()


class MessagePublisher(DisplayPublisher):
    """Sends what `display`, `update_display` and `clear_output` ask for."""

    channel = None

    def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **_kwargs):
        """Sends a mime bundle."""
        self._validate_data(data, metadata)
        message = messages.UpdateDisplayData if update else messages.DisplayData
        self.channel.send(message(messages.encode_bundle(data), metadata or {}, transient or {}))

    def clear_output(self, wait=False):
        """Asks the client to remove the cell's outputs so far."""
        self.channel.send(messages.ClearOutput(bool(wait)))
