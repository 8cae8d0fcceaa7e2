// What is to be run and the server has not taken yet: one order, however long the way there is. Sent one by one, since only then nothing can overtake
// what the server refused because its queue was full.

import { ApiError } from "./api.ts";
import { freshId } from "./id.ts";
import type { CellId, Event } from "./wire.ts";

/** A cell of the notebook that is to be run. */
export interface Wish {
  readonly slot: string;
  readonly code: string;
}

export interface Server {
  /** Has a cell run, unless `after` has gone wrong; what has the same key runs once, however often it is sent. */
  execute(wish: Wish, key: string, after: CellId | null): Promise<{ cell: CellId }>;
  cancel(cell: CellId): void;
  /** Opens the session again after its end. */
  reopen(): Promise<void>;
}

export interface Teller {
  /** What waits is another. */
  onChange(): void;
  onRefused(error: unknown): void;
}

interface Item extends Wish {
  readonly key: string;
  /** Which "run all" it is of. */
  readonly group: number | null;
}

/** How long until it is tried again whether there is room, if nothing is heard of a cell that ended. */
const TRY_AFTER = 2_000;

export class Outbox {
  private items: readonly Item[] = [];
  private sending: Item | null = null;
  private link: "live" | "away" | "ended" = "away";
  private isReopening = false;
  private isFull = false;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private groups = 0;
  /** Of which "run all" a run is, until it ends. */
  private readonly runs = new Map<CellId, number>();
  /** What was taken last of a "run all". */
  private last: { group: number; cell: CellId } | null = null;

  constructor(private readonly server: Server, private readonly teller: Teller) {}

  /** Which cells wait here. */
  get slots(): ReadonlySet<string> {
    return new Set(this.items.map(({ slot }) => slot));
  }

  /** Takes in what is to be run. A cell that waits here with the same source is not run twice. */
  add(wishes: readonly Wish[], isTogether = false): void {
    const group = isTogether ? (this.groups += 1) : null;
    const fresh = wishes.filter(({ slot, code }) => !this.items.some((item) => item.slot === slot && item.code === code));
    this.keep([...this.items, ...fresh.map(({ slot, code }) => ({ slot, code, group, key: freshId() }))]);
    this.pump();
  }

  /** How the connection stands. What waited when the session ended is not run by another kernel unseen. */
  setLink(link: "live" | "away" | "ended"): void {
    const hasEnded = link === "ended" && this.link !== "ended" && !this.isReopening;
    this.link = link;
    if (link === "live") this.isReopening = this.isFull = false;
    if (hasEnded && this.items.length > 0) {
      this.clear();
      this.teller.onRefused(new Error("the session has ended; what waited to be sent was not run"));
    }
    this.pump();
  }

  /** What the log says: that there is room again, or that it makes no sense to go on with the rest. */
  follow(events: readonly Event[]): void {
    for (const event of events) {
      if (event.event !== "cell_finished") continue;
      this.isFull = false;
      const group = this.runs.get(event.cell);
      this.runs.delete(event.cell);
      if (group !== undefined && event.status !== "ok" && event.cause?.kind !== "cancelled") this.keep(this.items.filter((item) => item.group !== group));
    }
    this.pump();
  }

  /** Takes a cell out that waits here. */
  remove(slot: string): void {
    this.keep(this.items.filter((item) => item.slot !== slot));
  }

  /** Takes out all that waits. */
  clear(): void {
    this.keep([]);
  }

  close(): void {
    clearTimeout(this.retry);
    this.items = [];
  }

  private keep(items: readonly Item[]): void {
    if (items.length === this.items.length && items.every((item, index) => item === this.items[index])) return;
    this.items = items;
    this.teller.onChange();
  }

  private pump(): void {
    const [item] = this.items;
    if (item === undefined || this.sending !== null) return;
    if (this.link === "ended") void this.reopen();
    else if (this.link === "live" && !this.isFull) void this.send(item);
  }

  private async reopen(): Promise<void> {
    if (this.isReopening) return;
    this.isReopening = true;
    try {
      await this.server.reopen();
    } catch (error) {
      this.isReopening = false;
      this.clear();
      this.teller.onRefused(error);
    }
  }

  private async send(item: Item): Promise<void> {
    this.sending = item;
    try {
      const after = this.last !== null && this.last.group === item.group ? this.last.cell : null;
      const { cell } = await this.server.execute(item, item.key, after);
      if (item.group !== null) this.last = { group: item.group, cell };
      // It may have been taken out while it was on its way.
      if (!this.items.includes(item)) this.server.cancel(cell);
      else if (item.group !== null) this.runs.set(cell, item.group);
      this.keep(this.items.filter((other) => other !== item));
    } catch (error) {
      this.refused(item, error);
    } finally {
      this.sending = null;
      this.pump();
    }
  }

  private refused(item: Item, error: unknown): void {
    const code = error instanceof ApiError ? error.code : "";
    if (code === "queue_full" || code === "busy") {
      this.isFull = true;
      clearTimeout(this.retry);
      this.retry = setTimeout(() => {
        this.isFull = false;
        this.pump();
      }, TRY_AFTER);
    } else if (code === "unreachable" || code === "session_ended") {
      // The connection says more, and it is sent again when that is back.
      if (this.link === "live") this.link = "away";
    } else if (this.items.includes(item)) {
      this.keep(this.items.filter((other) => other !== item && (item.group === null || other.group !== item.group)));
      // The cell that failed says it all.
      if (code !== "earlier_failed") this.teller.onRefused(error);
    }
  }
}
