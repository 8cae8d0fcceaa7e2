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

/** A text of a cell that somebody wrote without having seen the one that stands. It stays until somebody has looked at it. */
export interface OtherText extends Stamp {
  readonly text: string;
}

/** The text that stands, and which versions of the cell's text, by whom, went into this document: one that is known and not there is done with. */
export interface Source extends Register<string> {
  readonly seen: Seen;
}

/** The last version of each writer that is known. */
export type Seen = Readonly<Record<string, number>>;

export interface DocCell {
  readonly kind: Register<CellKind>;
  readonly source: Source;
  readonly place: Register<string>;
  /** Deleted, in view of which versions of the text: whoever wrote another one meanwhile keeps the cell. */
  readonly deleted: Register<boolean> & { readonly seen: Seen };
  /** Oldest last. */
  readonly others: readonly OtherText[];
}

export interface Doc {
  readonly cells: Readonly<Record<string, DocCell>>;
}

export const EMPTY_DOC: Doc = { cells: {} };

/** Whether a cell is there. */
export function isAlive(cell: DocCell): boolean {
  return !(cell.deleted.value && texts(cell).every((version) => hasSeen(cell.deleted.seen, version)));
}

/** The other texts of a cell that say something else than the one that stands. */
export function otherTexts(cell: DocCell): readonly OtherText[] {
  return cell.others.length === 0 ? cell.others : cell.others.filter((other) => isTelling(cell, other));
}

function isTelling(cell: DocCell, { text }: OtherText): boolean {
  return text !== cell.source.value && text.trim() !== "";
}

/** The highest count in a document. */
export function clock(doc: Doc): number {
  let highest = 0;
  for (const { kind, source, place, deleted } of Object.values(doc.cells)) {
    highest = Math.max(highest, kind.n, source.n, place.n, deleted.n);
    // Every other text is among what was seen.
    for (const n of Object.values(source.seen)) highest = Math.max(highest, n);
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
  if (a === b || sameCell(a, b)) return a;
  const seen = union(a.source.seen, b.source.seen);
  // A version that only one has is new to the other, or the other has done with it.
  let versions = [...texts(a).filter((version) => !isDone(b, version)), ...texts(b).filter((version) => !isDone(a, version))];
  // Only a made-up document says of every version that it is done with. No text is lost by it.
  if (versions.length === 0) versions = [...texts(a), ...texts(b)];
  const merged: DocCell = {
    ...ofVersions(versions, seen), kind: later(a.kind, b.kind), place: later(a.place, b.place),
    deleted: { ...later(a.deleted, b.deleted), seen: sameStamp(a.deleted, b.deleted) ? union(a.deleted.seen, b.deleted.seen) : later(a.deleted, b.deleted).seen },
  };
  return sameCell(merged, a) ? a : merged;
}

/** All texts of a cell: the one that stands first. */
function texts({ source, others }: DocCell): OtherText[] {
  return [{ n: source.n, by: source.by, text: source.value }, ...others];
}

function isDone(cell: DocCell, version: Stamp): boolean {
  return hasSeen(cell.source.seen, version) && !texts(cell).some((known) => sameStamp(known, version));
}

/** Of these versions the latest stands, and the others are beside it. */
function ofVersions(versions: readonly OtherText[], seen: Seen): Pick<DocCell, "source" | "others"> {
  const [first, ...rest] = [...versions].sort(byAge);
  if (first === undefined) throw new Error("a cell has a text");
  let last = first;
  const others = rest.filter((version) => {
    const isAnother = !sameStamp(version, last);
    last = version;
    return isAnother;
  });
  return { source: { n: first.n, by: first.by, value: first.text, seen: union(seen, seenBy(versions)) }, others };
}

/** The latest first. Only what was taken over from the log, or made up, has one stamp and differs. */
function byAge(a: OtherText, b: OtherText): number {
  if (a.n !== b.n) return b.n - a.n;
  if (a.by !== b.by) return a.by > b.by ? -1 : 1;
  return a.text === b.text ? 0 : a.text > b.text ? -1 : 1;
}

function later<T extends Register<string> | Register<boolean>>(a: T, b: T): T {
  if (a.n !== b.n) return b.n > a.n ? b : a;
  if (a.by !== b.by) return b.by > a.by ? b : a;
  return b.value > a.value ? b : a;
}

function sameStamp(a: Stamp, b: Stamp): boolean {
  return a.n === b.n && a.by === b.by;
}

function sameRegister(a: Register<unknown>, b: Register<unknown>): boolean {
  return sameStamp(a, b) && a.value === b.value;
}

function hasSeen(seen: Seen, { n, by }: Stamp): boolean {
  return (seen[by] ?? -1) >= n;
}

function seenBy(versions: readonly Stamp[]): Seen {
  return versions.reduce((seen: Seen, { n, by }) => union(seen, { [by]: n }), {});
}

function union(a: Seen, b: Seen): Seen {
  const more = Object.entries(b).filter(([by, n]) => (a[by] ?? -1) < n);
  return more.length === 0 ? a : { ...a, ...Object.fromEntries(more) };
}

function sameSeen(a: Seen, b: Seen): boolean {
  const keys = Object.keys(a);
  return a === b || (keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]));
}

function sameCell(a: DocCell, b: DocCell): boolean {
  return (
    sameRegister(a.kind, b.kind) && sameRegister(a.source, b.source) && sameSeen(a.source.seen, b.source.seen) && sameRegister(a.place, b.place) &&
    sameRegister(a.deleted, b.deleted) && sameSeen(a.deleted.seen, b.deleted.seen) && a.others.length === b.others.length &&
    a.others.every((other, index) => {
      const known = b.others[index];
      return known !== undefined && sameStamp(other, known) && other.text === known.text;
    })
  );
}

/** Writes into documents, each write later than all that it has seen. A writer has a name that nobody had before. */
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
    return this.addAll(doc, [{ id, kind, source, place }]);
  }

  /** Adds many at once: a document is copied for each write. */
  addAll(doc: Doc, cells: readonly { id: string; kind: CellKind; source: string; place: string }[]): Doc {
    return withCells(doc, cells.map(({ id, kind, source, place }) => [id, fresh(this.stamp(), kind, source, place)]));
  }

  /** Takes over cells that only the log has. Whoever does so writes the same, and it counts as older than any edit. */
  adopt(doc: Doc, cells: readonly { id: string; source: string; place: string }[]): Doc {
    const unknown = cells.filter(({ id }) => doc.cells[id] === undefined);
    return withCells(doc, unknown.map(({ id, source, place }) => [id, fresh({ n: 0, by: "log" }, "code", source, place)]));
  }

  /** Writes another text in the place of the one that stands. The others stay, except for those that said nothing else. */
  edit(doc: Doc, id: string, source: string): Doc {
    return this.change(doc, id, (cell, stamp) => ({ ...cell, ...ofVersions([{ ...stamp, text: source }, ...otherTexts(cell)], cell.source.seen) }));
  }

  /**
   * Takes in a document while somebody is typing in a cell: their text stays where they type, and what came is kept beside it. Unless whoever wrote
   * that had all that was typed before them: two who are typing would answer each other for ever.
   */
  mergeBeside(doc: Doc, theirs: Doc, id: string): Doc {
    this.see(theirs);
    const merged = merge(doc, theirs);
    const [mine, their] = [doc.cells[id]?.source, theirs.cells[id]?.source];
    if (mine === undefined || their === undefined || hasSeen(their.seen, mine) || merged.cells[id]?.source.value === mine.value) return merged;
    return this.change(merged, id, (cell, stamp) => ({
      ...cell, ...ofVersions([{ ...stamp, text: mine.value }, ...texts(cell).filter((version) => !sameStamp(version, mine))], cell.source.seen),
    }));
  }

  setKind(doc: Doc, id: string, kind: CellKind): Doc {
    return this.change(doc, id, (cell, stamp) => ({ ...cell, kind: { ...stamp, value: kind } }));
  }

  move(doc: Doc, id: string, place: string): Doc {
    return this.change(doc, id, (cell, stamp) => ({ ...cell, place: { ...stamp, value: place } }));
  }

  setDeleted(doc: Doc, id: string, deleted: boolean): Doc {
    return this.change(doc, id, (cell, stamp) => ({ ...cell, deleted: { ...stamp, value: deleted, seen: cell.source.seen } }));
  }

  /** Forgets a text that is kept beside a cell. */
  dismiss(doc: Doc, id: string, other: Stamp): Doc {
    return this.change(doc, id, (cell) => ({ ...cell, others: cell.others.filter((known) => !sameStamp(known, other)) }));
  }

  private change(doc: Doc, id: string, how: (cell: DocCell, stamp: Stamp) => DocCell): Doc {
    const cell = doc.cells[id];
    return cell === undefined ? doc : withCells(doc, [[id, how(cell, this.stamp())]]);
  }
}

function fresh(stamp: Stamp, kind: CellKind, source: string, place: string): DocCell {
  return {
    kind: { ...stamp, value: kind }, place: { ...stamp, value: place }, deleted: { ...stamp, value: false, seen: {} },
    ...ofVersions([{ ...stamp, text: source }], {}),
  };
}

function withCells(doc: Doc, cells: readonly (readonly [string, DocCell])[]): Doc {
  return cells.length === 0 ? doc : { cells: { ...doc.cells, ...Object.fromEntries(cells) } };
}

export function toText(doc: Doc): string {
  return JSON.stringify({ format: "evercell-notebook", version: 1, cells: doc.cells }, null, 1);
}

/** Counts that are ahead of the clock on the wall by more than this are made up: it is what clocks may differ by, and more than anybody writes in one go. */
const AHEAD = 24 * 3600_000;

/**
 * Reads a document. Any program may have written the file, so what does not fit is left out, and null is what is no document at all. Whatever `toText`
 * has written is read back as it was.
 *
 * A count is bounded by the time in milliseconds: nobody writes more often than once in one, and who reads one that was made up can always count on
 * a little later. One that is higher is read as 0.
 */
export function fromText(text: string, now = Date.now()): Doc | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isRecord(value) || value["format"] !== "evercell-notebook" || !isRecord(value["cells"])) return null;
  const cells: Record<string, DocCell> = {};
  for (const [id, raw] of Object.entries(value["cells"])) {
    const cell = readCell(raw, now + AHEAD);
    if (cell !== null && isCellName(id)) cells[id] = cell;
  }
  return { cells };
}

/** Whether a text can name a cell of the document. */
export function isCellName(id: string): boolean {
  return /^[A-Za-z0-9-]{1,64}$/.test(id) && isFree(id);
}

/** Whether a text may be a key: not what every object has. */
function isFree(key: string): boolean {
  return !(key in Object.prototype);
}

function readCell(raw: unknown, most: number): DocCell | null {
  if (!isRecord(raw)) return null;
  const kind = readRegister(raw["kind"], most, (value): value is CellKind => value === "code" || value === "markdown");
  const source = readRegister(raw["source"], most, (value): value is string => typeof value === "string");
  const place = readRegister(raw["place"], most, isPlace);
  const deleted = readRegister(raw["deleted"], most, (value): value is boolean => typeof value === "boolean");
  if (kind === null || source === null || place === null || deleted === null) return null;
  const seen: Record<string, number> = readSeen(field(raw["source"], "seen"), most);
  const versions: OtherText[] = [{ n: source.n, by: source.by, text: source.value }];
  for (const other of Array.isArray(raw["others"]) ? (raw["others"] as unknown[]) : []) {
    const stamp = readStamp(other, most);
    if (stamp === null) continue;
    const text = field(other, "text");
    if (typeof text === "string") versions.push({ ...stamp, text });
    // Earlier pages wrote down so that a text was dismissed.
    if (text === null) seen[stamp.by] = Math.max(seen[stamp.by] ?? 0, stamp.n);
  }
  return { kind, place, deleted: { ...deleted, seen: readSeen(field(raw["deleted"], "seen"), most) }, ...ofVersions(versions, seen) };
}

function readRegister<T>(raw: unknown, most: number, fits: (value: unknown) => value is T): Register<T> | null {
  const stamp = readStamp(raw, most);
  const value = field(raw, "value");
  return stamp !== null && fits(value) ? { ...stamp, value } : null;
}

function readSeen(raw: unknown, most: number): Record<string, number> {
  const seen: Record<string, number> = {};
  for (const [by, n] of isRecord(raw) ? Object.entries(raw) : []) if (isCount(n) && n <= most && isWriter(by)) seen[by] = n;
  return seen;
}

function field(raw: unknown, name: string): unknown {
  return isRecord(raw) ? raw[name] : undefined;
}

function readStamp(raw: unknown, most: number): Stamp | null {
  const [n, by] = [field(raw, "n"), field(raw, "by")];
  return isCount(n) && typeof by === "string" && isWriter(by) ? { n: n <= most ? n : 0, by } : null;
}

function isWriter(by: string): boolean {
  return by.length <= 64 && isFree(by);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
