import { expect, test } from "vitest";
import { pieces, plain } from "../src/output/ansi.ts";
import { appendText, emptyStream, utf8Length } from "../src/text.ts";
import { random } from "./log.ts";

test("a progress bar is one line, however often it was drawn", () => {
  let output = emptyStream(1, "stderr", 0);
  for (let index = 0; index < 100_000; index += 1) output = appendText(output, `\r${index} of 100000`);
  expect(output.head.length).toBeLessThan(100);
  expect(plain(output.head)).toBe("99999 of 100000");
});

test("what a shorter text leaves of a longer one still stands", () => {
  let output = emptyStream(1, "stdout", 0);
  for (const text of ["a long text\r", "short\r", "x"]) output = appendText(output, text);
  expect(plain(output.head)).toBe("xhortg text");
});

test("folding changes nothing of what is seen", () => {
  const next = random(3);
  const parts = ["\r", "\n", "ab", "xyz", "12345", "\x1b[31mred\x1b[0m", "\x1b[1mbold", "\x1b[K", "\r\n", "é"];
  for (let round = 0; round < 500; round += 1) {
    let output = emptyStream(1, "stdout", 0);
    let all = "";
    for (let index = 0; index < 12; index += 1) {
      const part = parts[Math.floor(next() * parts.length)] ?? "";
      output = appendText(output, part);
      all += part;
    }
    expect(plain(output.head), JSON.stringify(all)).toBe(plain(all));
  }
});

test("bytes are counted as the server counts them", () => {
  const encoder = new TextEncoder();
  for (const text of ["", "abc", "é", "漢字", "🙂 x", "a\ud800", "\udc00b"]) expect(utf8Length(text)).toBe(encoder.encode(text).length);
});

test("no character is cut in two", () => {
  const output = appendText(emptyStream(1, "stdout", 0), "🙂".repeat(200_000));
  expect(output.head.isWellFormed()).toBe(true);
  expect(output.tail.isWellFormed()).toBe(true);
  expect(utf8Length(output.head) + output.leftOut + utf8Length(output.tail)).toBe(800_000);
});

test("colours are looks of pieces, and what else a terminal would do leaves no trace", () => {
  expect(pieces("a \x1b[1;31mred\x1b[0m b")).toMatchObject([{ text: "a ", look: null }, { text: "red", look: { ink: 1, isBold: true } }, { text: " b", look: null }]);
  expect(pieces("\x1b[38;5;196mx\x1b[48;2;1;2;3my")).toMatchObject([{ look: { ink: "rgb(255,0,0)" } }, { look: { paper: "rgb(1,2,3)" } }]);
  expect(plain("\x1b]0;a title\x07text\x1b[2J\x00\x07")).toBe("text");
});

test("nested bars that move the cursor up overwrite the lines that they mean", () => {
  expect(plain("outer 1\ninner 1\x1b[A\router 2\n\rinner 2")).toBe("outer 2\ninner 2");
});

test("hostile sequences neither hang nor grow", () => {
  const started = "\x1b[999999999C\x1b[999999999B\x1b[999999999Ax\x1b[".repeat(2000);
  expect(plain(started).length).toBeLessThan(20_000_000);
});

test("a text that moves the cursor far makes no more of itself than a few times its length, and what was printed is there", () => {
  for (const attack of ["\n\x1b[4096Cx", "\x1b[4096Gx\n", "\x1b[4096C\n", "xyz".repeat(1000) + "\x1b[1K".repeat(1000)]) {
    const text = attack.repeat(10_000 / Math.max(1, attack.length / 10));
    const shown = plain(text);
    expect(shown.length, JSON.stringify(attack.slice(0, 20))).toBeLessThan(6 * text.length + 128 * 1024);
    expect(shown.match(/x/g)?.length).toBe(text.match(/x/g)?.length);
  }
});
