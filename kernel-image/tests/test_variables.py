"""The receipt: names added, changed and removed, without touching what the user has defined."""


def receipt(kernel, code):
    return kernel.ok(code)["variables"]


def names(found):
    return sorted(variable["name"] for variable in found)


def test_added_changed_removed(kernel):
    first = receipt(kernel, "a = 1; b = [1]; c = 'x'")
    assert (names(first["added"]), first["changed"], first["removed"], first["total"]) == (
        ["a", "b", "c"],
        [],
        [],
        3,
    )
    second = receipt(kernel, "b.append(2); c = 'y'; del a; d = 4")
    assert (names(second["added"]), names(second["changed"]), second["removed"]) == (["d"], ["b", "c"], ["a"])
    third = receipt(kernel, "1 + 1")
    assert (third["added"], third["changed"], third["removed"], third["total"]) == ([], [], [], 3)
    assert not third["truncated"]


def test_private_names_modules_and_ipythons_own_are_not_variables(kernel):
    assert receipt(kernel, "import os, numpy as np; _x = 1\n5")["added"] == []
    assert names(receipt(kernel, "In = 3")["added"]) == ["In"]


def test_what_is_told_of_a_value(kernel):
    code = (
        "import numpy as np, pandas as pd\n"
        "arr = np.arange(6.).reshape(2, 3); df = pd.DataFrame({'x': [1, 2], 'name': ['a', 'b']}); s = df.x\n"
        "text = 'hello'; n = 7; f = lambda q: q; d = {'k': [1, 2]}; big = 10 ** 5000; z = None; t = (1,)\n"
        "class Thing: pass\nthing = Thing()"
    )
    found = {v["name"]: v for v in receipt(kernel, code)["added"]}
    assert (found["arr"]["type"], found["arr"]["shape"], found["arr"]["bytes"]) == ("ndarray", [2, 3], 48)
    assert found["arr"]["preview"].startswith("float64: 0.0, 1.0")
    assert (found["df"]["type"], found["df"]["shape"], found["df"]["length"]) == ("DataFrame", [2, 2], 2)
    assert found["df"]["preview"] == "columns: x, name"
    assert found["df"]["bytes"] > 0
    assert (found["s"]["type"], found["s"]["shape"]) == ("Series", [2])
    assert (found["text"]["preview"], found["text"]["length"]) == ("'hello'", 5)
    assert found["n"]["preview"] == "7"
    assert found["big"]["preview"] == "an integer of 16610 bits"
    assert found["d"]["preview"] == "{'k': [1, 2]}"
    assert found["Thing"]["preview"] == "class Thing"
    assert found["thing"]["preview"] == "<Thing>"
    assert found["f"]["preview"] == "<lambda>(q)"


def test_changes_in_place_of_arrays_and_frames(kernel):
    kernel.ok(
        "import numpy as np, pandas as pd; a = np.zeros(1000); df = pd.DataFrame({'x': [1, 2]}); same = np.ones(5)"
    )
    assert names(receipt(kernel, "a[:] = 1")["changed"]) == ["a"]
    assert names(receipt(kernel, "df['y'] = 3")["changed"]) == ["df"]
    assert names(receipt(kernel, "df['x'] *= 2")["changed"]) == ["df"]


def test_hostile_values_neither_break_nor_stall_it(kernel):
    code = """
import time
def hang(*_a, **_k): time.sleep(60)
def fail(*_a, **_k): raise RuntimeError('touched')
class Meta(type):
    __instancecheck__ = __subclasscheck__ = __len__ = __repr__ = __eq__ = fail
    __hash__ = type.__hash__
    __name__ = property(fail)
    __module__ = property(fail)
    mro = type.mro
class Hang(metaclass=Meta):
    __repr__ = __len__ = __str__ = __eq__ = __bool__ = __sizeof__ = __getattr__ = __hash__ = hang
    __class__ = property(hang)
    shape = dtype = nbytes = property(hang)
class List(list):
    __len__ = __repr__ = __iter__ = __getitem__ = hang
class Str(str):
    __repr__ = __len__ = __getitem__ = hang
class Dict(dict):
    __len__ = items = hang
import numpy as np, pandas as pd
class Array(np.ndarray):
    shape = property(hang)
    __array_finalize__ = lambda *a: None
class Frame(pd.DataFrame):
    shape = property(fail)
one = Hang(); two = List([1]); three = Str('x'); four = Dict(a=1); five = [one, two, three]; six = {three: one}
seven = np.zeros(3).view(Array)
eight = np.empty(1, dtype=object); eight[0] = one
"""
    found = receipt(kernel, code)
    assert {"one", "two", "three", "four", "five", "six", "seven", "eight"} <= set(names(found["added"]))
    assert found["took_us"] < 200_000
    assert kernel.call("variables")["total"] == found["total"]
    assert receipt(kernel, "1")["changed"] == []


ODD_NAMES = """
class S(str):
    __hash__ = str.__hash__
    def __eq__(self, other): raise ValueError
globals()[7] = 1; globals()[S('odd')] = 2; x = 1
"""


def test_odd_names_are_skipped(kernel):
    assert names(receipt(kernel, ODD_NAMES)["added"]) == ["S", "x"]


def test_a_huge_namespace_is_bounded(kernel):
    first = receipt(kernel, "globals().update({f'v{i}': i for i in range(100_000)}); last = 1")
    assert first["truncated"]
    assert first["took_us"] < 200_000
    second = receipt(kernel, "newest = 2; del v99999")
    assert "newest" in names(second["added"])
    assert second["removed"] == ["v99999"] or second["truncated"]
    assert second["took_us"] < 200_000


def test_many_new_names_are_cut_and_said(kernel):
    found = receipt(kernel, "globals().update({f'v{i}': [i] * 5 for i in range(500)})")
    assert found["truncated"]
    assert len(found["added"]) <= 100
    assert found["total"] == 500


def test_the_listing(kernel):
    kernel.ok("b = 2; a = 'x' * 1000")
    reply = kernel.call("variables")
    assert [v["name"] for v in reply["variables"]] == ["a", "b"]
    assert (reply["total"], reply["truncated"]) == (2, False)
    assert reply["variables"][0]["length"] == 1000
