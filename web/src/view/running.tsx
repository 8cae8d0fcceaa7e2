// The strip of a running cell: how long it has run, how long it may, the offer of more time, and input().

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { clock, grant, memory, spoken } from "../format.ts";
import { offers } from "../offer.ts";
import type { Execution, InputRequest } from "../reduce.ts";
import type { Session } from "../session.ts";
import { Button } from "./icons.tsx";
import { useTick, useUsage } from "./hooks.ts";

export function Running({ session, run }: { session: Session; run: Execution }): JSX.Element {
  useTick(250);
  const usage = useUsage(session);
  const limits = session.view.body?.settings.limits;
  const now = session.now();
  const startedAt = run.startedAt ?? now;
  const deadlineAt = run.deadlineAt ?? now;
  const elapsed = Math.max(0, now - startedAt);
  const limit = Math.max(1, deadlineAt - startedAt);
  const left = deadlineAt - now;
  // While input() waits the cell's own clock stands still.
  const isWaiting = run.input !== null;
  const choices = offers(run);
  const isWarned = run.isWarned && !isWaiting && left > -500;
  const isStopping = run.stopping !== null;
  const state = isStopping ? "stopping" : isWarned ? "warned" : isWaiting ? "waiting" : "calm";
  return (
    <div class={`running ${state}`}>
      <div class="running-line">
        <span class="pulse" aria-hidden="true" />
        <span class="running-time">{isWaiting ? "Waiting for an answer" : isStopping ? stoppingText(run) : clock(elapsed)}</span>
        {!isWaiting && !isStopping && (
          <span class="running-left">{left > 0 ? `${clock(left + 999)} left of ${clock(limit + 500)}` : "its time is up"}</span>
        )}
        {usage !== null && usage.processors !== null && (
          <span class="running-usage" title="Processors in use">CPU {usage.processors.toFixed(1)}{limits !== undefined && ` of ${limits.cpu_millis / 1000}`}</span>
        )}
        {usage !== null && usage.memory !== null && (
          <span class={`running-usage ${run.memory !== null ? "running-memory" : ""}`} title="Memory in use, checkpoints included">
            {memory(usage.memory)}{limits !== undefined && ` of ${memory(limits.memory_bytes)}`} in use
          </span>
        )}
        {usage === null && run.memory !== null && <span class="running-memory">{memory(run.memory.used)} of {memory(run.memory.limit)} in use</span>}
        <span class="running-tools">
          {!isStopping && !isWaiting && choices.length > 0 && <Offers session={session} choices={choices} isWarned={isWarned} />}
          <Button icon="stop" label="Stop" keys="I, I" isNamed onClick={() => session.interrupt()} />
        </span>
      </div>
      {!isWaiting && (
        <div class="bar" role="progressbar" aria-label="Time of this cell" aria-valuemin={0} aria-valuemax={Math.round(limit / 1000)} aria-valuenow={Math.round(Math.min(elapsed, limit) / 1000)}>
          <div class="bar-fill" style={{ width: `${Math.min(100, (100 * elapsed) / limit)}%` }} />
        </div>
      )}
      <div class="visually-hidden" role="alert">{isWarned ? `This cell is stopped soon. ${choices[0] === undefined ? "It has all the time that it may have." : `Press E to give it ${spoken(choices[0])} more.`}` : ""}</div>
      {run.input !== null && <Answer session={session} request={run.input} />}
    </div>
  );
}

function Offers({ session, choices, isWarned }: { session: Session; choices: readonly number[]; isWarned: boolean }): JSX.Element {
  return (
    <>
      {isWarned && <span class="offer-text">Stops soon. More time?</span>}
      {choices.map((ms, index) => (
        <button key={ms} type="button" class={`button offer ${isWarned && index === 0 ? "strong" : ""}`} title={index === 0 ? `${grant(ms)} (E, or Alt+E while typing)` : `${grant(ms)}`}
          onClick={() => session.extend(ms)}>
          {grant(ms)}{isWarned && index === 0 && <kbd>E</kbd>}
        </button>
      ))}
    </>
  );
}

function stoppingText(run: Execution): string {
  const why = run.stopping?.reason === "requested" ? "Being interrupted" : "Being stopped";
  switch (run.stopping?.rung) {
    case "second_sigint": return `${why}, second attempt`;
    case "kill": return `${why}: the kernel is ended`;
    default: return why;
  }
}

/** The line that `input()` asks for. */
function Answer({ session, request }: { session: Session; request: InputRequest }): JSX.Element {
  const [text, setText] = useState("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), [request.request]);
  const id = `answer-${request.request}`;
  return (
    <form class="answer" onSubmit={(event) => { event.preventDefault(); session.answer(request.request, text); setText(""); }}>
      <label for={id}>{request.prompt === "" ? "The cell asks for a line" : request.prompt}</label>
      <input id={id} ref={field} value={text} autocomplete="off" spellcheck={false} {...(request.password ? { type: "password" as const } : {})}
        onInput={(event) => setText(event.currentTarget.value)} onKeyDown={(event) => event.stopPropagation()} />
      <button type="submit" class="button strong">Answer</button>
      <button type="button" class="button" title="input() raises EOFError" onClick={() => session.answer(request.request, null)}>No answer</button>
    </form>
  );
}
