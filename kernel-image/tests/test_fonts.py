"""Chinese, Japanese and Korean text shows in figures, whatever families a style asks for."""

import glob

import pytest

pytestmark = pytest.mark.skipif(
    not glob.glob("/usr/share/fonts/**/NotoSansCJK-Regular.ttc", recursive=True),
    reason="needs the font: apt-get install fonts-noto-cjk",
)

STYLES = {
    "default": "",
    "seaborn": "import seaborn; seaborn.set_theme()",
    "seaborn and back": "import seaborn; seaborn.set_theme(); seaborn.reset_orig()",
    "a font that is not there": "plt.rcParams['font.sans-serif'] = ['SimHei']; plt.rcParams['font.family'] = 'sans-serif'",
    "a family by name": "plt.rcParams['font.family'] = 'DejaVu Sans'",
    "serif": "plt.rcParams['font.family'] = 'serif'",
    "defaults again": "plt.rcdefaults(); plt.switch_backend('module://matplotlib_inline.backend_inline')",
    "ggplot": "plt.style.use('ggplot')",
    "bold": "plt.rcParams['font.weight'] = 'bold'",
}

DRAW = """
import warnings
warnings.simplefilter("error")
fig, ax = plt.subplots()
ax.set_title("中文 日本語 한국어"); ax.set_xlabel("température ü"); ax.bar(["东京", "서울"], [1, 2])
plt.show()
"""


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_all_glyphs_are_there(kernel, style):
    kernel.ok("import matplotlib.pyplot as plt\n" + STYLES[style])
    kernel.ok(DRAW)
    assert kernel.messages("display_data")
    assert "missing" not in kernel.text("stderr")


def test_the_glyphs_come_from_the_cjk_font(kernel):
    found = kernel.result(
        "from matplotlib import font_manager as fm\n"
        "paths = fm.fontManager._find_fonts_by_props(fm.FontProperties())\n"
        "fonts = [fm.get_font(p) for p in paths]\n"
        "[next(f.family_name for f in fonts if f.get_char_index(ord(c))) for c in 'A中あ한']"
    )
    assert found == "['DejaVu Sans', 'Noto Sans CJK JP', 'Noto Sans CJK JP', 'Noto Sans CJK JP']"


PROGRAM = """
import warnings
import matplotlib.pyplot as plt
warnings.simplefilter("error")
plt.title("中文")
plt.savefig("/dev/null", format="png")
print("drawn")
"""


def test_a_program_started_from_a_cell_draws_them_too(kernel, tmp_path):
    program = tmp_path / "draw.py"
    program.write_text(PROGRAM)
    kernel.ok(f"import sys\n!HOME={tmp_path} {{sys.executable}} {program}")
    assert kernel.text() == "drawn\n"
