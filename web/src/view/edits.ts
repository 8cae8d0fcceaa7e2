// What the keyboard does with several cells at once, or with a part of one.

import type { ShownCell } from "../cells.ts";
import type { Session } from "../session.ts";

export function removeChosen(session: Session): void {
  session.remove(...session.chosen().map((cell) => cell.id));
}

export function cutChosen(session: Session): void {
  session.copy(session.chosen());
  removeChosen(session);
}

export function setKindOfChosen(session: Session, kind: ShownCell["kind"]): void {
  for (const cell of session.chosen()) session.setKind(cell.id, kind);
}

export function runChosen(session: Session): void {
  for (const cell of session.chosen()) session.run(cell.id);
}

/** Makes one cell of the selected ones, or of the selected one and that below it. */
export function merge(session: Session): void {
  const chosen = session.chosen();
  const [first] = chosen;
  if (first === undefined) return;
  const index = session.index(first.id);
  const all = chosen.length > 1 ? chosen : session.view.cells.slice(index, index + 2);
  if (all.length < 2) return;
  const source = all.map((cell) => cell.source).join("\n\n");
  session.remove(...all.slice(1).map((cell) => cell.id));
  session.edit(first.id, source);
  session.select(first.id);
}

/** Makes two cells of one: what stands after the cursor goes into a cell of its own. */
export function split(session: Session, id: string, at: number): void {
  const cell = session.cell(id);
  if (cell === undefined) return;
  session.edit(id, cell.source.slice(0, at).replace(/\n$/, ""));
  session.insert(session.index(id) + 1, cell.kind, cell.source.slice(at).replace(/^\n/, ""));
}

/** Makes a cell a heading of a level. */
export function setHeading(session: Session, id: string, level: number): void {
  const cell = session.cell(id);
  if (cell === undefined) return;
  if (cell.kind !== "markdown") session.setKind(id, "markdown");
  session.edit(id, `${"#".repeat(level)} ${cell.source.replace(/^#{1,6} */, "")}`);
}
