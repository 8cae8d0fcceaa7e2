// Places between places: texts that sort as the cells do, with always room for another one between two. Pure.

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** A place after `before` and before `after`; "" is the beginning, null the end. The last digit is never the lowest, so there is always room. */
export function between(before: string, after: string | null): string {
  let place = "";
  for (let index = 0; ; index += 1) {
    const low = digit(before, index, 0);
    const high = after === null ? DIGITS.length : digit(after, index, 0);
    if (high - low > 1) return place + DIGITS[Math.floor((low + high) / 2)];
    place += DIGITS[low] ?? "0";
    // From here on anything that is greater than `before` is smaller than `after`.
    if (high > low) after = null;
  }
}

function digit(place: string, index: number, otherwise: number): number {
  return index < place.length ? Math.max(DIGITS.indexOf(place[index] ?? "0"), 0) : otherwise;
}

/** Whether a text can be a place. */
export function isPlace(value: unknown): value is string {
  return typeof value === "string" && value.length <= 256 && /^[0-9A-Za-z]*[1-9A-Za-z]$/.test(value);
}
