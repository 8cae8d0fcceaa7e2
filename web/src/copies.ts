// Copies of documents in this browser, for as long as the workspace lacks what is in them. One for each page, since several may have the same session
// open; whoever comes to it later takes in what is left.

const PREFIX = "evercell:notebook:";

/** A copy, or why there is none. */
export type Kept = "kept" | "full" | "refused";

export class Copies {
  private readonly prefix: string;
  /** What earlier pages have left and this one has taken in. */
  private adopted = new Map<string, string>();

  constructor(session: string, log: string, private readonly page: string, private readonly store: () => Storage = () => localStorage) {
    this.prefix = `${PREFIX}${session}:${log}:`;
  }

  /** What earlier pages have left. */
  adopt(): string[] {
    const texts: string[] = [];
    for (const key of this.keys((name) => name.startsWith(this.prefix) && name !== this.prefix + this.page)) {
      const value = this.store().getItem(key);
      if (value === null) continue;
      this.adopted.set(key, value);
      texts.push(value.slice(value.indexOf("\n") + 1));
    }
    return texts;
  }

  keep(text: string): Kept {
    const value = `${Date.now()}\n${text}`;
    // Each time without what was kept longest ago, until there is room.
    for (;;) {
      try {
        this.store().setItem(this.prefix + this.page, value);
        return "kept";
      } catch (error) {
        if (!(error instanceof DOMException && error.name === "QuotaExceededError")) return "refused";
        const oldest = this.oldest();
        if (oldest === null) return "full";
        this.store().removeItem(oldest);
      }
    }
  }

  /** The workspace has it all: what this page has kept, and what it has taken in, if no page has kept more there since. */
  forget(): void {
    try {
      this.store().removeItem(this.prefix + this.page);
      for (const [key, value] of this.adopted) if (this.store().getItem(key) === value) this.store().removeItem(key);
      this.adopted.clear();
    } catch {
      // Then nothing was kept either.
    }
  }

  /** The copy of another session, or of a log that this one had, that was kept longest ago. */
  private oldest(): string | null {
    const others = this.keys((name) => name.startsWith(PREFIX) && !name.startsWith(this.prefix));
    // Those of earlier versions say no time.
    const age = (key: string): number => Number.parseInt(this.store().getItem(key) ?? "", 10) || 0;
    return others.sort((a, b) => age(a) - age(b))[0] ?? null;
  }

  private keys(fits: (name: string) => boolean): string[] {
    try {
      const store = this.store();
      return Array.from({ length: store.length }, (_, index) => store.key(index) ?? "").filter(fits);
    } catch {
      return [];
    }
  }
}
