// The notebook document: which cells there are, in which order, with what text, run or not. It lies in a file of the workspace that several tabs,
// people and programs write without asking each other, so it is made to be merged: whoever merges the same versions, in whatever order, gets the
// same document, and no text is lost. Pure.
//
// The rule for two editors of one cell: the later edit stands, and the other text is kept beside it until somebody has looked at it.

import { isPlace } from "./place.ts";

export type CellKind = "code" | "markdown";

/** When something was written: a count that grows with all that its writer has seen, and the writer. */
export interface Stamp {
  readonly n: number;
  readonly by: string;
}

export interface Register<T> extends Stamp {
  readonly value: T;
}

/** A text that was overwritten by somebody who had not seen it; null when it was dismissed. */
export interface OtherText extends Stamp {
  readonly text: string | null;
}

/** A source, and which versions of it by whom were seen by who wrote it. */
export interface Source extends Register<string> {
  readonly seen: Readonly<Record<string, number>>;
}

export interface DocCell {
  readonly kind: Register<CellKind>;
  readonly source: Source;
  readonly place: Register<string>;
  /** Deleted, in view of which versions of the source: whoever wrote another one meanwhile keeps the cell. */
  readonly deleted: Register<boolean> & { readonly seen: Readonly<Record<string, number>> };
  readonly others: readonly OtherText[];
}

export interface Doc {
  readonly cells: Readonly<Record<string, DocCell>>;
}

export const EMPTY_DOC: Doc = { cells: {} };

const MOST_CELLS = 5000;
const LONGEST_SOURCE = 4 * 1024 * 1024;
const MOST_OTHERS = 8;

/** Whether a cell is there. */
export function isAlive(cell: DocCell): boolean {
  return !(cell.deleted.value && (cell.deleted.seen[cell.source.by] ?? -1) >= cell.source.n);
}

/** The highest count in a document. */
export function clock(doc: Doc): number {
  let highest = 0;
  for (const cell of Object.values(doc.cells)) {
    highest = Math.max(highest, cell.kind.n, cell.source.n, cell.place.n, cell.deleted.n, ...cell.others.map((other) => other.n));
  }
  return highest;
}

/** What both documents say. */
export function merge(a: Doc, b: Doc): Doc {
  if (a === b) return a;
  const cells: Record<string, DocCell> = { ...a.cells };
  let isChanged = false;
  for (const [id, theirs] of Object.entries(b.cells)) {
    const ours = cells[id];
    const merged = ours === undefined ? theirs : mergeCell(ours, theirs);
    if (merged !== ours) {
      cells[id] = merged;
      isChanged = true;
    }
  }
  return isChanged ? { cells } : a;
}

function mergeCell(a: DocCell, b: DocCell): DocCell {
  const source = mergeSource(a.source, b.source);
  const others = mergeOthers([...a.others, ...b.others, ...overwritten(a.source, b.source)], source.value);
  const merged: DocCell = {
    kind: later(a.kind, b.kind), source, place: later(a.place, b.place), deleted: later(a.deleted, b.deleted), others,
  };
  return sameCell(merged, a) ? a : merged;
}

function mergeSource(a: Source, b: Source): Source {
  const winner = later(a, b);
  const seen: Record<string, number> = { ...a.seen };
  for (const [by, n] of Object.entries(b.seen)) seen[by] = Math.max(seen[by] ?? 0, n);
  return sameSeen(seen, winner.seen) ? winner : { ...winner, seen };
}

/** The text of the two that loses without having been seen by who wrote the other. */
function overwritten(a: Source, b: Source): OtherText[] {
  const winner = later(a, b);
  const loser = winner === a ? b : a;
  const wasSeen = (winner.seen[loser.by] ?? -1) >= loser.n;
  return wasSeen || loser.value === winner.value ? [] : [{ n: loser.n, by: loser.by, text: loser.value }];
}

function mergeOthers(all: readonly OtherText[], current: string): OtherText[] {
  const newest = new Map<string, OtherText>();
  for (const other of all) {
    const known = newest.get(other.by);
    // Of the same version, the one that was dismissed.
    if (known === undefined || other.n > known.n || (other.n === known.n && other.text === null)) newest.set(other.by, other);
  }
  return [...newest.values()]
    .map((other) => (other.text === current || other.text?.trim() === "" ? { ...other, text: null } : other))
    .sort((x, y) => y.n - x.n || (x.by < y.by ? -1 : 1))
    .slice(0, MOST_OTHERS);
}

function later<T extends Register<string> | Register<boolean>>(a: T, b: T): T {
  if (a.n !== b.n) return b.n > a.n ? b : a;
  if (a.by !== b.by) return b.by > a.by ? b : a;
  // Only what was taken over from the log has one stamp and may differ.
  return b.value > a.value ? b : a;
}

function sameStamp(a: Stamp, b: Stamp): boolean {
  return a.n === b.n && a.by === b.by;
}

function sameSeen(a: Readonly<Record<string, number>>, b: Readonly<Record<string, number>>): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]);
}

function sameCell(a: DocCell, b: DocCell): boolean {
  return (
    sameStamp(a.kind, b.kind) && sameStamp(a.source, b.source) && sameSeen(a.source.seen, b.source.seen) && sameStamp(a.place, b.place) &&
    sameStamp(a.deleted, b.deleted) && a.others.length === b.others.length &&
    a.others.every((other, index) => {
      const known = b.others[index];
      return known !== undefined && sameStamp(other, known) && other.text === known.text;
    })
  );
}

/** Writes into documents, each write later than all that it has seen. */
export class Writer {
  private n = 0;

  constructor(readonly by: string) {}

  /** Takes note of a document, so that what is written next is later than all in it. */
  see(doc: Doc): void {
    this.n = Math.max(this.n, clock(doc));
  }

  private stamp(): Stamp {
    this.n += 1;
    return { n: this.n, by: this.by };
  }

  add(doc: Doc, id: string, kind: CellKind, source: string, place: string): Doc {
    const stamp = this.stamp();
    return withCell(doc, id, {
      kind: { ...stamp, value: kind },
      source: { ...stamp, value: source, seen: { [this.by]: stamp.n } },
      place: { ...stamp, value: place },
      deleted: { ...stamp, value: false, seen: {} },
      others: [],
    });
  }

  /** Takes over a cell that only the log has. Whoever does so writes the same, and it counts as older than any edit. */
  adopt(doc: Doc, id: string, source: string, place: string): Doc {
    if (doc.cells[id] !== undefined) return doc;
    const stamp: Stamp = { n: 0, by: "log" };
    return withCell(doc, id, {
      kind: { ...stamp, value: "code" },
      source: { ...stamp, value: source, seen: { log: 0 } },
      place: { ...stamp, value: place },
      deleted: { ...stamp, value: false, seen: {} },
      others: [],
    });
  }

  edit(doc: Doc, id: string, source: string): Doc {
    return this.change(doc, id, (cell, stamp) => ({
      ...cell,
      source: { ...stamp, value: source, seen: { ...cell.source.seen, [cell.source.by]: cell.source.n, [this.by]: stamp.n } },
    }));
  }

  setKind(doc: Doc, id: string, kind: CellKind): Doc {
    return this.change(doc, id, (cell, stamp) => ({ ...cell, kind: { ...stamp, value: kind } }));
  }

  move(doc: Doc, id: string, place: string): Doc {
    return this.change(doc, id, (cell, stamp) => ({ ...cell, place: { ...stamp, value: place } }));
  }

  setDeleted(doc: Doc, id: string, deleted: boolean): Doc {
    return this.change(doc, id, (cell, stamp) => ({
      ...cell,
      deleted: { ...stamp, value: deleted, seen: { ...cell.source.seen, [cell.source.by]: cell.source.n } },
    }));
  }

  /** Forgets a text that is kept beside a cell. */
  dismiss(doc: Doc, id: string, other: Stamp): Doc {
    return this.change(doc, id, (cell) => ({
      ...cell,
      others: cell.others.map((known) => (sameStamp(known, other) ? { ...known, text: null } : known)),
    }));
  }

  private change(doc: Doc, id: string, how: (cell: DocCell, stamp: Stamp) => DocCell): Doc {
    const cell = doc.cells[id];
    return cell === undefined ? doc : withCell(doc, id, how(cell, this.stamp()));
  }
}

function withCell(doc: Doc, id: string, cell: DocCell): Doc {
  return { cells: { ...doc.cells, [id]: cell } };
}

export function toText(doc: Doc): string {
  return JSON.stringify({ format: "evercell-notebook", version: 1, cells: doc.cells }, null, 1);
}

/** Reads a document. Any program may have written the file, so what does not fit is left out, and null is what is no document at all. */
export function fromText(text: string): Doc | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isRecord(value) || value["format"] !== "evercell-notebook" || !isRecord(value["cells"])) return null;
  const cells: Record<string, DocCell> = {};
  for (const [id, raw] of Object.entries(value["cells"]).slice(0, MOST_CELLS)) {
    const cell = readCell(raw);
    if (cell !== null && isCellName(id)) cells[id] = cell;
  }
  return { cells };
}

/** Whether a text can name a cell of the document. */
export function isCellName(id: string): boolean {
  return /^[A-Za-z0-9-]{1,64}$/.test(id);
}

function readCell(raw: unknown): DocCell | null {
  if (!isRecord(raw)) return null;
  const kind = readRegister(raw["kind"], (value): value is CellKind => value === "code" || value === "markdown");
  const source = readRegister(raw["source"], (value): value is string => typeof value === "string" && value.length <= LONGEST_SOURCE);
  const place = readRegister(raw["place"], isPlace);
  const deleted = readRegister(raw["deleted"], (value): value is boolean => typeof value === "boolean");
  if (kind === null || source === null || place === null || deleted === null) return null;
  const others: OtherText[] = [];
  for (const other of Array.isArray(raw["others"]) ? raw["others"].slice(0, MOST_OTHERS) : []) {
    if (isRecord(other) && isStamp(other) && (other["text"] === null || typeof other["text"] === "string")) {
      others.push({ n: other.n, by: other.by, text: other["text"] });
    }
  }
  return {
    kind, place, others,
    source: { ...source, seen: readSeen(field(raw["source"], "seen")) },
    deleted: { ...deleted, seen: readSeen(field(raw["deleted"], "seen")) },
  };
}

function readRegister<T>(raw: unknown, fits: (value: unknown) => value is T): Register<T> | null {
  if (!isRecord(raw) || !isStamp(raw)) return null;
  const value = raw["value"];
  return fits(value) ? { n: raw.n, by: raw.by, value } : null;
}

function readSeen(raw: unknown): Record<string, number> {
  const seen: Record<string, number> = {};
  if (isRecord(raw)) {
    for (const [by, n] of Object.entries(raw).slice(0, 1000)) if (isCount(n) && by.length <= 64) seen[by] = n;
  }
  return seen;
}

function field(raw: unknown, name: string): unknown {
  return isRecord(raw) ? raw[name] : undefined;
}

function isStamp(value: Record<string, unknown>): value is Record<string, unknown> & Stamp {
  return isCount(value["n"]) && typeof value["by"] === "string" && value["by"].length <= 64;
}

/** A count that leaves room to count on: a made-up one must not be the last. */
function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 52;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
