// Outputs that came with an imported notebook. They belong to no run of the log, and stand until their cell first runs here. Beside the document in the
// workspace lies a file for each import; whoever opens the session reads them. Nothing in them is to be believed: they are drawn as all outputs are.

import { ApiError, type Api } from "./api.ts";
import { isCellName } from "./document.ts";
import { freshId } from "./id.ts";
import { isRecord, outputsOf } from "./output/nbformat.ts";
import { weightOf, type Output } from "./reduce.ts";

/** What a notebook file says of a cell besides its text, in its own form. */
export interface Extras {
  readonly outputs: readonly unknown[];
  readonly attachments: Attachments;
  readonly count: number | null;
}

/** Pictures of a text cell, each by its name. */
export type Attachments = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** What the page shows of it. */
export interface Imported {
  readonly outputs: readonly Output[];
  readonly attachments: Attachments;
  readonly count: number | null;
}

const DIRECTORY = ".evercell/imported";
/** What one import may bring, in characters, and how many are read. */
const HEAVIEST = 16 * 1024 * 1024;
const MOST_FILES = 20;

/** Keeps the extras of some cells in the workspace. Returns what is kept, and of how many cells that was too much. */
export async function keepImported(api: Api, session: string, cells: readonly { id: string; extras: Extras }[]): Promise<{ kept: ReadonlyMap<string, Imported>; left: number }> {
  let room = HEAVIEST;
  const some = cells.filter(({ extras }) => extras.outputs.length > 0 || Object.keys(extras.attachments).length > 0);
  const kept = some.filter(({ extras }) => {
    const weight = weightOf(extras);
    if (weight > room) return false;
    room -= weight;
    return true;
  });
  const text = JSON.stringify({ format: "evercell-imported", version: 1, cells: Object.fromEntries(kept.map(({ id, extras }) => [id, extras])) });
  if (kept.length > 0) await api.file(session, `${DIRECTORY}/${freshId()}.json`, { method: "PUT", body: text });
  return { kept: fromFile(text), left: some.length - kept.length };
}

/** Reads what was imported into a session. */
export async function readImported(api: Api, session: string): Promise<ReadonlyMap<string, Imported>> {
  const all = new Map<string, Imported>();
  try {
    const files = await api.files(session, DIRECTORY);
    const newest = files.filter((file) => file.kind === "file" && file.bytes <= 4 * HEAVIEST).sort((a, b) => b.modified_ms - a.modified_ms).slice(0, MOST_FILES);
    for (const file of newest) {
      const name = file.name ?? file.path?.split("/").at(-1) ?? "";
      const response = await api.file(session, `${DIRECTORY}/${name}`);
      for (const [id, extras] of fromFile(await response.text())) if (!all.has(id)) all.set(id, extras);
    }
  } catch (error) {
    // Mostly nothing was ever imported.
    if (!(error instanceof ApiError)) throw error;
  }
  return all;
}

/** Reads a file of an import; what does not fit is left out. */
export function fromFile(text: string): Map<string, Imported> {
  const result = new Map<string, Imported>();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return result;
  }
  if (!isRecord(value) || value["format"] !== "evercell-imported" || !isRecord(value["cells"])) return result;
  for (const [id, raw] of Object.entries(value["cells"])) {
    if (!isCellName(id) || !isRecord(raw)) continue;
    const { outputs, attachments, count } = extrasOf(raw["outputs"], raw["attachments"], raw["count"]);
    result.set(id, { outputs: outputsOf(outputs), attachments, count });
  }
  return result;
}

/** The extras of a cell, of which nothing is known. */
export function extrasOf(outputs: unknown, attachments: unknown, count: unknown): Extras {
  return {
    outputs: Array.isArray(outputs) ? outputs.slice(0, 400) : [],
    attachments: isRecord(attachments) ? Object.fromEntries(Object.entries(attachments).filter((entry): entry is [string, Record<string, unknown>] => isRecord(entry[1]))) : {},
    count: Number.isSafeInteger(count) ? (count as number) : null,
  };
}
