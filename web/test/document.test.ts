import { expect, test } from "vitest";
import { shownCells } from "../src/cells.ts";
import { EMPTY_DOC, fromText, isAlive, merge, toText, Writer, type Doc } from "../src/document.ts";
import { between, isPlace } from "../src/place.ts";
import { EMPTY, ORIGIN, reduce } from "../src/reduce.ts";
import { cell, log, random } from "./log.ts";

test("there is always a place between two places", () => {
  const next = random(1);
  const places = [between("", null)];
  for (let round = 0; round < 3000; round += 1) {
    const index = Math.floor(next() * (places.length + 1));
    const place = between(places[index - 1] ?? "", places[index] ?? null);
    places.splice(index, 0, place);
    expect(isPlace(place)).toBe(true);
  }
  expect([...places].sort((a, b) => (a < b ? -1 : 1))).toEqual(places);
});

test("whoever merges the same versions, in whatever order, has the same document", () => {
  const next = random(5);
  for (let round = 0; round < 200; round += 1) {
    const writers = ["a", "b", "c"].map((by) => new Writer(by));
    let docs: Doc[] = writers.map(() => EMPTY_DOC);
    const ids = ["x", "y", "z"];
    for (let step = 0; step < 25; step += 1) {
      const who = Math.floor(next() * 3);
      const writer = writers[who] as Writer;
      const id = ids[Math.floor(next() * 3)] ?? "x";
      let doc = docs[who] as Doc;
      const what = Math.floor(next() * 6);
      if (doc.cells[id] === undefined) doc = what < 3 ? writer.adopt(doc, id, "old", "V") : writer.add(doc, id, "code", `by ${writer.by}`, between("", null));
      else if (what === 0) doc = writer.edit(doc, id, `${writer.by} ${step}`);
      else if (what === 1) doc = writer.setDeleted(doc, id, next() < 0.5);
      else if (what === 2) doc = writer.move(doc, id, between("", doc.cells[id]?.place.value ?? null));
      else if (what === 3) doc = writer.setKind(doc, id, "markdown");
      else {
        const other = docs[Math.floor(next() * 3)] as Doc;
        writer.see(other);
        doc = merge(doc, other);
      }
      docs = docs.with(who, doc);
    }
    const [a, b, c] = docs as [Doc, Doc, Doc];
    const orders = [merge(merge(a, b), c), merge(merge(c, a), b), merge(merge(b, c), a), merge(a, merge(b, merge(c, a)))];
    const sorted = orders.map((doc) => Object.fromEntries(Object.entries(doc.cells).sort().map(([id, { others: _, ...rest }]) => [id, rest])));
    for (const other of sorted) expect(other).toEqual(sorted[0]);
    const once = orders[0] as Doc;
    expect(merge(once, once)).toBe(once);
    expect(merge(once, a)).toBe(once);
  }
});

test("of two who edit one cell at once the later stands, and the other text is kept until it is dismissed", () => {
  const [ann, bob] = [new Writer("ann"), new Writer("bob")];
  const start = ann.add(EMPTY_DOC, "x", "code", "start", "V");
  bob.see(start);
  const anns = ann.edit(start, "x", "ann's text");
  const bobs = bob.edit(bob.edit(start, "x", "bob"), "x", "bob's text");
  const merged = merge(anns, bobs);
  expect(merged.cells["x"]?.source.value).toBe("bob's text");
  expect(merged.cells["x"]?.others).toEqual([{ by: "ann", n: expect.any(Number) as number, text: "ann's text" }]);
  expect(merge(bobs, anns).cells["x"]?.others).toEqual(merged.cells["x"]?.others);
  ann.see(merged);
  const [other] = merged.cells["x"]?.others ?? [];
  if (other === undefined) throw new Error("there is one");
  const dismissed = ann.dismiss(merged, "x", other);
  expect(merge(merge(anns, bobs), dismissed).cells["x"]?.others).toMatchObject([{ by: "ann", text: null }]);
});

test("who edits what he has seen overwrites it, and nothing is kept beside it", () => {
  const [ann, bob] = [new Writer("ann"), new Writer("bob")];
  const start = ann.add(EMPTY_DOC, "x", "code", "start", "V");
  bob.see(start);
  const bobs = bob.edit(start, "x", "better");
  expect(merge(start, bobs).cells["x"]).toMatchObject({ source: { value: "better" }, others: [] });
});

test("a cell that one deletes while the other writes in it stays", () => {
  const [ann, bob] = [new Writer("ann"), new Writer("bob")];
  const start = ann.add(EMPTY_DOC, "x", "code", "start", "V");
  bob.see(start);
  const merged = merge(ann.setDeleted(start, "x", true), bob.edit(start, "x", "not lost"));
  const kept = merged.cells["x"];
  expect(kept !== undefined && isAlive(kept)).toBe(true);
});

test("a document that any program may have written is read as far as it makes sense", () => {
  const doc = new Writer("ann").add(EMPTY_DOC, "x", "code", "1", "V");
  expect(fromText(toText(doc))).toEqual(doc);
  for (const text of ["", "{", "[]", "null", '{"cells": 3}', '{"format": "other", "cells": {}}']) expect(fromText(text)).toBeNull();
  const broken = JSON.parse(toText(doc)) as { cells: Record<string, unknown> };
  Object.assign(broken.cells, { y: null, z: { kind: 3 }, "<b>": broken.cells["x"], __proto__: 1 });
  broken.cells["w"] = { ...(broken.cells["x"] as object), place: { n: 1, by: "a", value: "<script>" } };
  broken.cells["v"] = { ...(broken.cells["x"] as object), source: { n: 1e300, by: "a", value: "x" } };
  expect(Object.keys(fromText(JSON.stringify(broken))?.cells ?? {})).toEqual(["x"]);
});

test("runs of others stand behind what had run before them, and before what was never run", () => {
  const ann = new Writer("ann");
  const doc = ann.add(ann.add(EMPTY_DOC, "x", "code", "x", between("", null)), "draft", "code", "not run", between(between("", null), null));
  const notebook = reduce(EMPTY, log(
    ["cell_queued", { cell: "r1", code: "x", position: 0, origin: `${ORIGIN}x` }],
    ["cell_started", { cell: "r1", execution_count: 1, deadline_at_ms: 1, ceiling_at_ms: 1 }],
    ["cell_finished", { cell: "r1", status: "ok", state: { verdict: "kept" } }],
    ...cell("agent-1", "one", []),
    ...cell("agent-2", "two", []),
  ));
  expect(shownCells(doc, notebook).map(({ id }) => id)).toEqual(["x", "agent-1", "agent-2", "draft"]);
});

test("without a document the notebook is the log, and what did not change is the same object", () => {
  const first = reduce(EMPTY, log(...cell("a", "one", [["stream", { name: "stdout", text: "1" }]]), ...cell("b", "two", [])));
  const before = shownCells(EMPTY_DOC, first);
  expect(before.map(({ source }) => source)).toEqual(["one", "two"]);
  const second = reduce(first, [{ seq: 100, at_ms: 1, event: "stream", cell: "b", name: "stdout", text: "more" }]);
  const after = shownCells(EMPTY_DOC, second, before);
  expect(after[0]).toBe(before[0]);
  expect(after[1]).not.toBe(before[1]);
  expect(shownCells(EMPTY_DOC, second, after)).toBe(after);
});

test("a cell that was taken over from the log gives way to every edit of it", () => {
  const [ann, bob] = [new Writer("ann"), new Writer("bob")];
  const anns = ann.edit(ann.adopt(EMPTY_DOC, "x", "from the log", "V"), "x", "ann's");
  const bobs = bob.add(bob.adopt(EMPTY_DOC, "x", "from the log", "V"), "y", "code", "", "W");
  expect(merge(bobs, anns).cells["x"]).toMatchObject({ source: { value: "ann's" }, others: [] });
});
