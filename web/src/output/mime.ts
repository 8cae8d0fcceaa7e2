// Which of the forms of a value is shown, the richest that this page can draw. Pure.

import type { MimeBundle } from "../wire.ts";

export type Form =
  | { kind: "image"; type: string; base64: string }
  | { kind: "html"; html: string }
  | { kind: "script"; code: string }
  | { kind: "plotly"; data: unknown }
  | { kind: "vega"; data: unknown; isLite: boolean }
  | { kind: "markdown"; text: string }
  | { kind: "latex"; text: string }
  | { kind: "json"; value: unknown }
  | { kind: "widget"; model: string; text: string }
  | { kind: "text"; text: string }
  | { kind: "unknown"; types: string[] };

const IMAGES = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/** What is longer was not written by hand, and would keep the page busy for long. */
const LONGEST_WRITTEN = 500_000;

export function formOf(data: MimeBundle): Form {
  const text = textOf(data["text/plain"]) ?? "";
  const widget = data["application/vnd.jupyter.widget-view+json"];
  if (typeof widget === "object" && widget !== null && "model_id" in widget && typeof widget.model_id === "string") {
    return { kind: "widget", model: widget.model_id, text };
  }
  const plotly = data["application/vnd.plotly.v1+json"];
  if (plotly !== undefined) return { kind: "plotly", data: plotly };
  for (const [type, value] of Object.entries(data)) {
    const match = /^application\/vnd\.(vega|vegalite)\.v\d+(?:\.\d+)*\+json$/.exec(type);
    if (match !== null) return { kind: "vega", data: value, isLite: match[1] === "vegalite" };
  }
  const html = textOf(data["text/html"]);
  if (html !== null) return vegaIn(html) ?? { kind: "html", html };
  const script = textOf(data["application/javascript"]) ?? textOf(data["text/javascript"]);
  if (script !== null) return { kind: "script", code: script };
  const svg = textOf(data["image/svg+xml"]);
  if (svg !== null) return { kind: "html", html: svg };
  for (const type of IMAGES) {
    const base64 = textOf(data[type]);
    if (base64 !== null) return { kind: "image", type, base64 };
  }
  const markdown = textOf(data["text/markdown"]);
  if (markdown !== null) return { kind: markdown.length > LONGEST_WRITTEN ? "text" : "markdown", text: markdown };
  const latex = textOf(data["text/latex"]);
  if (latex !== null) return { kind: latex.length > LONGEST_WRITTEN ? "text" : "latex", text: latex };
  for (const type of ["application/json", "application/geo+json"]) if (data[type] !== undefined) return { kind: "json", value: data[type] };
  if (data["text/plain"] !== undefined) return { kind: "text", text };
  return { kind: "unknown", types: Object.keys(data) };
}

/** Altair writes a page that loads its libraries from elsewhere, which a frame cannot. The figure itself is in it. */
function vegaIn(html: string): Form | null {
  if (!html.includes("vegaEmbed")) return null;
  const match = /\}\)\((\{[\s\S]*\}), \{[^\n]*\}\);\s*<\/script>/.exec(html);
  try {
    const data: unknown = JSON.parse(match?.[1] ?? "");
    const isLite = typeof data === "object" && data !== null && "$schema" in data && String(data.$schema).includes("vega-lite");
    return { kind: "vega", data, isLite };
  } catch {
    return null;
  }
}

/** A text, or lines of one, as notebooks keep them. */
export function textOf(value: unknown): string | null {
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every((line) => typeof line === "string")) return value.join("");
  return null;
}

/** The picture of a bundle as an address that has all of it; null if it has none. */
export function pictureOf(data: MimeBundle | undefined): string | null {
  for (const type of IMAGES) {
    const base64 = textOf(data?.[type])?.replace(/\s/g, "");
    if (base64 !== undefined && /^[A-Za-z0-9+/=]+$/.test(base64)) return `data:${type};base64,${base64}`;
  }
  return null;
}

/** A picture's bytes; null if it is none. */
export function bytesOf(base64: string): Uint8Array<ArrayBuffer> | null {
  try {
    const binary = atob(base64.replace(/\s/g, ""));
    const bytes = new Uint8Array(binary.length);
    for (let index = 0; index < binary.length; index += 1) bytes[index] = binary.charCodeAt(index);
    return bytes;
  } catch {
    return null;
  }
}
