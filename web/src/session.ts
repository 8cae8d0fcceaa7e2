// One open session as the page has it: the reduced log, the document, what is selected; and what can be done with it.

import { titleOf, type Api } from "./api.ts";
import { shownCells, type ShownCell } from "./cells.ts";
import { Connection, type Link } from "./connection.ts";
import { EMPTY_DOC, isAlive, merge, Writer, type CellKind, type Doc, type Stamp } from "./document.ts";
import { freshId } from "./id.ts";
import { keepImported, readImported, type Extras, type Imported } from "./imported.ts";
import { offers } from "./offer.ts";
import { Outbox } from "./outbox.ts";
import { between } from "./place.ts";
import { EMPTY, ORIGIN, reduce, type Execution, type Notebook } from "./reduce.ts";
import { DocumentFile, type Reach, type Saved } from "./sync.ts";
import { Changes } from "./widgets/changes.ts";
import type { Event, SessionBody, StreamName } from "./wire.ts";

export type Mode = "command" | "edit";

export interface Toast {
  readonly id: number;
  readonly text: string;
  readonly isError: boolean;
  readonly action: { label: string; run: () => void } | null;
}

/** What the page draws. A new object whenever anything in it has changed. */
export interface View {
  readonly notebook: Notebook;
  readonly cells: readonly ShownCell[];
  readonly link: Link;
  readonly saved: Saved;
  readonly selected: string | null;
  /** Where a selection of several cells begins; the selected cell is its other end. */
  readonly anchor: string | null;
  readonly mode: Mode;
  /** Markdown cells whose source is shown. */
  readonly opened: ReadonlySet<string>;
  /** Cells whose outputs are folded away. */
  readonly folded: ReadonlySet<string>;
  readonly hasLineNumbers: boolean;
  /** What came with cells that were imported. */
  readonly imported: ReadonlyMap<string, Imported>;
  readonly toasts: readonly Toast[];
  readonly body: SessionBody | null;
  /** Cells that are to be run and the server has not taken yet. */
  readonly unsent: ReadonlySet<string>;
  /** Whether what was in the log when the page came has been read. */
  readonly isCaughtUp: boolean;
  /** What lies over the page. */
  readonly dialog: Dialog | null;
}

export type Dialog =
  | { kind: "picture"; address: string; label: string }
  | { kind: "output"; cell: string; stream: StreamName }
  | { kind: "link"; url: string }
  /** Dangerous is what there is no way back from. */
  | { kind: "confirm"; title: string; text: string; yes: string; isDangerous?: boolean; run: () => void }
  | { kind: "rename" }
  | { kind: "help" };

/** How long after a key press somebody counts as typing. */
const STILL_TYPING = 4_000;

export class Session {
  private doc: Doc = EMPTY_DOC;
  private readonly writer: Writer;
  private readonly file: DocumentFile;
  private readonly connection: Connection;
  private readonly listeners = new Set<(isUrgent: boolean) => void>();
  private deletions: string[][] = [];
  private clipboard: { kind: CellKind; source: string }[] = [];
  private lastEdit: { id: string | null; at: number } = { id: null, at: 0 };
  private nextToast = 1;
  private target = 0;
  /** How the editor is entered that comes to have the keyboard next. */
  entering: "start" | "end" | "find" | null = null;
  /** Which log was read, once it is known. */
  private log: string | null = null;
  private readonly outbox: Outbox;
  view: View;
  /** What is changed in widgets here. */
  readonly changes = new Changes({
    notebook: () => this.view.notebook,
    send: (widget, data) => this.ask("comm", { comm: "msg", comm_id: widget, data }),
    redraw: () => this.set({}),
    complain: (error) => this.complain(error),
  });

  constructor(readonly api: Api, readonly id: string) {
    this.writer = new Writer(freshId(8));
    this.view = {
      notebook: EMPTY, cells: [], link: { state: "connecting" }, saved: { state: "loading" }, selected: null, anchor: null, mode: "command",
      opened: new Set(), folded: new Set(), hasLineNumbers: false, imported: new Map(), toasts: [], body: null, unsent: new Set(), isCaughtUp: false,
      dialog: null,
    };
    this.connection = new Connection(api, id, {
      onBody: (body) => this.takeBody(body),
      after: () => this.view.notebook.seq,
      onEvents: (events) => this.takeEvents(events),
      onLink: (link) => this.takeLink(link),
      onGap: (after) => this.set({ notebook: { ...EMPTY, seq: after } }),
    });
    this.file = new DocumentFile(api, id, this.writer.by, {
      doc: () => this.doc,
      onRead: (doc) => this.takeDoc(doc),
      onSaved: (saved) => this.set({ saved }),
      reach: () => reachOver(this.view.link),
    });
    this.outbox = new Outbox(
      {
        // The key makes it safe to send it again after a break: it runs once.
        execute: ({ slot, code }, key, after) => this.ask("execute", { code, origin: ORIGIN + slot, key, ...(after === null ? {} : { after }) }),
        cancel: (cell) => void this.ask("cancel", { cell }).catch(() => undefined),
        reopen: () => this.openAgain(),
      },
      { onChange: () => this.set({ unsent: this.outbox.slots }), onRefused: (error) => this.complain(error) },
    );
  }

  open(): void {
    this.connection.open();
    this.file.start();
  }

  close(): void {
    this.changes.close();
    this.outbox.close();
    this.file.close();
    this.connection.close();
    this.listeners.clear();
  }

  /** Calls back when something has changed; urgent is what somebody did here, and what the next key press may depend on. */
  subscribe(listener: (isUrgent: boolean) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Now, by the server's clock. */
  now(): number {
    return this.api.now();
  }

  // --- what comes in -----------------------------------------------------------------------------------------------------

  private set(change: Partial<View>): void {
    const view = { ...this.view, ...change };
    if (change.selected !== undefined && change.anchor === undefined) view.anchor = null;
    if (change.notebook !== undefined || change.unsent !== undefined) view.cells = shownCells(this.doc, view.notebook, view.cells, view.unsent);
    this.view = view;
    for (const listener of [...this.listeners]) listener(change.notebook === undefined);
  }

  private takeEvents(events: Event[]): void {
    const notebook = reduce(this.view.notebook, events);
    this.set({ notebook, isCaughtUp: this.view.isCaughtUp || notebook.seq >= this.target });
    this.changes.follow();
    this.outbox.follow(events);
  }

  private takeBody(body: SessionBody): void {
    if (this.log !== null && this.log !== body.log) this.beginAnew();
    if (this.log !== body.log) this.file.setLog(body.log);
    this.log = body.log;
    this.target = body.head;
    this.set({ body, isCaughtUp: this.view.notebook.seq >= body.head });
  }

  /** The session was deleted and made anew: nothing of what is here belongs to it. */
  private beginAnew(): void {
    this.file.beginAnew();
    this.outbox.clear();
    this.doc = EMPTY_DOC;
    this.lastEdit = { id: null, at: 0 };
    this.deletions = [];
    this.set({ notebook: EMPTY, selected: null, mode: "command", opened: new Set(), isCaughtUp: false });
    this.toast("This session was deleted and made anew. What you see from here on is the new one.");
  }

  private takeLink(link: Link): void {
    const before = this.view.link.state;
    this.set({ link });
    if (link.state !== before) this.file.nudge();
    this.outbox.setLink(link.state === "live" || link.state === "ended" ? link.state : "away");
  }

  private takeDoc(theirs: Doc): void {
    this.writer.see(theirs);
    const { id, at } = this.lastEdit;
    // An import of somebody else comes as new cells.
    if (Object.keys(theirs.cells).some((cell) => this.doc.cells[cell] === undefined)) void this.lookForImported();
    const isTyping = id !== null && Date.now() - at < STILL_TYPING;
    // Nobody's text changes under their hands.
    this.setDoc(isTyping ? this.writer.mergeBeside(this.doc, theirs, id) : merge(this.doc, theirs));
  }

  private setDoc(doc: Doc): void {
    if (doc === this.doc) return;
    this.doc = doc;
    this.set({ cells: shownCells(doc, this.view.notebook, this.view.cells, this.view.unsent) });
  }

  // --- the document ------------------------------------------------------------------------------------------------------

  private write(how: (doc: Doc) => Doc): void {
    // From the first change on, the document knows every cell that is shown, so that all keep their places.
    this.setDoc(how(this.writer.adopt(this.doc, this.view.cells.filter((cell) => !cell.isInDoc))));
    this.file.changed();
  }

  edit(id: string, source: string): void {
    if (this.cell(id)?.source === source) return;
    this.lastEdit = { id, at: Date.now() };
    this.write((doc) => this.writer.edit(doc, id, source));
  }

  cell(id: string | null): ShownCell | undefined {
    return this.view.cells.find((cell) => cell.id === id);
  }

  /** What to call the cell of a run: by its number, if it has one. */
  nameOf(run: string): string {
    const count = this.view.notebook.executions.get(run)?.count;
    return count === null || count === undefined ? "an earlier cell" : `cell [${count}]`;
  }

  index(id: string | null): number {
    return this.view.cells.findIndex((cell) => cell.id === id);
  }

  /** Puts a new cell before the cell at `index`, and selects it. */
  insert(index: number, kind: CellKind = "code", source = "", mode: Mode = "edit"): string {
    const id = freshId();
    this.write((doc) => this.writer.add(doc, id, kind, source, this.placeAt(index)));
    const opened = new Set(this.view.opened);
    if (kind === "markdown" && mode === "edit") opened.add(id);
    this.set({ selected: id, mode, opened });
    return id;
  }

  private placeAt(index: number, without: string | null = null): string {
    const cells = this.view.cells.filter((cell) => cell.id !== without);
    const before = cells[index - 1]?.place ?? "";
    const after = cells.slice(index).find((cell) => cell.place > before)?.place ?? null;
    return between(before, after);
  }

  insertBeside(side: "above" | "below"): void {
    const index = this.index(this.view.selected);
    this.insert(index < 0 ? this.view.cells.length : index + (side === "below" ? 1 : 0), "code", "", "command");
  }

  move(id: string, by: -1 | 1): void {
    const index = this.index(id);
    const to = index + by;
    if (index < 0 || to < 0 || to >= this.view.cells.length) return;
    this.write((doc) => this.writer.move(doc, id, this.placeAt(to, id)));
  }

  remove(...ids: readonly string[]): void {
    const index = this.index(ids[0] ?? null);
    if (index < 0) return;
    this.write((doc) => ids.reduce((all, id) => this.writer.setDeleted(all, id, true), doc));
    this.deletions.push([...ids]);
    const next = this.view.cells[Math.min(index, this.view.cells.length - 1)];
    this.set({ selected: next?.id ?? null, mode: "command" });
    this.toast(ids.length === 1 ? "Cell deleted" : `${ids.length} cells deleted`, { label: "Undo", run: () => this.undoRemove() });
  }

  undoRemove(): void {
    const ids = this.deletions.pop();
    if (ids === undefined) return;
    this.write((doc) => ids.reduce((all, id) => this.writer.setDeleted(all, id, false), doc));
    this.set({ selected: ids[0] ?? null, toasts: this.view.toasts.filter((toast) => toast.action?.label !== "Undo") });
  }

  copy(cells: readonly ShownCell[]): void {
    if (cells.length > 0) this.clipboard = cells.map(({ kind, source }) => ({ kind, source }));
  }

  paste(side: "above" | "below" = "below"): void {
    const chosen = this.chosen();
    let index = side === "above" ? Math.max(0, this.index(chosen[0]?.id ?? null)) : this.index(chosen.at(-1)?.id ?? null) + 1;
    for (const { kind, source } of this.clipboard) this.insert(index++, kind, source, "command");
  }

  setKind(id: string, kind: CellKind): void {
    this.write((doc) => this.writer.setKind(doc, id, kind));
    if (kind === "markdown") this.setOpened(id, true);
  }

  dismissOther(id: string, other: Stamp): void {
    this.write((doc) => this.writer.dismiss(doc, id, other));
  }

  /** What to call the session. What the log says of it is never older than what the server said when the page came to it. */
  get title(): string {
    return titleOf(this.id, this.view.notebook.labels ?? this.view.body?.settings.labels);
  }

  /** Puts the cells of a notebook at the end, with what came with them. Returns of how many cells that was too much. */
  async import(cells: readonly { kind: CellKind; source: string; extras: Extras }[]): Promise<number> {
    const named = cells.map((cell) => ({ ...cell, id: freshId() }));
    const { kept, left } = await keepImported(this.api, this.id, named);
    this.set({ imported: new Map([...this.view.imported, ...kept]) });
    this.write((doc) => {
      let place = this.view.cells.at(-1)?.place ?? "";
      return this.writer.addAll(doc, named.map(({ id, kind, source }) => ({ id, kind, source, place: (place = between(place, null)) })));
    });
    return left;
  }

  /** Reads what others have imported. */
  private async lookForImported(): Promise<void> {
    const read = await readImported(this.api, this.id);
    if (read.size > 0) this.set({ imported: new Map([...this.view.imported, ...read]) });
  }

  hasDeleted(): boolean {
    return this.deletions.some((ids) => ids.some((id) => this.doc.cells[id] !== undefined && !isAlive(this.doc.cells[id])));
  }

  flush(): Promise<void> {
    return this.file.flush();
  }

  // --- selection ---------------------------------------------------------------------------------------------------------

  select(id: string | null, mode: Mode = "command"): void {
    if (this.view.selected !== id || this.view.mode !== mode || this.view.anchor !== null) this.set({ selected: id, mode });
  }

  /** Goes into the editor of a cell: to its beginning, to its end, or to find something in it. */
  enter(id: string, how: "start" | "end" | "find"): void {
    this.entering = how;
    this.select(id, "edit");
  }

  selectBy(by: -1 | 1): void {
    const cell = this.beside(by);
    if (cell !== undefined) this.select(cell.id);
  }

  /** The cell above or below the selected one; that one itself where there is none. */
  beside(by: -1 | 1): ShownCell | undefined {
    const index = this.index(this.view.selected);
    return this.view.cells[index < 0 ? 0 : Math.min(Math.max(index + by, 0), this.view.cells.length - 1)];
  }

  /** Takes the cells up to one into the selection. */
  chooseTo(id: string | undefined): void {
    if (id !== undefined) this.set({ selected: id, anchor: this.view.anchor ?? this.view.selected, mode: "command" });
  }

  /** The selected cells, in their order. */
  chosen(): readonly ShownCell[] {
    const ends = [this.index(this.view.selected), this.index(this.view.anchor)].filter((index) => index >= 0);
    return ends.length === 0 ? [] : this.view.cells.slice(Math.min(...ends), Math.max(...ends) + 1);
  }

  fold(cells: readonly ShownCell[]): void {
    const folded = new Set(this.view.folded);
    const isFolding = cells.some((cell) => !folded.has(cell.id));
    for (const { id } of cells) if (isFolding) folded.add(id); else folded.delete(id);
    this.set({ folded });
  }

  toggleLineNumbers(): void {
    this.set({ hasLineNumbers: !this.view.hasLineNumbers });
  }

  setOpened(id: string, isOpened: boolean): void {
    const opened = new Set(this.view.opened);
    if (isOpened) opened.add(id);
    else opened.delete(id);
    this.set({ opened });
  }

  // --- running -----------------------------------------------------------------------------------------------------------

  /** Runs a cell, or draws it if it is text. */
  run(id: string): void {
    const cell = this.cell(id);
    if (cell?.kind === "markdown") this.setOpened(id, false);
    else if (cell !== undefined && cell.source.trim() !== "") this.outbox.add([{ slot: id, code: cell.source }]);
  }

  /** Does not run what waits to be sent. */
  unsend(id: string): void {
    this.outbox.remove(id);
  }

  runAndAdvance(id: string): void {
    this.run(id);
    const next = this.view.cells[this.index(id) + 1];
    if (next === undefined) this.insert(this.view.cells.length, "code", "", "edit");
    else this.select(next.id, "command");
  }

  runAndInsert(id: string): void {
    this.run(id);
    this.insert(this.index(id) + 1, "code", "", "edit");
  }

  runAll(): void {
    for (const cell of this.view.cells) if (cell.kind === "markdown") this.setOpened(cell.id, false);
    const code = this.view.cells.filter((cell) => cell.kind === "code" && cell.source.trim() !== "");
    this.outbox.add(code.map(({ id, source }) => ({ slot: id, code: source })), true);
  }

  async rename(title: string): Promise<void> {
    try {
      this.set({ body: await this.api.rename(this.id, title) });
    } catch (error) {
      this.complain(error);
    }
  }

  confirmEnd(): void {
    this.show({
      kind: "confirm", title: "End this session?", text: "Its kernel, its files and its log are removed. There is no way back.", yes: "End and remove", isDangerous: true,
      run: () => void this.api.end(this.id).then(() => { location.hash = "#/"; }, (error: unknown) => this.complain(error)),
    });
  }

  runningCell(): Execution | null {
    const { running, executions } = this.view.notebook;
    return running === null ? null : (executions.get(running) ?? null);
  }

  /** Gives the running cell more time; as much as it is offered first, if it is not said. */
  extend(byMs?: number): void {
    const run = this.runningCell();
    if (run === null) return;
    const time = byMs ?? offers(run)[0];
    if (time === undefined) return this.toast("This cell has all the time that it may have");
    this.command("extend", { cell: run.cell, by_ms: time });
  }

  interrupt(): void {
    this.outbox.clear();
    this.command("interrupt");
  }

  cancel(cell: string): void {
    this.command("cancel", { cell });
  }

  confirmRestart(): void {
    this.show({
      kind: "confirm", title: "Restart the kernel?", text: "Variables are lost, and what runs and waits is stopped. Files, cells and their outputs stay.",
      yes: "Restart", run: () => { this.outbox.clear(); this.command("restart"); },
    });
  }

  confirmUndo(): void {
    this.show({
      kind: "confirm", title: "Undo the last cell?", text: "Variables go back to what they were before it. What it shows, and the files it wrote, stay. There is no redo.",
      yes: "Undo it", run: () => this.command("undo"),
    });
  }

  confirmGoBack(checkpoint: string): void {
    this.show({
      kind: "confirm", title: `Go back to “${checkpoint}”?`, text: "Variables go back to what they were when it was made; those of now are gone unless they have a checkpoint too. Outputs and files stay.",
      yes: "Go back", run: () => this.command("rollback", { checkpoint }),
    });
  }

  answer(request: string, value: string | null): void {
    this.command("input", value === null ? { request, eof: true } : { request, value });
  }

  /** Opens the session again after it has ended. */
  async reopen(): Promise<void> {
    try {
      await this.openAgain();
    } catch (error) {
      this.complain(error);
    }
  }

  private async openAgain(): Promise<void> {
    await this.api.open(this.id);
    this.connection.retryNow();
  }

  retryNow(): void {
    this.connection.retryNow();
  }

  ask<T>(op: string, fields: Record<string, unknown> = {}): Promise<T> {
    return this.connection.send<T>(op, fields);
  }

  private command(op: string, fields: Record<string, unknown> = {}): void {
    this.connection.send(op, fields).catch((error: unknown) => this.complain(error));
  }

  // --- what lies over the page -----------------------------------------------------------------------------------------

  show(dialog: Dialog | null): void {
    this.set({ dialog });
  }

  showPicture(address: string, label: string): void {
    this.show({ kind: "picture", address, label });
  }

  showOutput(cell: string, stream: StreamName): void {
    this.show({ kind: "output", cell, stream });
  }

  /**
   * An output's link was followed. Where it leads is shown before it is opened: the address itself could carry something out. It never takes the place of
   * another question.
   */
  offerLink(url: string): void {
    if (this.view.dialog === null) this.show({ kind: "link", url });
  }

  // --- messages ----------------------------------------------------------------------------------------------------------

  complain(error: unknown): void {
    const text = error instanceof Error ? error.message : String(error);
    this.toast(text.charAt(0).toUpperCase() + text.slice(1), null, true);
  }

  toast(text: string, action: Toast["action"] = null, isError = false): void {
    const toast: Toast = { id: this.nextToast++, text, isError, action };
    this.set({ toasts: [...this.view.toasts.filter((other) => other.text !== toast.text).slice(-2), toast] });
    setTimeout(() => this.dismissToast(toast.id), isError ? 12_000 : 8_000);
  }

  dismissToast(id: number): void {
    if (this.view.toasts.some((toast) => toast.id === id)) this.set({ toasts: this.view.toasts.filter((toast) => toast.id !== id) });
  }
}

/** How far the workspace can be reached over a link. */
function reachOver(link: Link): Reach {
  switch (link.state) {
    case "live": return { can: "write" };
    case "ended": return { can: "read", why: "the session has ended" };
    case "refused":
    case "waiting": return { can: "nothing", why: link.why };
    case "connecting": return { can: "nothing", why: "the connection is being made" };
  }
}
