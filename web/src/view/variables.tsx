// The variables of the kernel, asked for again after each cell.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { bytes } from "../format.ts";
import type { Session, View } from "../session.ts";
import type { Variable } from "../wire.ts";
import { Button } from "./icons.tsx";

export function VariablesPanel({ session, view, onClose }: { session: Session; view: View; onClose: () => void }): JSX.Element {
  const [variables, setVariables] = useState<Variable[] | null>(null);
  const [note, setNote] = useState("");
  const { finishedCount, status } = view.notebook;
  const isLive = view.link.state === "live";
  useEffect(() => {
    if (!isLive || status === "busy") return;
    let isGone = false;
    session.ask<{ variables: Variable[]; total: number; truncated?: boolean }>("variables").then(
      (answer) => {
        if (isGone) return;
        setVariables(answer.variables);
        setNote(answer.truncated === true ? `The first ${answer.variables.length} of ${answer.total}.` : "");
      },
      (error: unknown) => { if (!isGone) setNote(error instanceof Error ? error.message : String(error)); },
    );
    return () => { isGone = true; };
  }, [session, finishedCount, status, isLive]);
  const isStale = status === "busy" || !isLive;
  return (
    <>
      <header><h2>Variables</h2><Button icon="close" label="Close" onClick={onClose} /></header>
      <div class={`panel-body ${isStale ? "stale" : ""}`} tabIndex={0} role="region" aria-label="Variables">
        {status === "busy" && <p class="quiet-note">A cell is running; these are as they were before it.</p>}
        {variables !== null && variables.length === 0 && <p class="quiet-note">None yet.</p>}
        {variables !== null && variables.length > 0 && (
          <table class="variables">
            <thead><tr><th scope="col">Name</th><th scope="col">Type</th><th scope="col">Size</th></tr></thead>
            <tbody>
              {variables.map((variable) => (
                <tr key={variable.name}>
                  <th scope="row">{variable.name}</th>
                  <td>{variable.type}{variable.shape !== undefined ? ` ${variable.shape.join("\u00a0×\u00a0")}` : variable.length !== undefined ? ` (${variable.length})` : ""}</td>
                  <td class="number">{variable.bytes === undefined ? "" : bytes(variable.bytes)}</td>
                  {(variable.preview ?? "") !== "" && <td class="preview">{variable.preview}</td>}
                </tr>
              ))}
            </tbody>
          </table>
        )}
        {note !== "" && <p class="quiet-note">{note}</p>}
      </div>
    </>
  );
}
