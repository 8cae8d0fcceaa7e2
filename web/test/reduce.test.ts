import { expect, test } from "vitest";
import { EMPTY, HEAVIEST, MOST_OUTPUTS, ORIGIN, reduce, type Notebook, type Output } from "../src/reduce.ts";
import { toldOfNotice } from "../src/verdict.ts";
import type { Event, EventKind } from "../src/wire.ts";
import { cell, log, random } from "./log.ts";

const opened: [EventKind, Record<string, unknown>?][] = [
  ["session_opened", { session: "s", reopened: false }],
  ["kernel_started", { reason: "opened", python: "3.11.2", warm: true, took_ms: 1 }],
];

function texts(outputs: readonly Output[]): string[] {
  return outputs.map((output) => (output.kind === "stream" ? `${output.name}: ${output.head}${output.tail}` : output.kind));
}

/** Everything that can be compared of a notebook. */
function whole(notebook: Notebook): unknown {
  return { ...notebook, executions: [...notebook.executions], latest: [...notebook.latest], displays: [...notebook.displays] };
}

/** A conversation with something of everything. */
function conversation(): Event[] {
  return log(
    ...opened,
    ...cell("a", "print(1)", [["stream", { name: "stdout", text: "1\n" }], ["stream", { name: "stderr", text: "careful\n" }]]),
    ...cell("b", "show", [
      ["display_data", { data: { "text/plain": "old" }, metadata: {}, display_id: "d" }],
      ["update_display_data", { data: { "text/plain": "new" }, metadata: {}, display_id: "d" }],
      ["clear_output", { wait: true }],
      ["stream", { name: "stdout", text: "after\n" }],
      ["execute_result", { execution_count: 2, data: { "text/plain": "42" }, metadata: {} }],
    ]),
    ["cell_queued", { cell: "c", code: "boom", position: 0, origin: `${ORIGIN}x` }],
    ["cell_queued", { cell: "d", code: "later", position: 1 }],
    ["cell_started", { cell: "c", execution_count: 3, deadline_at_ms: 31_000, ceiling_at_ms: 601_000 }],
    ["deadline_warning", { cell: "c", deadline_at_ms: 31_000, extendable_ms: 570_000 }],
    ["deadline_extended", { cell: "c", by_ms: 30_000, limit_ms: 60_000, deadline_at_ms: 61_000, extendable_ms: 540_000 }],
    ["input_requested", { cell: "c", request: "r", prompt: "?", password: false, deadline_at_ms: 90_000 }],
    ["input_closed", { cell: "c", request: "r", outcome: "answered", deadline_at_ms: 62_000 }],
    ["memory_warning", { cell: "c", used_bytes: 9, limit_bytes: 10 }],
    ["interrupted", { cell: "c", reason: "requested", rung: "sigint" }],
    ["error", { cell: "c", ename: "KeyboardInterrupt", evalue: "", traceback: ["…"] }],
    ["cell_finished", { cell: "c", status: "error", cause: { kind: "interrupted" }, state: { verdict: "kept" } }],
    ["cell_finished", { cell: "d", status: "aborted", cause: { kind: "earlier_error" }, state: { verdict: "kept" } }],
    ["stream", { cell: null, name: "stdout", text: "from a thread\n" }],
    ["kernel_lost", { cause: { kind: "killed_by_signal", signal: 11, name: "SIGSEGV" }, state: { verdict: "rolled_back", before: "c" } }],
    ["kernel_started", { reason: "rolled_back", python: "3.11.2", warm: false, took_ms: 5 }],
  );
}

test("what a cell shows stands in its order, and the two streams apart", () => {
  const notebook = reduce(EMPTY, conversation());
  expect(texts(notebook.executions.get("a")?.outputs ?? [])).toEqual(["stdout: 1\n", "stderr: careful\n"]);
});

test("clear_output(wait) clears when the next output comes", () => {
  const notebook = reduce(EMPTY, conversation());
  expect(texts(notebook.executions.get("b")?.outputs ?? [])).toEqual(["stdout: after\n", "bundle"]);
});

test("what was undone is marked, and nothing else", () => {
  const went = (state: Record<string, unknown>): [EventKind, Record<string, unknown>?][] => [
    ["kernel_lost", { cause: { kind: "undone" }, state }], ["kernel_started", { reason: "undone", python: "3.11.2", warm: false, took_ms: 5 }],
  ];
  const events = log(
    ...opened, ...cell("a", "1"), ["checkpoint_held", { name: "good", execution_count: 1 }], ...cell("b", "2"), ...cell("c", "3"),
    ...went({ verdict: "rolled_back", before: "c" }), ...cell("d", "4"),
  );
  const undone = (notebook: Notebook): string[] => [...notebook.executions.values()].filter((run) => run.isUndone).map((run) => run.cell);
  const notebook = reduce(EMPTY, events);
  expect(undone(notebook)).toEqual(["c"]);
  const then = (before: Notebook, ...entries: Parameters<typeof log>): Notebook => reduce(before, log(...entries).map((event) => ({ ...event, seq: event.seq + before.seq })));
  const later = then(notebook, ["checkpoint_held", { name: "later", execution_count: 4 }], ...went({ verdict: "restored", checkpoint: "good" }), ...cell("e", "5"));
  expect(undone(later)).toEqual(["b", "c", "d"]);
  // Going forward again brings back what that checkpoint has, and nothing else.
  expect(undone(then(later, ...went({ verdict: "restored", checkpoint: "later" })))).toEqual(["c", "e"]);
});

test("a title that is changed anywhere is the title here", () => {
  expect(reduce(EMPTY, log(...opened, ["labels_changed", { labels: { title: "Sales" } }])).labels).toEqual({ title: "Sales" });
});

test("a display is updated wherever it stands", () => {
  const events = log(
    ...cell("a", "h = display(…)", [["display_data", { data: { "text/plain": "0 %" }, metadata: {}, display_id: "d" }]]),
    ["cell_queued", { cell: "b", code: "h.update()", position: 0 }],
    ["update_display_data", { cell: "b", data: { "text/plain": "100 %" }, metadata: {}, display_id: "d" }],
  );
  expect(reduce(EMPTY, events).executions.get("a")?.outputs).toMatchObject([{ data: { "text/plain": "100 %" } }]);
});

test("wherever a log is cut, and whatever is read twice, the notebook is the same", () => {
  const events = conversation();
  const once = whole(reduce(EMPTY, events));
  const next = random(7);
  for (let round = 0; round < 200; round += 1) {
    let notebook = EMPTY;
    let at = 0;
    while (at < events.length) {
      const size = 1 + Math.floor(next() * 5);
      // Now and then some of it comes again, as after a reconnect that asked too early.
      const from = Math.max(0, at - Math.floor(next() * 3));
      notebook = reduce(notebook, events.slice(from, at + size));
      at += size;
    }
    expect(whole(notebook)).toEqual(once);
  }
});

test("a notebook that was reduced before is not changed by what comes later", () => {
  const events = conversation();
  const before = reduce(EMPTY, events.slice(0, 12));
  const copy = JSON.stringify(whole(before));
  reduce(before, events);
  expect(JSON.stringify(whole(before))).toBe(copy);
});

test("the running cell, the queue and the status follow the log", () => {
  const events = conversation();
  const running = reduce(EMPTY, events.slice(0, events.findIndex((event) => event.event === "deadline_warning") + 1));
  expect(running).toMatchObject({ status: "busy", running: "c", queue: ["d"] });
  expect(running.executions.get("c")).toMatchObject({ isWarned: true, extendableMs: 570_000, deadlineAt: 31_000 });
  expect(reduce(EMPTY, events)).toMatchObject({ status: "idle", running: null, queue: [] });
});

test("runs of one cell of the notebook replace each other, and the last one is shown", () => {
  const run = (id: string, text: string): [EventKind, Record<string, unknown>?][] => [
    ["cell_queued", { cell: id, code: text, position: 0, origin: `${ORIGIN}x` }],
    ["cell_started", { cell: id, execution_count: 1, deadline_at_ms: 1, ceiling_at_ms: 1 }],
    ["stream", { cell: id, name: "stdout", text }],
    ["cell_finished", { cell: id, status: "ok", state: { verdict: "kept" } }],
  ];
  const notebook = reduce(EMPTY, log(...run("a", "first"), ...run("b", "second")));
  expect(notebook.latest.get("x")).toBe("b");
  expect(notebook.executions.get("a")?.outputs).toEqual([]);
});

test("a loss is told where it happened, with its verdict", () => {
  const [notice] = reduce(EMPTY, conversation()).notices;
  expect(notice).toMatchObject({ kind: "rolled_back", after: "c", cause: { name: "SIGSEGV" }, state: { before: "c" } });
});

test("going back to a checkpoint is told as what somebody wanted, and one that went by itself is told", () => {
  const notebook = reduce(EMPTY, log(
    ...opened,
    ["checkpoint_held", { name: "loaded", execution_count: 0 }],
    ["kernel_lost", { cause: { kind: "rolled_back", to: "loaded" }, state: { verdict: "restored", checkpoint: "loaded" } }],
    ["kernel_started", { reason: "rolled_back", python: "3.11.2", warm: false, took_ms: 5, restored: "loaded" }],
    ["checkpoint_dropped", { name: "loaded", reason: "memory" }],
  ));
  expect(notebook).toMatchObject({ status: "idle", notices: [{ kind: "rolled_back" }, { kind: "dropped", text: "loaded" }] });
  expect(notebook.notices.map((notice) => toldOfNotice(notice, () => "a cell").tone)).toEqual(["calm", "warn"]);
});

test("text of a flood is held as head and tail, and the rest is named by range", () => {
  let notebook = reduce(EMPTY, log(["cell_queued", { cell: "a", code: "", position: 0 }]));
  let seq = 1;
  let written = 0;
  for (let batch = 0; batch < 100; batch += 1) {
    const events: Event[] = [];
    for (let index = 0; index < 20; index += 1) {
      const text = Array.from({ length: 100 }, (_, line) => `line ${batch * 2000 + index * 100 + line}\n`).join("");
      written += text.length;
      events.push({ seq: ++seq, at_ms: 0, event: "stream", cell: "a", name: "stdout", text });
    }
    notebook = reduce(notebook, events);
  }
  const [output] = notebook.executions.get("a")?.outputs ?? [];
  if (output?.kind !== "stream") throw new Error("it is a stream");
  expect(output.head.length + output.tail.length).toBeLessThan(200_000);
  expect(output.head.startsWith("line 0\nline 1\n")).toBe(true);
  expect(output.head.endsWith("\n")).toBe(true);
  expect(output.tail.endsWith("line 199999\n")).toBe(true);
  expect(output.headEnd).toBe(output.head.length);
  expect(output.head.length + output.leftOut + output.tail.length).toBe(written);
});

test("who comes late and is sent progress bars without what they overwrote knows where the rest was written", () => {
  const bars = Array.from({ length: 10_000 }, (_, index) => `\r${String(index).padStart(5)} of 10000, and on it goes with much more to say`);
  const lines = Array.from({ length: 30 }, (_, part) => Array.from({ length: 500 }, (_line, index) => `line ${part * 500 + index}\n`).join(""));
  const written = [...bars, ...lines];
  const all = written.join("");
  const live = reduce(EMPTY, log(["cell_queued", { cell: "a", code: "", position: 0 }], ...written.map((text): [EventKind, Record<string, unknown>] => ["stream", { cell: "a", name: "stdout", text }])));
  const late = reduce(EMPTY, log(
    ["cell_queued", { cell: "a", code: "", position: 0 }],
    ["stream", { cell: "a", name: "stdout", text: bars.at(-1) + (lines[0] ?? ""), from: 0, bytes: bars.join("").length + (lines[0]?.length ?? 0) }],
    ...lines.slice(1).map((text): [EventKind, Record<string, unknown>] => ["stream", { cell: "a", name: "stdout", text }]),
  ));
  for (const notebook of [live, late]) {
    const run = notebook.executions.get("a");
    const [output] = run?.outputs ?? [];
    if (output?.kind !== "stream" || output.headEnd === null) throw new Error("it is a stream with a gap");
    expect(run?.written.stdout).toBe(all.length);
    // What follows the head where it is read on, and what precedes the tail.
    expect(output.leftOut).toBeGreaterThan(0);
    expect(all.slice(0, output.headEnd).endsWith(output.head.slice(-1000))).toBe(true);
    expect(all.slice(output.headEnd + output.leftOut)).toBe(output.tail);
  }
});

test("where there is no cell to read from, what is left out is counted all the same", () => {
  const events = log(...Array.from({ length: 400 }, (): [EventKind, Record<string, unknown>] => ["stream", { cell: null, name: "stdout", text: `${"x".repeat(999)}\n` }]));
  const [output] = reduce(EMPTY, events).background;
  if (output?.kind !== "stream") throw new Error("it is a stream");
  expect(output.leftOut).toBeGreaterThan(0);
  expect(output.head.length + output.leftOut + output.tail.length).toBe(400_000);
});

test("of a cell that is run again and again the last runs are known, wherever the log was cut", () => {
  const runs = Array.from({ length: 3000 }, (_, index): [EventKind, Record<string, unknown>?][] => [
    ["cell_queued", { cell: `r${index}`, code: "x", position: 0, origin: `${ORIGIN}x` }],
    ["cell_started", { cell: `r${index}`, execution_count: index + 1, deadline_at_ms: 1, ceiling_at_ms: 1 }],
    ["cell_finished", { cell: `r${index}`, status: "ok", state: { verdict: "kept" } }],
  ]);
  const events = log(...runs.flat());
  const whole = reduce(EMPTY, events);
  expect(whole.executions.size).toBeLessThan(1200);
  expect(whole.executions.get("r2999")).toMatchObject({ status: "ok", count: 3000 });
  let parts = EMPTY;
  for (let at = 0; at < events.length; at += 7) parts = reduce(parts, events.slice(at, at + 7));
  expect(parts).toEqual(whole);
});

test("what the server left out is a gap with its range, and what comes after it is counted from there", () => {
  const notebook = reduce(EMPTY, log(
    ["cell_queued", { cell: "a", code: "", position: 0 }],
    ["stream", { cell: "a", name: "stdout", text: "head\n" }],
    ["elided", { cell: "a", first_seq: 3, streams: [{ name: "stdout", from: 5, bytes: 1000 }] }],
    ["stream", { cell: "a", name: "stdout", text: "tail\n" }],
  ));
  expect(notebook.executions.get("a")?.outputs).toMatchObject([{ head: "head\n", headEnd: 5, leftOut: 1000, tail: "tail\n" }]);
  expect(notebook.executions.get("a")?.written.stdout).toBe(1010);
});

test("of very many outputs the first and the last are held, and how many were between", () => {
  const shown = Array.from({ length: 1000 }, (_, index): [EventKind, Record<string, unknown>] => [
    "display_data", { data: { "text/plain": String(index) }, metadata: {} },
  ]);
  const outputs = reduce(EMPTY, log(...cell("a", "", shown))).executions.get("a")?.outputs ?? [];
  expect(outputs.length).toBe(MOST_OUTPUTS);
  const many = outputs.find((output) => output.kind === "many");
  expect(many).toMatchObject({ count: 1000 - MOST_OUTPUTS + 1 });
  expect(outputs.at(-1)).toMatchObject({ data: { "text/plain": "999" } });
});

test("of heavy outputs as many of the first and of the last are held as there is room for, the others are far, and an update brings one back", () => {
  const heavy = "x".repeat(HEAVIEST / 8);
  const shown = Array.from({ length: 20 }, (_, index): [EventKind, Record<string, unknown>] => [
    "display_data", { data: { "text/plain": `${index}`, "image/png": heavy }, metadata: {}, ...(index === 9 ? { display_id: "nine" } : {}) },
  ]);
  const events = log(...cell("a", "", shown), ["error", { cell: "a", ename: "E", evalue: heavy.repeat(8), traceback: [] }]);
  const kinds = (outputs: readonly Output[] | undefined): string => (outputs ?? []).map((output) => output.kind.charAt(0)).join("");
  const notebook = reduce(EMPTY, events.slice(0, -1));
  expect(kinds(notebook.executions.get("a")?.outputs)).toBe(`bbb${"f".repeat(14)}bbb`);
  expect(notebook.executions.get("a")?.outputs[9]).toMatchObject({ kind: "far", seq: 12 });
  expect(kinds(reduce(notebook, events).executions.get("a")?.outputs)).toBe(`bbb${"f".repeat(18)}`);
  const [, ...update] = log(["cell_queued", {}], ["update_display_data", { cell: null, data: { "text/plain": "light" }, metadata: {}, display_id: "nine" }]).map((event) => ({ ...event, seq: event.seq + 100 }));
  expect(reduce(notebook, update).executions.get("a")?.outputs[9]).toMatchObject({ kind: "bundle", data: { "text/plain": "light" } });
});

test("a kind of event that this page does not know is passed over", () => {
  const events = [...log(...opened), { seq: 3, at_ms: 1, event: "of_tomorrow", cell: "a" } as unknown as Event];
  expect(reduce(EMPTY, events)).toMatchObject({ seq: 3, status: "idle" });
});
