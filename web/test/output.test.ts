import { expect, test } from "vitest";
import { shownCells, type ShownCell } from "../src/cells.ts";
import { readTable } from "../src/csv.ts";
import { EMPTY_DOC } from "../src/document.ts";
import { fromIpynb, toIpynb, toPage, toScript, type WholeCell } from "../src/export.ts";
import { bytes, clock, duration, grant } from "../src/format.ts";
import { fromFrame, linkOf } from "../src/frame/messages.ts";
import { fromFile } from "../src/imported.ts";
import { jsonMarkup } from "../src/output/json.ts";
import { formOf } from "../src/output/mime.ts";
import { EMPTY, reduce } from "../src/reduce.ts";
import { offers } from "../src/offer.ts";
import { toldOfRun } from "../src/verdict.ts";
import { SANDBOX } from "../src/view/frame.tsx";
import { cell, log } from "./log.ts";

test("a frame may run scripts, and has no more rights than that", () => {
  expect(SANDBOX).toBe("allow-scripts");
});

test("of what a frame says only its own few words are heard", () => {
  expect(fromFrame({ type: "height", height: 12, extra: 1 })).toEqual({ type: "height", height: 12 });
  for (const forged of [null, 1, "ready", {}, { type: "html", html: "x" }, { type: "height", height: "12" }, { type: "height", height: Number.NaN }, { type: "link", url: "https://x/" }]) {
    expect(fromFrame(forged)).toBeNull();
  }
  expect(linkOf({ url: "https://x/" })).toBe("https://x/");
  for (const url of [1, "javascript:alert(1)", "data:text/html,x", `https://x/${"a".repeat(3000)}`]) expect(linkOf({ url })).toBeNull();
});

test("the richest form that can be drawn is drawn", () => {
  expect(formOf({ "text/plain": "x", "text/html": "<b>x</b>" }).kind).toBe("html");
  expect(formOf({ "text/plain": "x", "text/html": "<div>", "application/vnd.plotly.v1+json": {} }).kind).toBe("plotly");
  expect(formOf({ "application/vnd.vegalite.v5.20.1+json": {} })).toMatchObject({ kind: "vega", isLite: true });
  expect(formOf({ "text/plain": "<Figure>", "image/png": "AAAA" }).kind).toBe("image");
  expect(formOf({ "image/svg+xml": ["<svg>", "</svg>"] })).toEqual({ kind: "html", html: "<svg></svg>" });
  expect(formOf({ "application/x-mine": 1 })).toEqual({ kind: "unknown", types: ["application/x-mine"] });
});

test("a JSON tree is text in every place, and bounded", () => {
  expect(jsonMarkup({ "<b>": "<script>" })).not.toMatch(/<(b|script)>/);
  expect(jsonMarkup(Array.from({ length: 100_000 }, () => [1])).length).toBeLessThan(1_000_000);
});

const whole = ({ id, kind, source, run }: ShownCell): WholeCell => ({ id, kind, source, count: run?.count ?? null, outputs: run?.outputs ?? [], attachments: {} });

const shown = shownCells(EMPTY_DOC, reduce(EMPTY, log(...cell("a", "print('<b>')\n1", [
  ["stream", { name: "stdout", text: "<b>\n" }],
  ["display_data", { data: { "text/html": "<script>alert(1)</script>", "text/plain": "x" }, metadata: {} }],
  ["display_data", { data: { "image/png": "iVBORw0KGgo=\n" }, metadata: {} }],
  ["execute_result", { execution_count: 1, data: { "text/plain": "1" }, metadata: {} }],
  ["error", { ename: "E", evalue: "<i>", traceback: ["\x1b[31mE\x1b[0m: <i>"] }],
])))).map(whole);

test("a notebook goes out with its outputs and comes in again", () => {
  const text = toIpynb(shown, "3.11.2");
  const notebook = JSON.parse(text) as { cells: { outputs: { output_type: string }[] }[] };
  expect(notebook.cells[0]?.outputs.map((output) => output.output_type)).toEqual(["stream", "display_data", "display_data", "execute_result", "error"]);
  const back = fromIpynb(text);
  if (typeof back === "string") throw new Error(back);
  expect(back).toMatchObject([{ kind: "code", source: "print('<b>')\n1", extras: { count: 1 } }]);
  // Once more through a file of an import, and out again: the same.
  const imported = fromFile(JSON.stringify({ format: "evercell-imported", cells: { a: back[0]?.extras } })).get("a");
  expect(toIpynb([{ id: "a", kind: "code", source: "print('<b>')\n1", count: imported?.count ?? null, outputs: imported?.outputs ?? [], attachments: {} }], "3.11.2")).toBe(text);
  expect(toScript(shown)).toBe("# %%\nprint('<b>')\n1\n");
});

test("what is no notebook is refused with the reason", () => {
  expect(fromIpynb("{")).toMatch(/not JSON/);
  expect(fromIpynb("[]")).toMatch(/no cells/);
  expect(fromIpynb('{"nbformat": 3, "worksheets": []}')).toMatch(/old format/);
  expect(fromIpynb('{"cells": [{"cell_type": "code"}]}')).toMatch(/cell 1 has no source/);
});

test("what is read of an import is outputs, whatever stands in its file", () => {
  const outputs = (...values: unknown[]): unknown => fromFile(JSON.stringify({ format: "evercell-imported", cells: { a: { outputs: values, attachments: [1], count: "x" }, "<b>": {} } }));
  expect(fromFile("{").size + fromFile("[]").size + fromFile('{"cells": {"a": {}}}').size).toBe(0);
  expect(outputs(1, null, { output_type: "mine" }, { output_type: "stream", text: 7 }, { output_type: "error", traceback: [1] }, { output_type: "display_data", data: [] })).toEqual(new Map([["a", {
    attachments: {}, count: null,
    outputs: [expect.objectContaining({ kind: "stream", head: "" }), expect.objectContaining({ kind: "error", traceback: ["1"] }), expect.objectContaining({ kind: "bundle", data: {} })],
  }]]));
});

test("a page that is saved has outputs as text, and their markup in frames without scripts", () => {
  const page = toPage("<title>", shown, { cellMarkup: (text) => text, latexMarkup: (text) => text });
  expect(page).not.toContain("<title><title>");
  expect(page).not.toContain("<script>");
  expect(page).toContain('sandbox=""');
  expect(page).toContain("&#60;b&#62;");
});

test("a table's separator and the types of its columns are found", () => {
  const table = readTable('city;people;share;since\nParis;2103000;0.5;2020-01-01\n"Lyon; Rhône";522000;NA;2021-05-06\nhalf', false);
  expect(table).toMatchObject({ header: ["city", "people", "share", "since"], types: ["text", "whole number", "number", "date"] });
  expect(table?.rows).toEqual([["Paris", "2103000", "0.5", "2020-01-01"], ["Lyon; Rhône", "522000", "NA", "2021-05-06"]]);
});

test("a verdict says what ended a cell and what became of the variables", () => {
  const told = (end: Record<string, unknown>): unknown => {
    const run = reduce(EMPTY, log(...cell("a", "x", [], end))).executions.get("a");
    return run === undefined ? null : toldOfRun(run, () => "cell [1]");
  };
  expect(told({})).toBeNull();
  expect(told({ status: "error", cause: { kind: "exception" } })).toBeNull();
  expect(told({ status: "error", cause: { kind: "deadline" }, state: { verdict: "rolled_back", before: "a" } })).toEqual({
    tone: "warn", title: "Stopped at its deadline.", detail: "Your variables are as they were before this cell.",
  });
  expect(told({ status: "error", cause: { kind: "killed_by_signal", name: "SIGSEGV" }, state: { verdict: "lost", why: "there was no checkpoint" } })).toEqual({
    tone: "bad", title: "The kernel was killed by SIGSEGV.", detail: "Your variables are lost: there was no checkpoint.",
  });
});

test("no offer of more time is beyond the ceiling, and what is left of it is offered", () => {
  const run = (extendableMs: number): readonly number[] => {
    const events = log(["cell_queued", { cell: "a", code: "x", position: 0 }], ["cell_started", { cell: "a", execution_count: 1, deadline_at_ms: 0, ceiling_at_ms: extendableMs }]);
    const execution = reduce(EMPTY, events).executions.get("a");
    return execution === undefined ? [] : offers(execution);
  };
  expect([900, 12_345, 30_000, 90_000, 900_000].map(run)).toEqual([[], [12_000], [30_000], [30_000, 90_000], [30_000, 120_000]]);
  expect([12_000, 90_000, 120_000].map(grant)).toEqual(["+12 s", "+1 min 30 s", "+2 min"]);
});

test("times and sizes read well", () => {
  expect([0, 59_999, 61_000, 3_723_000].map(clock)).toEqual(["0:00", "0:59", "1:01", "1:02:03"]);
  expect([4, 1300, 45_000, 125_000].map(duration)).toEqual(["4 ms", "1.3 s", "45 s", "2 min 5 s"]);
  expect([5, 1500, 2_000_000].map(bytes)).toEqual(["5 B", "1.5 kB", "2.0 MB"]);
});
