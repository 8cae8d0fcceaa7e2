// How much more time the running cell can be given: one answer for the key, for the buttons and for what is read out. Pure.

import type { Execution } from "./reduce.ts";

const STEPS: readonly number[] = [30_000, 120_000];
/** Where less than this is left, all of it is an offer too. */
const WHOLE_BELOW = 600_000;

/** In milliseconds, whole seconds each; the first is what the key takes. None of them is more than the ceiling leaves. */
export function offers(run: Execution): readonly number[] {
  const room = Math.floor(run.extendableMs / 1000) * 1000;
  const choices = STEPS.filter((ms) => ms <= room);
  if (room > 0 && (choices.length === 0 || (room < WHOLE_BELOW && !choices.includes(room)))) choices.push(room);
  return choices;
}
