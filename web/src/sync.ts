// Keeps the notebook document in the session's workspace, merged with what others write there, and a copy in this browser in case the workspace
// cannot be reached.

import { ApiError, type Api } from "./api.ts";
import { Copies } from "./copies.ts";
import { fromText, merge, toText, type Doc } from "./document.ts";
import { utf8Length } from "./text.ts";

export const NOTEBOOK_FILE = ".evercell/notebook.json";

/** Where what was last written stands. */
export type Saved =
  | { state: "loading" }
  | { state: "saved" }
  | { state: "saving" }
  /** Only this browser has it. */
  | { state: "here"; why: string }
  /** Only this page has it, and would lose it. */
  | { state: "unkept"; why: string };

/** How far the workspace can be reached at the moment. */
export type Reach =
  | { can: "write" }
  | { can: "read" | "nothing"; why: string };

const SAVE_AFTER = 500;
/** Who types without a pause is saved all the same. */
const SAVE_WITHIN = 5_000;
const KEEP_AFTER = 1_000;
/** How much of the time may go into copies: one part in so many. */
const KEEP_SHARE = 20;
const LOOK_EVERY = 2_000;
const RETRY_AFTER = 5_000;
const LARGEST = 64 * 1024 * 1024;

export interface Holder {
  doc(): Doc;
  /** Takes in a document that was read. */
  onRead(doc: Doc): void;
  onSaved(saved: Saved): void;
  reach(): Reach;
}

export class DocumentFile {
  private tag: string | null = null;
  /** What was written last: who reads that knows it. */
  private written: string | null = null;
  /** Since when something is here that the workspace lacks. */
  private dirtySince: number | null = null;
  private isBusy = false;
  private isClosed = false;
  private isRead = false;
  /** Why it could not be written or read the last time. */
  private problem: string | null = null;
  private keepProblem: string | null = null;
  private saved: Saved = { state: "loading" };
  private timer: ReturnType<typeof setTimeout> | undefined;
  private keepTimer: ReturnType<typeof setTimeout> | undefined;
  private keepPause = KEEP_AFTER;
  private copies: Copies | null = null;
  private readonly leave = (): void => this.keep();

  constructor(private readonly api: Api, private readonly session: string, private readonly page: string, private readonly holder: Holder) {
    addEventListener("pagehide", this.leave);
    document.addEventListener("visibilitychange", this.leave);
  }

  /** Reads the file, then looks at it from time to time. */
  start(): void {
    void this.exchange();
  }

  /** Which log this is becomes known, or that it is another one: copies that this browser has of it are of use. */
  setLog(log: string): void {
    this.copies = new Copies(this.session, log, this.page);
    for (const text of this.copies.adopt()) {
      const doc = fromText(text);
      if (doc === null) continue;
      this.holder.onRead(doc);
      this.changed();
    }
  }

  /** What is here belongs to a session that is no more; the file is another one's. */
  beginAnew(): void {
    this.keep();
    clearTimeout(this.keepTimer);
    this.keepTimer = undefined;
    this.copies = this.tag = this.written = this.dirtySince = this.problem = null;
    this.isRead = false;
    this.report();
    this.nudge();
  }

  /** The document was changed here. */
  changed(): void {
    this.dirtySince ??= Date.now();
    this.keepTimer ??= setTimeout(() => this.keep(), this.keepPause);
    if (this.isRead) this.schedule(Math.max(0, Math.min(SAVE_AFTER, this.dirtySince + SAVE_WITHIN - Date.now())));
    this.report();
  }

  /** Others may have changed it, or it can be reached again. */
  nudge(): void {
    if (!this.isBusy) this.schedule(100);
    this.report();
  }

  /** Writes what is to be written, and waits for it. */
  async flush(): Promise<void> {
    this.keep();
    if (this.dirtySince !== null) await this.exchange();
  }

  close(): void {
    this.keep();
    if (this.dirtySince !== null) void this.exchange();
    this.isClosed = true;
    clearTimeout(this.timer);
    clearTimeout(this.keepTimer);
    removeEventListener("pagehide", this.leave);
    document.removeEventListener("visibilitychange", this.leave);
  }

  private keep(): void {
    clearTimeout(this.keepTimer);
    this.keepTimer = undefined;
    if (this.copies === null || this.dirtySince === null) return;
    const began = Date.now();
    const kept = this.copies.keep(toText(this.holder.doc()));
    this.keepPause = Math.max(KEEP_AFTER, KEEP_SHARE * (Date.now() - began));
    this.keepProblem = kept === "kept" ? null : kept === "full" ? "there is no room for it in this browser" : "this browser keeps nothing";
    this.report();
  }

  /** Says where what is here stands, if that has changed. */
  private report(): void {
    const saved = this.state();
    if (JSON.stringify(saved) === JSON.stringify(this.saved)) return;
    this.saved = saved;
    this.holder.onSaved(saved);
  }

  private state(): Saved {
    const reach = this.holder.reach();
    const why = this.problem ?? (reach.can === "write" ? null : reach.why);
    if (this.dirtySince !== null && why !== null) {
      return this.keepProblem === null ? { state: "here", why } : { state: "unkept", why: `${why}, and ${this.keepProblem}` };
    }
    if (!this.isRead) return this.problem === null ? { state: "loading" } : { state: "here", why: this.problem };
    return { state: this.dirtySince === null ? "saved" : "saving" };
  }

  private schedule(after: number): void {
    if (this.isClosed) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.exchange(), after);
  }

  /** Reads what is there, merges, and writes if anything of ours is missing there. */
  private async exchange(): Promise<void> {
    if (this.isBusy) return;
    const { can } = this.holder.reach();
    const isIdle = this.dirtySince === null && this.isRead && (document.hidden || can === "read");
    if (can === "nothing" || isIdle) {
      this.report();
      this.schedule(LOOK_EVERY);
      return;
    }
    this.isBusy = true;
    let pause = LOOK_EVERY;
    try {
      const theirs = await this.read();
      if (theirs !== null) this.holder.onRead(theirs);
      this.isRead = true;
      // What others have is not to be written again; what they lack is, even if it was written before and was overwritten.
      const isMissing = theirs !== null && merge(theirs, this.holder.doc()) !== theirs;
      if (isMissing) this.dirtySince ??= Date.now();
      if (this.dirtySince !== null && can === "write" && (await this.write())) pause = SAVE_AFTER;
      this.problem = null;
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
      pause = RETRY_AFTER;
    } finally {
      this.isBusy = false;
      this.report();
      this.schedule(pause);
    }
  }

  /** Writes the document. Returns whether there is more to be written by now. */
  private async write(): Promise<boolean> {
    const doc = this.holder.doc();
    const text = toText(doc);
    if (utf8Length(text) > LARGEST) throw new ApiError("too_large", "the notebook is larger than 64 MiB and is not written to the workspace; delete some of it", 0);
    await this.api.file(this.session, NOTEBOOK_FILE, { method: "PUT", body: text });
    this.tag = null;
    this.written = text;
    if (this.holder.doc() !== doc) return true;
    this.dirtySince = null;
    this.keepProblem = null;
    clearTimeout(this.keepTimer);
    this.keepTimer = undefined;
    this.copies?.forget();
    return false;
  }

  /** The document in the workspace, if it is another one than was read or written last. */
  private async read(): Promise<Doc | null> {
    let response: Response;
    try {
      response = await this.api.file(this.session, NOTEBOOK_FILE, this.tag === null ? {} : { headers: { "If-None-Match": this.tag } });
    } catch (error) {
      if (error instanceof ApiError && error.code === "unknown_file") return null;
      throw error;
    }
    if (response.status === 304) return null;
    if (Number(response.headers.get("Content-Length") ?? 0) > LARGEST) {
      await response.body?.cancel();
      this.dirtySince ??= Date.now();
      throw new ApiError("too_large", `${NOTEBOOK_FILE} is too large to be a notebook; move it away, and the notebook is written anew`, 0);
    }
    const text = await response.text();
    this.tag = response.headers.get("ETag");
    if (text === this.written) return null;
    const doc = fromText(text);
    if (doc === null) {
      this.dirtySince ??= Date.now();
      throw new ApiError("bad_notebook", `${NOTEBOOK_FILE} is not a notebook of ours; move it away, and the notebook is written anew`, 0);
    }
    return doc;
  }
}
