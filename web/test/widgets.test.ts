import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { EMPTY, reduce, type Notebook, type Output } from "../src/reduce.ts";
import { Changes } from "../src/widgets/changes.ts";
import { catcher, childrenOf, formatted, plainMarkup } from "../src/widgets/model.ts";
import type { Event, EventKind } from "../src/wire.ts";
import { log, random } from "./log.ts";

type Entry = [EventKind, Record<string, unknown>?];

function open(id: string, model: string, state: Record<string, unknown> = {}): Entry {
  return ["comm", { cell: "a", from: "kernel", comm: "open", comm_id: id, target_name: "jupyter.widget", data: { state: { _model_name: model, ...state } } }];
}

function update(id: string, state: Record<string, unknown>, cell: string | null = "a", from = "kernel", method = "update"): Entry {
  return ["comm", { cell, from, comm: "msg", comm_id: id, data: { method, state } }];
}

const print = (text: string, cell: string | null = "a"): Entry => ["stream", { cell, name: "stdout", text }];
const queued: Entry = ["cell_queued", { cell: "a", code: "", position: 0 }];

function texts(outputs: readonly Output[] | undefined): string[] {
  return (outputs ?? []).map((output) => (output.kind === "stream" ? output.head : output.kind));
}

/** A bar and an `interact`, with a slider that somebody moves. */
const story: Entry[] = [
  queued,
  open("bar", "FloatProgressModel", { max: 3, value: 0 }),
  update("bar", { value: 3, bar_style: "success" }),
  open("slider", "IntSliderModel", { value: 5, max: 10 }),
  open("out", "OutputModel", { msg_id: "", outputs: [] }),
  print("before\n"),
  update("out", { msg_id: "a" }),
  print("f of 5\n"),
  update("out", { msg_id: "" }),
  print("after\n"),
  ["cell_finished", { cell: "a", status: "ok", state: { verdict: "kept" } }],
  update("slider", { value: 7 }, null, "client"),
  update("slider", { value: 7 }, null, "kernel", "echo_update"),
  update("out", { msg_id: "12" }, null),
  ["clear_output", { cell: null, wait: true }],
  print("f of 7\n", null),
  update("out", { msg_id: "" }, null),
  ["comm_handled", { at_seq: 12 }],
  print("from a thread\n", null),
];

test("a widget stands as kernel and people have made it, and what is shown in an Output stands there and nowhere else", () => {
  const notebook = reduce(EMPTY, log(...story));
  expect(notebook.widgets.all.get("bar")?.state).toMatchObject({ value: 3, bar_style: "success", max: 3 });
  expect(notebook.widgets.all.get("slider")?.state).toMatchObject({ value: 7, max: 10 });
  expect(texts(notebook.widgets.all.get("out")?.outputs)).toEqual(["f of 7\n"]);
  expect(texts(notebook.executions.get("a")?.outputs)).toEqual(["before\nafter\n"]);
  expect(texts(notebook.background)).toEqual(["from a thread\n"]);
  expect(notebook.widgets.unhandled.size).toBe(0);
});

test("wherever the log of widgets is cut, and whatever is read twice, they are the same", () => {
  const events = log(...story);
  const whole = ({ widgets, executions, background }: Notebook): unknown => ({ catching: widgets.catching, closed: [...widgets.closed], all: [...widgets.all], unhandled: [...widgets.unhandled], runs: [...executions], background });
  const once = whole(reduce(EMPTY, events));
  const next = random(11);
  for (let round = 0; round < 100; round += 1) {
    let notebook = EMPTY;
    for (let at = 0; at < events.length;) {
      const size = 1 + Math.floor(next() * 4);
      notebook = reduce(notebook, events.slice(Math.max(0, at - Math.floor(next() * 3)), at + size));
      at += size;
    }
    expect(whole(notebook)).toEqual(once);
  }
});

test("what a kernel echoes of a slider that has moved on does not move it back", () => {
  const notebook = reduce(EMPTY, log(
    open("s", "IntSliderModel", { value: 0 }),
    update("s", { value: 1 }, null, "client"),
    update("s", { value: 2 }, null, "client"),
    update("s", { value: 1 }, null, "kernel", "echo_update"),
  ));
  expect(notebook.widgets.all.get("s")?.state["value"]).toBe(2);
});

test("a cell that ends within an Output catches nothing more", () => {
  const notebook = reduce(EMPTY, log(
    queued, open("out", "OutputModel"), update("out", { msg_id: "a" }),
    ["cell_finished", { cell: "a", status: "error", state: { verdict: "kept" } }],
  ));
  expect(catcher(notebook.widgets, "a")).toBeUndefined();
});

test("widgets of a kernel that is gone stay as they were and take no changes, and a closed one is gone", () => {
  const notebook = reduce(EMPTY, log(
    open("s", "IntSliderModel", { value: 4 }), open("t", "IntSliderModel"),
    ["comm", { cell: null, from: "kernel", comm: "close", comm_id: "t" }],
    ["kernel_lost", { cause: { kind: "restart" }, state: { verdict: "lost", why: "restart" } }],
    ["kernel_started", { reason: "restarted", python: "3.11.2", warm: true, took_ms: 1 }],
  ));
  expect(notebook.widgets.all.get("s")).toMatchObject({ isAlive: false, state: { value: 4 } });
  expect([...notebook.widgets.closed]).toEqual(["t"]);
});

test("widgets that were reduced before are not changed by what comes later", () => {
  const events = log(...story);
  const before = reduce(EMPTY, events.slice(0, 12));
  const copy = JSON.stringify([[...before.widgets.all], [...before.widgets.unhandled], before.widgets.catching]);
  reduce(before, events);
  expect(JSON.stringify([[...before.widgets.all], [...before.widgets.unhandled], before.widgets.catching])).toBe(copy);
});

test("a change that the kernel did not take says why", () => {
  const notebook = reduce(EMPTY, log(
    open("s", "IntSliderModel"), update("s", { value: 1 }, null, "client"), ["comm_handled", { at_seq: 2, error: "no comm `s` in this kernel" }],
  ));
  expect(notebook.widgets.all.get("s")?.problem).toBe("no comm `s` in this kernel");
});

test("nothing that a kernel writes as the state of a widget breaks the notebook", () => {
  const odd: unknown[] = [null, 3, "x", [], [null], { state: null }, { method: "update", state: 7 }, { method: "update", state: { outputs: [null, {}], msg_id: 3, children: "no" } }];
  const events = odd.flatMap((data, index): Entry[] => [
    ["comm", { cell: null, from: "kernel", comm: "open", comm_id: `w${index}`, target_name: "jupyter.widget", data }],
    ["comm", { cell: null, from: "kernel", comm: "msg", comm_id: `w${index}`, data }],
  ]);
  expect(reduce(EMPTY, log(...events)).widgets.all.size).toBe(odd.length);
  expect(childrenOf({ children: ["IPY_MODEL_a", 7, "b", null] })).toEqual(["a"]);
});

test("markup that is nothing but text is text, and all other is not", () => {
  expect(plainMarkup("100%&nbsp;a &lt;b&gt; &#x27;c&#39; &unknown; 1 < 2")).toBe("100%\u00a0a <b> 'c' &unknown; 1 < 2");
  for (const markup of ["<b>x</b>", "<img src=x>", "</p>", "<!-- -->", "x <script>"]) expect(plainMarkup(markup)).toBeNull();
});

test("numbers are written as sliders want them", () => {
  expect([formatted(1234.5678, ".2f"), formatted(7, "d"), formatted(1234567, ",d"), formatted(0.25, ".0%"), formatted(1234.5, ".3g"), formatted(1.5, "odd")])
    .toEqual(["1234.57", "7", "1,234,567", "25%", "1230", "1.5"]);
});

// --- changes on their way ----------------------------------------------------------------------------------------------------

class Kernel {
  notebook: Notebook = reduce(EMPTY, log(open("s", "IntSliderModel", { value: 0 })));
  sent: Record<string, unknown>[] = [];
  complaints: unknown[] = [];
  fails = false;
  readonly changes = new Changes({
    notebook: () => this.notebook,
    send: (_widget, data) => {
      if (this.fails) return Promise.reject(new Error("cut off"));
      const { state } = data as { state: Record<string, unknown> };
      this.sent.push(state);
      this.takes({ event: "comm", cell: null, from: "client", comm: "msg", comm_id: "s", data });
      return Promise.resolve({});
    },
    redraw: () => undefined,
    complain: (error) => this.complaints.push(error),
  });

  takes(event: object): void {
    this.notebook = reduce(this.notebook, [{ seq: this.notebook.seq + 1, at_ms: 0, ...event } as Event]);
    this.changes.follow();
  }

  handles(): void {
    const [seq] = [...this.notebook.widgets.unhandled.keys()];
    this.takes({ event: "comm_handled", at_seq: seq });
  }
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("a slider that moves faster than the kernel handles it sends its first and its last state, and shows each", async () => {
  const kernel = new Kernel();
  for (let value = 1; value <= 50; value += 1) {
    kernel.changes.change("s", { value });
    expect(kernel.changes.shown("s")).toEqual({ value });
  }
  await vi.runAllTimersAsync();
  expect(kernel.sent).toEqual([{ value: 1 }]);
  kernel.handles();
  await vi.runAllTimersAsync();
  expect(kernel.sent).toEqual([{ value: 1 }, { value: 50 }]);
  // Until the kernel has handled it, it is shown as it was left.
  expect(kernel.changes.shown("s")).toEqual({ value: 50 });
  kernel.takes({ event: "comm", cell: null, from: "kernel", comm: "msg", comm_id: "s", data: { method: "update", state: { value: 40 } } });
  kernel.handles();
  await vi.runAllTimersAsync();
  expect(kernel.changes.shown("s")).toBeNull();
  expect(kernel.notebook.widgets.all.get("s")?.state["value"]).toBe(40);
});

test("a change that cannot be sent is taken back, and said", async () => {
  const kernel = new Kernel();
  kernel.fails = true;
  kernel.changes.change("s", { value: 3 });
  await vi.runAllTimersAsync();
  expect(kernel.changes.shown("s")).toBeNull();
  expect(kernel.complaints).toHaveLength(1);
});
