// Places between places: texts that sort as the cells do, with always room for another one between two. Pure.

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE = DIGITS.length;
const HIGHEST = BASE - 1;
/** The most digits of a counter: as many as a number can count. */
const WIDEST = 8;

/**
 * A place after `before` and before `after`; "" is the beginning, null the end. The last digit is never the lowest, so there is always room.
 *
 * Where only one side is near, as behind the last cell, places are counted on from there, so that they stay short however many follow one another.
 */
export function between(before: string, after: string | null): string {
  for (let index = 0; ; index += 1) {
    const place = before.slice(0, index).padEnd(index, DIGITS[0]);
    if (after === null) return place + counted(before.slice(index), 1);
    if (index >= before.length) return place + counted(after.slice(index), -1);
    const low = digit(before, index);
    const high = digit(after, index);
    if (high - low > 1) return place + DIGITS[Math.floor((low + high) / 2)];
    // From the next digit on anything that is greater than `before` is smaller than `after`.
    if (high > low) after = null;
  }
}

/** The next place after or before one. A counter of 1, 2, 4, then always 8 digits, and before it the outermost digit as often as counters were too short. */
function counted(from: string, by: 1 | -1): string {
  if (from === "") return DIGITS[BASE / 2] ?? "";
  const edge = by === 1 ? HIGHEST : 0;
  let edges = 0;
  while (edges < from.length && digit(from, edges) === edge) edges += 1;
  const width = Math.min(2 ** edges, WIDEST);
  let count = by;
  for (let index = 0; index < width; index += 1) count += digit(from, edges + index) * BASE ** (width - 1 - index);
  const first = Math.floor(count / BASE ** (width - 1));
  const isOver = by === 1 ? first >= edge : first <= edge;
  return isOver ? outermost(edges + 1, by) : (DIGITS[edge] ?? "").repeat(edges) + written(count, width);
}

/** The first place of the next longer counter. */
function outermost(edges: number, by: 1 | -1): string {
  const width = Math.min(2 ** edges, WIDEST);
  return by === 1 ? (DIGITS[HIGHEST] ?? "").repeat(edges) + written(1, width) : (DIGITS[0] ?? "").repeat(edges) + (DIGITS[HIGHEST] ?? "").repeat(width);
}

function written(count: number, width: number): string {
  let digits = "";
  for (let index = 0; index < width; index += 1) {
    digits = (DIGITS[count % BASE] ?? "") + digits;
    count = Math.floor(count / BASE);
  }
  return digits.replace(/0+$/, "");
}

function digit(place: string, index: number): number {
  return index < place.length ? Math.max(DIGITS.indexOf(place[index] ?? ""), 0) : 0;
}

/** Whether a text can be a place. */
export function isPlace(value: unknown): value is string {
  return typeof value === "string" && /^[0-9A-Za-z]*[1-9A-Za-z]$/.test(value);
}
