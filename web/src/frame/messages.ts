// What the page and a frame say to each other. The page trusts nothing of what a frame says: each message is checked, and none can do harm.

/** From the page: what to draw. */
export type ToFrame =
  | { type: "html"; html: string; theme: Theme }
  | { type: "script"; code: string; theme: Theme }
  | { type: "plotly"; library: string; data: unknown; theme: Theme }
  | { type: "vega"; library: string; data: unknown; isLite: boolean; theme: Theme }
  | { type: "theme"; theme: Theme };

/** Colours of the page, by the name of their variable. */
export interface Theme {
  scheme: "light" | "dark";
  colours: Record<string, string>;
}

/** From a frame. */
export type FromFrame =
  | { type: "ready" }
  | { type: "height"; height: number };

/** From a frame's own script, through the port that comes with the first `ready`: somebody has followed a link. Whether it is opened is for them to say. */
export interface Followed {
  url: string;
}

/** Reads a message of a frame; null is what no frame of ours says. */
export function fromFrame(value: unknown): FromFrame | null {
  if (typeof value !== "object" || value === null || !("type" in value)) return null;
  if (value.type === "ready") return { type: "ready" };
  if (value.type === "height" && "height" in value && typeof value.height === "number" && Number.isFinite(value.height)) {
    return { type: "height", height: Math.max(0, value.height) };
  }
  return null;
}

/** The address of a link that was followed; null is what is none of the web. */
export function linkOf(value: unknown): string | null {
  return typeof value === "object" && value !== null && "url" in value && typeof value.url === "string" && isWebAddress(value.url) ? value.url : null;
}

/** Whether an address is one of the web, and nothing that a browser would run. */
export function isWebAddress(url: string): boolean {
  if (url.length > 2000 || !URL.canParse(url)) return false;
  const { protocol } = new URL(url);
  return protocol === "https:" || protocol === "http:" || protocol === "mailto:";
}
