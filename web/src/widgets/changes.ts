// What somebody changes in widgets, on its way to the kernel: shown at once, sent no faster than the kernel handles it, the last state always.

import type { Notebook } from "../reduce.ts";
import type { Seq } from "../wire.ts";
import type { WidgetState } from "./model.ts";

/** The shortest pause between two changes of one widget. */
export const PAUSE = 50;

interface Draft {
  /** What is shown meanwhile. */
  shown: WidgetState;
  /** What is still to be sent. */
  unsent: WidgetState | null;
  isUnderWay: boolean;
  sentAt: number;
  sentSeq: Seq;
  timer: ReturnType<typeof setTimeout> | undefined;
}

export interface ChangesHost {
  notebook(): Notebook;
  /** Sends a message to a widget; it is in the log when this returns. */
  send(widget: string, data: unknown): Promise<unknown>;
  redraw(): void;
  complain(error: unknown): void;
}

export class Changes {
  private readonly drafts = new Map<string, Draft>();

  constructor(private readonly host: ChangesHost) {}

  /** What is shown of a widget instead of what the log says, until the kernel has handled it. */
  shown(widget: string): WidgetState | null {
    return this.drafts.get(widget)?.shown ?? null;
  }

  change(widget: string, change: WidgetState): void {
    const draft = this.drafts.get(widget) ?? { shown: {}, unsent: null, isUnderWay: false, sentAt: -Infinity, sentSeq: 0, timer: undefined };
    draft.shown = { ...draft.shown, ...change };
    draft.unsent = { ...draft.unsent, ...change };
    this.drafts.set(widget, draft);
    this.host.redraw();
    this.pump(widget, draft);
  }

  /** Something that happens to a widget and is no state, as a click. */
  tell(widget: string, content: unknown): void {
    this.host.send(widget, { method: "custom", content }).catch((error: unknown) => this.host.complain(error));
  }

  /** The log has gone on. */
  follow(): void {
    for (const [widget, draft] of [...this.drafts]) this.pump(widget, draft);
  }

  close(): void {
    for (const draft of this.drafts.values()) clearTimeout(draft.timer);
    this.drafts.clear();
  }

  private pump(widget: string, draft: Draft): void {
    if (draft.isUnderWay || this.drafts.get(widget) !== draft) return;
    const { all, unhandled } = this.host.notebook().widgets;
    const now = all.get(widget);
    if (now === undefined || !now.isAlive) return this.drop(widget, draft);
    // The kernel has one at a time before it: what is changed meanwhile is one change.
    if ([...unhandled.values()].includes(widget)) return;
    if (draft.unsent === null) {
      if (now.seq > draft.sentSeq) this.drop(widget, draft);
      return;
    }
    const wait = draft.sentAt + PAUSE - Date.now();
    clearTimeout(draft.timer);
    if (wait > 0) {
      draft.timer = setTimeout(() => this.pump(widget, draft), wait);
      return;
    }
    const state = draft.unsent;
    Object.assign(draft, { unsent: null, isUnderWay: true, sentAt: Date.now(), sentSeq: now.seq });
    this.host.send(widget, { method: "update", state, buffer_paths: [] }).then(
      () => {
        draft.isUnderWay = false;
        this.pump(widget, draft);
      },
      (error: unknown) => {
        draft.isUnderWay = false;
        this.drop(widget, draft);
        this.host.complain(error);
      },
    );
  }

  private drop(widget: string, draft: Draft): void {
    clearTimeout(draft.timer);
    if (this.drafts.get(widget) !== draft) return;
    this.drafts.delete(widget);
    this.host.redraw();
  }
}
