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
      const other = doc.cells[id]?.others[0];
      if (doc.cells[id] === undefined) doc = what < 3 ? writer.adopt(doc, [{ id, source: "old", place: "V" }]) : writer.add(doc, id, "code", `by ${writer.by}`, between("", null));
      else if (what === 0) doc = writer.edit(doc, id, `${writer.by} ${step}`);
      else if (what === 1) doc = writer.setDeleted(doc, id, next() < 0.5);
      else if (what === 2) doc = writer.move(doc, id, between("", doc.cells[id]?.place.value ?? null));
      else if (what === 3) doc = other === undefined ? writer.setKind(doc, id, "markdown") : next() < 0.5 ? writer.dismiss(doc, id, other) : doc;
      else {
        const other = docs[Math.floor(next() * 3)] as Doc;
        writer.see(other);
        doc = merge(doc, other);
      }
      docs = docs.with(who, doc);
    }
    const [a, b, c] = docs as [Doc, Doc, Doc];
    const orders = [merge(merge(a, b), c), merge(merge(c, a), b), merge(merge(b, c), a), merge(a, merge(b, merge(c, a)))];
    for (const other of orders) expect(other).toEqual(orders[0]);
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
  for (const old of [anns, bobs, merged]) {
    expect(merge(dismissed, old).cells["x"]?.others).toEqual([]);
    expect(merge(old, dismissed).cells["x"]?.others).toEqual([]);
  }
});

test("each of many texts that were overwritten unseen is kept, also of one writer, until somebody has looked at it", () => {
  const [ann, bob] = [new Writer("ann"), new Writer("bob")];
  let [anns, bobs] = [ann.add(EMPTY_DOC, "x", "code", "start", "V"), EMPTY_DOC];
  for (let round = 0; round < 12; round += 1) {
    bobs = merge(bobs, anns);
    bob.see(bobs);
    bobs = bob.edit(bobs, "x", `bob ${round}`);
    ann.see(anns);
    anns = ann.edit(ann.edit(anns, "x", "still typing"), "x", `ann ${round}`);
    // The later text stands, and both have seen it.
    anns = merge(anns, bobs);
    bobs = anns;
  }
  expect(anns.cells["x"]?.others.map(({ text }) => text).sort()).toEqual(Array.from({ length: 12 }, (_, round) => `bob ${round}`).sort());
  const edited = merge(bob.edit(bobs, "x", "seen all of it"), anns);
  expect(edited.cells["x"]?.others).toHaveLength(12);
});

test("who goes on typing keeps both texts, and of two who do neither answers the other for ever", () => {
  for (const [first, second] of [["ann", "bob"], ["bob", "ann"]] as const) {
    const [ann, bob] = [new Writer(first), new Writer(second)];
    const start = ann.add(EMPTY_DOC, "x", "code", "start", "V");
    bob.see(start);
    let anns = ann.edit(start, "x", "ann is ty");
    let bobs = bob.edit(start, "x", "bob is ty");
    anns = ann.mergeBeside(anns, bobs, "x");
    expect(anns.cells["x"]).toMatchObject({ source: { value: "ann is ty" }, others: [{ text: "bob is ty" }] });
    for (const merged of [merge(anns, bobs), merge(bobs, anns)]) expect(merged.cells["x"]).toEqual(anns.cells["x"]);
    // He has typed more, which she had not seen.
    bobs = bob.mergeBeside(bob.edit(bobs, "x", "bob is typing"), anns, "x");
    expect(bobs.cells["x"]).toMatchObject({ source: { value: "bob is typing" }, others: [{ text: "ann is ty" }] });
    // From here on both have seen it all, so it stays as it is, and what is dismissed is.
    anns = ann.mergeBeside(anns, bobs, "x");
    expect(bob.mergeBeside(bobs, anns, "x")).toBe(bobs);
    const dismissed = bob.dismiss(bobs, "x", bobs.cells["x"]?.others[0] ?? { n: 0, by: "" });
    anns = ann.mergeBeside(anns, dismissed, "x");
    expect(anns.cells["x"]).toMatchObject({ source: { value: "bob is typing" }, others: [] });
  }
});

test("a text beside a cell that says the same, or nothing, is not shown and goes with the next edit", () => {
  const [ann, bob] = [new Writer("ann"), new Writer("bob")];
  const start = ann.add(EMPTY_DOC, "x", "code", "start", "V");
  bob.see(start);
  for (const text of ["same", " "]) {
    const merged = merge(ann.edit(start, "x", text), bob.edit(bob.edit(start, "x", "b"), "x", "same"));
    const shown = shownCells(merged, EMPTY);
    expect([shown[0]?.source, shown[0]?.others]).toEqual(["same", []]);
    ann.see(merged);
    expect(ann.edit(merged, "x", "next").cells["x"]?.others).toEqual([]);
  }
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

test("what is written is read back as it was, whatever was written before", () => {
  const next = random(11);
  const pick = <T>(all: readonly T[]): T => all[Math.floor(next() * all.length)] as T;
  for (let round = 0; round < 6; round += 1) {
    const now = 1_800_000_000_000;
    const writers = ["a", "b"].map((by) => new Writer(by));
    let doc = EMPTY_DOC;
    let made = 0;
    for (let step = 0; step < 60; step += 1) {
      const writer = pick(writers);
      const cells = Object.entries(doc.cells).sort(([, x], [, y]) => (x.place.value < y.place.value ? -1 : 1));
      const at = Math.floor(next() * (cells.length + 1));
      const [id] = cells[at] ?? [""];
      const what = Math.floor(next() * 8);
      writer.see(doc);
      if (what === 0) {
        let place = cells.at(-1)?.[1].place.value ?? "";
        doc = writer.addAll(doc, Array.from({ length: 400 }, () => ({ id: `c${(made += 1)}`, kind: "code", source: "\ud800 \0", place: (place = between(place, null)) })));
      } else if (what === 1) doc = writer.edit(doc, id, "x".repeat(5 * 1024 * 1024 * (next() < 0.02 ? 1 : 0)));
      else if (what === 2) doc = writer.setDeleted(doc, id, true);
      else if (what === 3) doc = writer.setKind(doc, id, "markdown");
      else if (what === 4) doc = merge(doc, writer.edit(doc, id, "of another branch"));
      else if (what === 5) {
        // A program writes what no page would, as a count that is the last one.
        const n = pick([2 ** 53 - 1, 2 ** 52 - 1, now + 23 * 3600_000, 1e300, -1, 7]);
        const raw = { n, by: pick(["evil", "__proto__", "constructor", "a"]) };
        const cell = { kind: { ...raw, value: "code" }, source: { ...raw, value: "evil", seen: { a: n } }, place: { ...raw, value: "zzzzzz1" }, deleted: { ...raw, value: false, seen: {} }, others: [{ ...raw, text: "more" }] };
        const ids = ["constructor", "__proto__", "x y", id, `c${(made += 1)}`].map((name) => `${JSON.stringify(name)}: ${JSON.stringify(cell)}`);
        const hostile = fromText(`{"format": "evercell-notebook", "version": 1, "cells": {${ids.join(", ")}}}`, now);
        if (hostile === null) throw new Error("it can be read");
        doc = merge(doc, hostile);
      } else doc = writer.add(doc, `c${(made += 1)}`, "code", "new", between(cells[at - 1]?.[1].place.value ?? "", cells[at]?.[1].place.value ?? null));
    }
    // What was written meanwhile took its time.
    expect(fromText(toText(doc), now + 10_000)).toEqual(doc);
  }
});

test("whatever count a program makes up, what is written after it stands", () => {
  const ann = new Writer("ann");
  const now = 1_800_000_000_000;
  for (const n of [now, now + 86_400_000, 2 ** 52 - 1, 2 ** 53 - 1]) {
    const start = ann.add(EMPTY_DOC, "x", "code", "start", "V");
    const hostile = JSON.parse(toText(start)) as { cells: { x: { kind: object; source: object } } };
    hostile.cells.x.source = { n, by: "evil", value: "evil", seen: { ann: n, evil: n } };
    hostile.cells.x.kind = { n, by: "evil", value: "markdown" };
    const read = fromText(JSON.stringify(hostile), now);
    if (read === null) throw new Error("it can be read");
    const doc = merge(start, read);
    ann.see(doc);
    const written = fromText(toText(ann.setKind(ann.edit(doc, "x", "mine"), "x", "code")), now + 1000);
    if (written === null) throw new Error("it can be read");
    expect(merge(read, written).cells["x"]).toMatchObject({ source: { value: "mine" }, kind: { value: "code" } });
  }
});

test("places stay short however many cells follow one another, at either end and between two", () => {
  for (const [low, high] of [["", null], ["A", "B"], ["z", null], ["A", "A1"]] as const) {
    let [place, longest] = [low as string, 0];
    for (let count = 0; count < 5000; count += 1) {
      const following = between(place, high);
      expect(following > place && (high === null || following < high) && isPlace(following)).toBe(true);
      place = following;
      longest = Math.max(longest, place.length);
    }
    let before: string | null = high;
    for (let count = 0; count < 5000; count += 1) {
      const preceding: string = between(low, before);
      expect(preceding > low && (before === null || preceding < before) && isPlace(preceding)).toBe(true);
      before = preceding;
      longest = Math.max(longest, preceding.length);
    }
    expect(longest).toBeLessThan(12);
  }
});

test("a cell that a client has named as no cell may be named is shown under the name of its run", () => {
  const notebook = reduce(EMPTY, log(["cell_queued", { cell: "r1", code: "x", position: 0, origin: `${ORIGIN}constructor` }], ["cell_queued", { cell: "r2", code: "y", position: 1, origin: `${ORIGIN}a b` }]));
  const shown = shownCells(EMPTY_DOC, notebook);
  expect(shown.map(({ id }) => id)).toEqual(["r1", "r2"]);
  const ann = new Writer("ann");
  const doc = shown.reduce((all, cell) => ann.adopt(all, [cell]), EMPTY_DOC);
  expect(fromText(toText(doc))).toEqual(doc);
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

test("a run of others stays where it was when the cell before it is run again", () => {
  const ann = new Writer("ann");
  const doc = ann.add(EMPTY_DOC, "x", "code", "x", between("", null));
  const run = (name: string): Parameters<typeof log> => [
    ["cell_queued", { cell: name, code: "x", position: 0, origin: `${ORIGIN}x` }],
    ["cell_started", { cell: name, execution_count: 1, deadline_at_ms: 1, ceiling_at_ms: 1 }],
    ["cell_finished", { cell: name, status: "ok", state: { verdict: "kept" } }],
  ];
  const notebook = reduce(EMPTY, log(...run("r1"), ...cell("agent-1", "one", []), ...run("r2"), ...cell("agent-2", "two", [])));
  const cells = shownCells(doc, notebook);
  expect(cells.map(({ id }) => id)).toEqual(["x", "agent-1", "agent-2"]);
  expect(cells.map(({ place }) => place)).toEqual(cells.map(({ place }) => place).sort());
});

test("the order of cells is made anew only when the document changes or something new is run", () => {
  let looks = 0;
  const cells = new Proxy(new Writer("ann").add(EMPTY_DOC, "x", "code", "x", "V").cells, { ownKeys: (target) => ((looks += 1), Reflect.ownKeys(target)) });
  const doc = { cells };
  let notebook = reduce(EMPTY, log(...Array.from({ length: 2000 }, (_, index) => cell(`agent-${index}`, "", [])).flat()));
  let shown = shownCells(doc, notebook);
  expect([shown.length, looks]).toEqual([2001, 1]);
  for (let seq = notebook.seq + 1; seq < 9_000; seq += 1) {
    notebook = reduce(notebook, [{ seq, at_ms: 1, event: "stream", cell: "agent-1999", name: "stdout", text: "more" }]);
    if (seq % 1000 === 0) shown = shownCells(doc, notebook, shown);
  }
  expect([shown.length, looks]).toEqual([2001, 1]);
  shownCells(doc, reduce(notebook, [{ seq: 30_000, at_ms: 1, event: "cell_queued", cell: "new", code: "", position: 0 } as never]), shown);
  expect(looks).toBe(2);
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
  const anns = ann.edit(ann.adopt(EMPTY_DOC, [{ id: "x", source: "from the log", place: "V" }]), "x", "ann's");
  const bobs = bob.add(bob.adopt(EMPTY_DOC, [{ id: "x", source: "from the log", place: "V" }]), "y", "code", "", "W");
  expect(merge(bobs, anns).cells["x"]).toMatchObject({ source: { value: "ann's" }, others: [] });
});
