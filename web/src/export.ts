// Notebooks as files: Jupyter's `.ipynb` in and out, a script, and a page that needs nothing. Pure.

import type { CellKind } from "./document.ts";
import { extrasOf, type Attachments, type Extras } from "./imported.ts";
import { pieces, plain, type Look } from "./output/ansi.ts";
import { escape, jsonMarkup } from "./output/json.ts";
import { formOf, pictureOf, textOf } from "./output/mime.ts";
import type { BundleOutput, Output } from "./reduce.ts";
import type { StreamOutput } from "./text.ts";

/** A cell with all that belongs to it. */
export interface WholeCell {
  readonly id: string;
  readonly kind: CellKind;
  readonly source: string;
  readonly count: number | null;
  readonly outputs: readonly Output[];
  readonly attachments: Attachments;
}

/** What was left out between head and tail is said, never passed over. */
function streamText(output: StreamOutput): string {
  return output.leftOut > 0 ? `${output.head}\n… ${output.leftOut} bytes are left out here …\n${output.tail}` : output.head + output.tail;
}

// --- .ipynb ----------------------------------------------------------------------------------------------------------------

export function toIpynb(cells: readonly WholeCell[], python: string | null): string {
  const notebook = {
    nbformat: 4,
    nbformat_minor: 5,
    metadata: {
      kernelspec: { name: "python3", display_name: "Python 3", language: "python" },
      language_info: { name: "python", ...(python === null ? {} : { version: python }) },
    },
    cells: cells.map((cell) =>
      cell.kind === "markdown"
        ? { id: ipynbId(cell.id), cell_type: "markdown", metadata: {}, source: lines(cell.source), ...(Object.keys(cell.attachments).length > 0 ? { attachments: cell.attachments } : {}) }
        : {
            id: ipynbId(cell.id), cell_type: "code", metadata: {}, source: lines(cell.source), execution_count: cell.count,
            outputs: cell.outputs.flatMap((output) => ipynbOutput(output, cell.count)),
          },
    ),
  };
  return `${JSON.stringify(notebook, null, 1)}\n`;
}

function ipynbId(id: string): string {
  return id.replace(/[^A-Za-z0-9_-]/g, "-").slice(0, 64);
}

function lines(text: string): string[] {
  return text === "" ? [] : text.split(/(?<=\n)/);
}

function ipynbOutput(output: Output, count: number | null): unknown[] {
  switch (output.kind) {
    case "stream": return [{ output_type: "stream", name: output.name, text: lines(streamText(output)) }];
    case "error": return [{ output_type: "error", ename: output.ename, evalue: output.evalue, traceback: output.traceback }];
    case "far": return [{ output_type: "stream", name: "stderr", text: [`… an output of ${output.weight} characters is left out here …\n`] }];
    case "many": return [{ output_type: "stream", name: "stderr", text: [`… ${output.count} outputs are left out here …\n`] }];
    case "bundle": {
      const data = Object.fromEntries(Object.entries(output.data).map(([type, value]) => [type, typeof value === "string" && !type.startsWith("image/") ? lines(value) : value]));
      return output.isResult
        ? [{ output_type: "execute_result", execution_count: count, data, metadata: output.metadata }]
        : [{ output_type: "display_data", data, metadata: output.metadata }];
    }
  }
}

/** The cells of a Jupyter notebook; a sentence that says what is wrong, if it is none. */
export function fromIpynb(text: string): { kind: CellKind; source: string; extras: Extras }[] | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return `it is not JSON (${error instanceof Error ? error.message : "it cannot be read"})`;
  }
  if (typeof value !== "object" || value === null) return "it is JSON, but no notebook";
  const { cells, worksheets, nbformat } = value as { cells?: unknown; worksheets?: unknown; nbformat?: unknown };
  if (worksheets !== undefined || (typeof nbformat === "number" && nbformat < 4)) return "it is of an old format; `jupyter nbconvert --to notebook` makes a new one of it";
  if (!Array.isArray(cells)) return "it is JSON, but it has no cells";
  const result: { kind: CellKind; source: string; extras: Extras }[] = [];
  for (const [index, cell] of cells.entries()) {
    if (typeof cell !== "object" || cell === null) return `cell ${index + 1} is no cell`;
    const source = textOf((cell as { source?: unknown }).source);
    if (source === null) return `cell ${index + 1} has no source`;
    const { cell_type: type, outputs, attachments, execution_count: count } = cell as Record<string, unknown>;
    const isCode = type === "code";
    result.push({
      kind: isCode ? "code" : "markdown", source: type === "raw" ? `\`\`\`\n${source}\n\`\`\`` : source,
      extras: isCode ? extrasOf(outputs, {}, count) : extrasOf([], attachments, null),
    });
  }
  return result;
}

// --- a script --------------------------------------------------------------------------------------------------------------

/** A Python script with a cell for each `# %%`, as editors and `evercell run --cells` read them. */
export function toScript(cells: readonly Pick<WholeCell, "kind" | "source">[]): string {
  return cells
    .map((cell) =>
      cell.kind === "markdown"
        ? `# %% [markdown]\n${cell.source.split("\n").map((line) => (line === "" ? "#" : `# ${line}`)).join("\n")}\n`
        : `# %%\n${cell.source.trimEnd()}\n`,
    )
    .join("\n");
}

// --- a page ----------------------------------------------------------------------------------------------------------------

const STYLE = `
:root { color-scheme: light dark; --ink: light-dark(#22252b, #e4e6ea); --quiet: light-dark(#666d78, #9aa1ac); --line: light-dark(#dfe1e6, #343942); --code: light-dark(#f5f6f8, #1e2127); --bad: light-dark(#b3261e, #ff8a80); }
body { max-width: 860px; margin: 40px auto; padding: 0 20px; font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: light-dark(#fff, #16181c); }
pre { font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.cell { margin: 22px 0; } .source { padding: 10px 14px; background: var(--code); border: 1px solid var(--line); border-radius: 6px; }
.out { padding: 8px 14px 0; } .count { color: var(--quiet); font: 12px ui-monospace, monospace; } .failure { color: var(--bad); }
img { max-width: 100%; } iframe { width: 100%; border: 0; min-height: 60px; color-scheme: light; background: #fff; }
math { font-size: 1.1em; } table { border-collapse: collapse; } th, td { padding: 3px 12px; border-bottom: 1px solid var(--line); }
.json { font: 13px/1.6 ui-monospace, Menlo, Consolas, monospace; } details.json, .json-leaf { padding-left: 1.1em; } .json-key { color: var(--quiet); }
`;

/** What makes markup of Markdown and of formulas, without any markup of the text itself. */
export interface Rich {
  cellMarkup(text: string, picture: (name: string) => string | null): string;
  latexMarkup(text: string): string;
}

/** One file with all in it. Markup of outputs is put into sandboxed frames there as well. */
export function toPage(title: string, cells: readonly WholeCell[], rich: Rich): string {
  const body = cells.map((cell) => {
    if (cell.kind === "markdown") return `<section class="cell">${rich.cellMarkup(cell.source, (name) => pictureOf(cell.attachments[name]))}</section>`;
    const outputs = cell.outputs.map((output) => pageOutput(output, rich)).join("\n");
    return `<section class="cell"><div class="count">[${cell.count ?? " "}]</div><pre class="source">${escape(cell.source)}</pre>${outputs}</section>`;
  });
  // Nothing in it runs, and nothing is loaded. What frames hold is under the same policy.
  const policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; media-src data:; base-uri 'none'; form-action 'none'";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${escape(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escape(title)}</h1>
${body.join("\n")}
</body>
</html>
`;
}

function pageOutput(output: Output, rich: Rich): string {
  switch (output.kind) {
    case "stream": return `<div class="out"><pre>${coloured(streamText(output))}</pre></div>`;
    case "error": return `<div class="out"><pre class="failure">${escape(`${output.ename}: ${plain(output.evalue)}`)}</pre><pre>${coloured(output.traceback.join("\n"))}</pre></div>`;
    case "far": return `<div class="out count">… an output of ${output.weight} characters is left out here …</div>`;
    case "many": return `<div class="out count">… ${output.count} outputs are left out here …</div>`;
    case "bundle": return `<div class="out">${pageBundle(output, rich)}</div>`;
  }
}

function pageBundle(output: BundleOutput, rich: Rich): string {
  const form = formOf(output.data);
  const text = textOf(output.data["text/plain"]);
  const asText = text === null ? "" : `<pre>${coloured(text)}</pre>`;
  switch (form.kind) {
    case "image": return `<img alt="Figure" src="data:${form.type};base64,${escape(form.base64.replace(/\s/g, ""))}">`;
    case "html": return `<iframe sandbox="" title="Output" height="${heightOf(form.html)}" srcdoc="${escape(form.html)}"></iframe>`;
    case "markdown": return rich.cellMarkup(form.text, () => null);
    case "latex": return rich.latexMarkup(form.text);
    case "json": return jsonMarkup(form.value);
    case "text": return asText;
    case "plotly":
    case "vega": {
      // What draws it runs, which nothing does here. Some libraries send a picture along.
      const picture = pictureOf(output.data);
      return picture === null ? `<p class="count">An interactive figure, which is drawn in the notebook.</p>${asText}` : `<img alt="Figure" src="${picture}">`;
    }
    default: return asText === "" ? `<p class="count">${escape(Object.keys(output.data).join(", "))}</p>` : asText;
  }
}

/** A frame without scripts cannot say how tall it is; rows of a table are what it mostly holds. */
function heightOf(html: string): number {
  const rows = html.match(/<tr/g)?.length ?? 0;
  return Math.min(800, Math.max(80, 40 + rows * 26));
}

function coloured(text: string): string {
  return pieces(text).map((piece) => (piece.look === null ? escape(piece.text) : `<span style="${styleOf(piece.look)}">${escape(piece.text)}</span>`)).join("");
}

const PALETTE = ["#555", "#c5352b", "#2f8a3a", "#a87900", "#2a6fc9", "#9a3fb0", "#138a92", "#777"];

function styleOf(look: Look): string {
  const styles: string[] = [];
  if (look.ink !== null) styles.push(`color:${typeof look.ink === "number" ? (PALETTE[look.ink % 8] ?? "inherit") : look.ink}`);
  if (look.isBold) styles.push("font-weight:600");
  if (look.isItalic) styles.push("font-style:italic");
  if (look.isUnderlined) styles.push("text-decoration:underline");
  return styles.join(";");
}
