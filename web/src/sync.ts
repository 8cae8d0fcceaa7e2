// Keeps the notebook document in the session's workspace, merged with what others write there, and a copy in this browser in case the workspace
// cannot be reached.

import { ApiError, type Api } from "./api.ts";
import { fromText, merge, toText, type Doc } from "./document.ts";

export const NOTEBOOK_FILE = ".evercell/notebook.json";

/** Where what was last written stands. */
export type Saved =
  | { state: "loading" }
  | { state: "saved" }
  | { state: "saving" }
  /** Only this browser has it. */
  | { state: "here"; why: string };

const SAVE_AFTER = 500;
const LOOK_EVERY = 2_000;
const RETRY_AFTER = 5_000;
const LARGEST = 64 * 1024 * 1024;

export interface Holder {
  doc(): Doc;
  /** Takes in a document that was read. */
  onRead(doc: Doc): void;
  onSaved(saved: Saved): void;
  /** Whether the workspace can be reached at the moment. */
  isReachable(): boolean;
}

export class DocumentFile {
  private tag: string | null = null;
  private isDirty = false;
  private isBusy = false;
  private isClosed = false;
  private isRead = false;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private keepTimer: ReturnType<typeof setTimeout> | undefined;
  private key: string | null = null;
  private readonly leave = (): void => this.keep();

  constructor(private readonly api: Api, private readonly session: string, private readonly holder: Holder) {
    addEventListener("pagehide", this.leave);
  }

  /** Reads the file, then looks at it from time to time. */
  start(): void {
    void this.exchange();
  }

  /** Which log this is becomes known: a copy that this browser has of this session is of use. */
  adoptCopy(bornAt: number | null): void {
    if (this.key !== null) return;
    this.key = `evercell:notebook:${this.session}:${bornAt ?? "trimmed"}`;
    const text = read(this.key);
    const doc = text === null ? null : fromText(text);
    if (doc === null) return;
    this.holder.onRead(doc);
    this.changed();
  }

  /** The document was changed here. */
  changed(): void {
    this.isDirty = true;
    this.keepTimer ??= setTimeout(() => this.keep(), 200);
    if (this.isRead) {
      this.holder.onSaved({ state: "saving" });
      this.schedule(SAVE_AFTER);
    }
  }

  /** Others may have changed it. */
  nudge(): void {
    if (!this.isBusy) this.schedule(100);
  }

  /** Writes what is to be written, and waits for it. */
  async flush(): Promise<void> {
    this.keep();
    if (this.isDirty) await this.exchange();
  }

  close(): void {
    this.keep();
    if (this.isDirty) void this.exchange();
    this.isClosed = true;
    clearTimeout(this.timer);
    removeEventListener("pagehide", this.leave);
  }

  private keep(): void {
    clearTimeout(this.keepTimer);
    this.keepTimer = undefined;
    if (this.key === null || !this.isDirty) return;
    try {
      localStorage.setItem(this.key, toText(this.holder.doc()));
    } catch {
      // The browser keeps nothing, or no more; the workspace does.
    }
  }

  private schedule(after: number): void {
    if (this.isClosed) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.exchange(), after);
  }

  /** Reads what is there, merges, and writes if anything of ours is missing there. */
  private async exchange(): Promise<void> {
    if (this.isBusy) return;
    if (!this.holder.isReachable() || (document.hidden && !this.isDirty && this.isRead)) {
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
      if (this.isDirty || isMissing) {
        const doc = this.holder.doc();
        this.isDirty = false;
        try {
          await this.api.file(this.session, NOTEBOOK_FILE, { method: "PUT", body: toText(doc) });
        } catch (error) {
          this.isDirty = true;
          throw error;
        }
        this.tag = null;
        if (this.holder.doc() !== doc) pause = SAVE_AFTER;
      }
      this.holder.onSaved({ state: this.isDirty ? "saving" : "saved" });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.holder.onSaved({ state: "here", why: error.message });
      this.isRead = true;
      pause = RETRY_AFTER;
    } finally {
      this.isBusy = false;
      this.schedule(pause);
    }
  }

  /** The document in the workspace, if it is another one than was read last. */
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
      throw new ApiError("too_large", `${NOTEBOOK_FILE} is too large to be a notebook; move it away, and the notebook is written anew`, 0);
    }
    const text = await response.text();
    this.tag = response.headers.get("ETag");
    const doc = fromText(text);
    if (doc === null) {
      throw new ApiError("bad_notebook", `${NOTEBOOK_FILE} is not a notebook of ours; move it away, and the notebook is written anew`, 0);
    }
    return doc;
  }
}

function read(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}
