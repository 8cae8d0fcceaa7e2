// The cells of a session with all that belongs to them, for what is saved: what the page does not hold is read from the server.

import type { Imported } from "./imported.ts";
import { outputOf, type Output } from "./reduce.ts";
import type { Session } from "./session.ts";
import type { StreamOutput } from "./text.ts";
import type { WholeCell } from "./export.ts";

const PART = 1024 * 1024;
/** How much of a stream's middle is read in all for one file; beyond it the file says how much is missing. */
const MOST = 64 * 1024 * 1024;

export async function wholeCells(session: Session): Promise<WholeCell[]> {
  const { cells, imported } = session.view;
  const budget = { bytes: MOST };
  const result: WholeCell[] = [];
  for (const { id, kind, source, run } of cells) {
    const extras: Imported | undefined = imported.get(id);
    const outputs: Output[] = [];
    for (const output of run?.outputs ?? extras?.outputs ?? []) outputs.push(run === null ? output : await whole(session, run.cell, output, budget));
    result.push({ id, kind, source, count: (run ?? extras)?.count ?? null, outputs, attachments: extras?.attachments ?? {} });
  }
  return result;
}

async function whole(session: Session, cell: string, output: Output, budget: { bytes: number }): Promise<Output> {
  if (output.kind === "far") return outputOf(await session.api.event(session.id, output.seq), output.key) ?? output;
  return output.kind === "stream" ? wholeStream(session, cell, output, budget) : output;
}

async function wholeStream(session: Session, cell: string, output: StreamOutput, budget: { bytes: number }): Promise<StreamOutput> {
  let { head, leftOut } = output;
  let from = output.headEnd ?? 0;
  while (leftOut > 0 && budget.bytes > 0) {
    const part = await session.api.output(session.id, cell, output.name, from, Math.min(PART, leftOut));
    if (part.next <= from) break;
    head += part.text;
    budget.bytes -= part.next - from;
    leftOut = Math.max(0, leftOut - (part.next - from));
    from = part.next;
  }
  return { ...output, head, leftOut };
}
