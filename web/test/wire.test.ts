import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { causeText, stateText } from "../src/verdict.ts";
import { EVENT_KINDS, type Verdict } from "../src/wire.ts";

/** The kinds of events in a frozen schema of the server. */
function kinds(name: string): string[] {
  const text = readFileSync(new URL(`../../src/api/native/snapshots/evercell__api__native__schema__tests__${name}.snap`, import.meta.url), "utf8");
  return [...text.matchAll(/"event": \{\s*"type": "string",\s*"const": "(\w+)"/g), ...text.matchAll(/"event": \{\s*"const": "(\w+)"/g)].map((match) => match[1] ?? "");
}

/** The values that a tag may have in the frozen schema of events. */
function tags(tag: string): string[] {
  const text = readFileSync(new URL("../../src/api/native/snapshots/evercell__api__native__schema__tests__events_schema.snap", import.meta.url), "utf8");
  return [...text.matchAll(new RegExp(`"${tag}": \\{\\s*(?:"type": "string",\\s*)?"const": "(\\w+)"`, "g"))].map((match) => match[1] ?? "");
}

test("the page reads every kind of event that the server has, and no other", () => {
  const all = [...new Set([...kinds("events_schema"), ...kinds("live_schema")])];
  expect(all.length).toBeGreaterThan(20);
  expect([...EVENT_KINDS].sort()).toEqual(all.sort());
});

test("every cause has a sentence, and so has every verdict", () => {
  const causes = tags("kind");
  expect(causes.length).toBeGreaterThan(15);
  expect(causes.filter((kind) => causeText({ kind }).startsWith("Ended: "))).toEqual([]);
  const verdicts = tags("verdict");
  expect(verdicts.length).toBeGreaterThan(3);
  expect(verdicts.filter((verdict) => typeof stateText({ verdict } as Verdict, null, () => "a cell") !== "string")).toEqual([]);
});
