import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { EVENT_KINDS } from "../src/wire.ts";

/** The kinds of events in a frozen schema of the server. */
function kinds(name: string): string[] {
  const text = readFileSync(new URL(`../../src/api/native/snapshots/evercell__api__native__schema__tests__${name}.snap`, import.meta.url), "utf8");
  return [...text.matchAll(/"event": \{\s*"type": "string",\s*"const": "(\w+)"/g), ...text.matchAll(/"event": \{\s*"const": "(\w+)"/g)].map((match) => match[1] ?? "");
}

test("every kind of event that the page reads is one that the server has", () => {
  const all = [...kinds("events_schema"), ...kinds("live_schema")];
  expect(all.length).toBeGreaterThan(20);
  expect(EVENT_KINDS.filter((kind) => !all.includes(kind))).toEqual([]);
});
