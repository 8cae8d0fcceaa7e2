// Checkpoints that somebody holds: made, gone back to and dropped, by name. The one before each cell comes and goes by itself.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ago } from "../format.ts";
import type { Session, View } from "../session.ts";
import type { HeldCheckpoint } from "../wire.ts";
import { useTick } from "./hooks.ts";
import { Button } from "./icons.tsx";

export function CheckpointsPanel({ session, view, onClose }: { session: Session; view: View; onClose: () => void }): JSX.Element {
  const [held, setHeld] = useState<HeldCheckpoint[] | null>(null);
  const [most, setMost] = useState<number | null>(null);
  const [problem, setProblem] = useState("");
  const [name, setName] = useState("");
  const { heldCount, status, queue } = view.notebook;
  const isLive = view.link.state === "live";
  // Nothing but an interrupt gets in the way of a cell, so the server refuses while one runs or waits.
  const isFree = isLive && status === "idle" && queue.length === 0;
  useTick(30_000);
  useEffect(() => {
    if (!isLive) return;
    let isGone = false;
    session.ask<{ checkpoints: HeldCheckpoint[]; bound: number }>("checkpoints").then(
      (answer) => {
        if (isGone) return;
        setHeld(answer.checkpoints);
        setMost(answer.bound);
        setProblem("");
      },
      (error: unknown) => { if (!isGone) setProblem(error instanceof Error ? error.message : String(error)); },
    );
    return () => { isGone = true; };
  }, [session, heldCount, isLive]);
  const hold = (): void => {
    // What a name may have is few letters; what somebody types is brought into that.
    const wanted = name.trim().replace(/[^\w.:-]+/g, "-").slice(0, 128);
    const chosen = wanted !== "" ? wanted : freshName(held ?? []);
    const make = (): void => void session.ask("checkpoint", { name: chosen }).then(
      () => setName(""),
      (error: unknown) => session.complain(error),
    );
    if (held?.some((checkpoint) => checkpoint.name === chosen) !== true) return make();
    session.show({ kind: "confirm", title: `Replace “${chosen}”?`, text: "There is a checkpoint of this name. The new one takes its place.", yes: "Replace it", run: make });
  };
  return (
    <>
      <header><h2>Checkpoints</h2><Button icon="close" label="Close" onClick={onClose} /></header>
      <div class={`panel-body ${isLive ? "" : "stale"}`} tabIndex={0} role="region" aria-label="Checkpoints">
        <p class="quiet-note">Keep the variables as they are now, and go back to them whenever you like. Files are not part of it.</p>
        <form class="hold" onSubmit={(event) => { event.preventDefault(); if (isFree) hold(); }}>
          <label class="visually-hidden" for="checkpoint-name">Name of the checkpoint</label>
          <input id="checkpoint-name" value={name} maxLength={128} placeholder="Name, or leave it empty" autocomplete="off" spellcheck={false} onInput={(event) => setName(event.currentTarget.value)} />
          <button type="submit" class="button strong" disabled={!isFree}>Keep</button>
        </form>
        {isLive && !isFree && <p class="quiet-note">{status === "busy" || queue.length > 0 ? "A cell is running; this has to wait for it." : "There is no kernel at the moment."}</p>}
        <ul class="checkpoints">
          {(held ?? []).map((checkpoint) => (
            <li key={checkpoint.name}>
              <span class="checkpoint-name">{checkpoint.name}</span>
              <span class="checkpoint-facts">{checkpoint.execution_count === 0 ? "before the first cell" : `after cell [${checkpoint.execution_count}]`}, {ago(session.now() - checkpoint.held_at_ms)}</span>
              <button type="button" class="button named" aria-label={`Go back to ${checkpoint.name}`} disabled={!isFree} onClick={() => session.confirmGoBack(checkpoint.name)}>Go back</button>
              <Button icon="trash" label={`Drop ${checkpoint.name}`} onClick={() => void session.ask("drop_checkpoint", { name: checkpoint.name }).catch((error: unknown) => session.complain(error))} />
            </li>
          ))}
        </ul>
        {held !== null && most !== null && held.length >= most && <p class="quiet-note">These are as many as there may be: drop one to keep another.</p>}
        {problem !== "" && <p class="quiet-note">{problem}</p>}
      </div>
    </>
  );
}

function freshName(held: readonly HeldCheckpoint[]): string {
  const taken = new Set(held.map((checkpoint) => checkpoint.name));
  for (let number = 1; ; number += 1) if (!taken.has(`checkpoint-${number}`)) return `checkpoint-${number}`;
}
