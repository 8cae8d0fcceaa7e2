// The text of one stream as the page holds it: its head and its tail, however much was written. What lies between is read from the server by range.

import type { StreamName } from "./wire.ts";

/** How much is held before the head is closed, and how much of the tail stays when it is cut, in characters. */
export const HEAD = 48 * 1024;
export const TAIL = 48 * 1024;

export interface StreamOutput {
  readonly kind: "stream";
  readonly key: number;
  readonly name: StreamName;
  readonly head: string;
  readonly tail: string;
  /** Where in the cell's output of this stream it begins, in bytes of UTF-8. */
  readonly from: number;
  /** How much was written here, in bytes, with what it overwrote of itself. */
  readonly size: number;
  /** Where in the cell's output of this stream the head ends, once it is closed. */
  readonly headEnd: number | null;
  /** How much lies between head and tail, in bytes; more than is missing, where the tail has overwritten itself. */
  readonly leftOut: number;
}

export function emptyStream(key: number, name: StreamName, from: number): StreamOutput {
  return { kind: "stream", key, name, head: "", tail: "", from, size: 0, headEnd: null, leftOut: 0 };
}

/** Appends a text. `bytes` is how much was written: more than the text has, if it comes without what it overwrote of itself. */
export function appendText(output: StreamOutput, text: string, bytes = utf8Length(text)): StreamOutput {
  let { head, tail, headEnd, leftOut } = output;
  const at = output.from + output.size;
  const size = output.size + bytes;
  if (headEnd === null) {
    const room = HEAD - head.length;
    if (text.length <= room) return { ...output, size, head: foldLastLine(head, text) };
    // Where in a text that was folded its parts were written nobody knows, so it is not cut.
    const cut = bytes === utf8Length(text) ? cutBefore(text, Math.max(room, 0)) : 0;
    const first = text.slice(0, cut);
    head = foldLastLine(head, first);
    headEnd = at + utf8Length(first);
    text = text.slice(cut);
  }
  tail = foldLastLine(tail, text);
  if (tail.length > 2 * TAIL) {
    tail = tail.slice(cutAfter(tail, tail.length - TAIL));
    leftOut = Math.max(0, output.from + size - headEnd - utf8Length(tail));
  }
  return { ...output, size, head, tail, headEnd, leftOut };
}

/** Notes that the server left out a part. */
export function skipText(output: StreamOutput, bytes: number): StreamOutput {
  const size = output.size + bytes;
  const headEnd = output.headEnd ?? output.from + output.size;
  return { ...output, size, headEnd, tail: "", leftOut: output.from + size - headEnd };
}

/** Where to cut a text so that at most `room` characters come before: after a line if there is one, and never within a character. */
function cutBefore(text: string, room: number): number {
  const line = text.lastIndexOf("\n", room - 1);
  return line >= 0 && room > 0 ? line + 1 : boundary(text, room);
}

/** Where to cut a text so that at least `from` characters come before, at the beginning of a line if one begins soon. */
function cutAfter(text: string, from: number): number {
  const line = text.indexOf("\n", from - 1);
  return line >= 0 && line < from + 4096 ? line + 1 : boundary(text, from);
}

function boundary(text: string, at: number): number {
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code < 0xe000 ? at - 1 : at;
}

/**
 * Appends to a text, and forgets what its last line overwrote of itself by carriage returns, as a progress bar does thousands of times. Only lines
 * without escape sequences that move the cursor are folded here; the rest is for whoever draws it.
 */
function foldLastLine(text: string, more: string): string {
  if (!more.includes("\r")) return text + more;
  const line = text.lastIndexOf("\n") + 1;
  const joined = text.slice(line) + more;
  const folded = joined
    .split("\n")
    .map((part, index, parts) => foldReturns(part, index === parts.length - 1))
    .join("\n");
  return text.slice(0, line) + folded;
}

/** A line without what it overwrote from its beginning on. A return at its very end stays: what comes next overwrites. */
function foldReturns(line: string, isOpen: boolean): string {
  if (!line.includes("\r") || MOVES.test(line)) return line;
  const parts = line.split("\r");
  // A colour that is not taken back holds beyond its part.
  if (line.includes("\x1b") && parts.some((part) => part.includes("\x1b") && !/\x1b\[0?m[^\x1b]*$/.test(part))) return line;
  const isReturned = parts.at(-1) === "";
  // What is shorter than something after it is overwritten whole; the end of what is longer still stands.
  const visible: string[] = [];
  let reach = 0;
  for (const part of parts.reverse()) {
    const length = visibleLength(part);
    if (length > reach) {
      visible.unshift(part);
      reach = length;
    }
  }
  return visible.join("\r") + (isReturned && isOpen ? "\r" : "");
}

/** Escape sequences that do more than colour, and backspaces. */
const MOVES = /\x1b(?!\[[0-9;:]*m)|\x08/;

function visibleLength(text: string): number {
  return text.includes("\x1b") ? text.replace(/\x1b\[[0-9;:]*m/g, "").length : text.length;
}

/** How many bytes a text has as UTF-8. */
export function utf8Length(text: string): number {
  let bytes = text.length;
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    if (code < 0x80) continue;
    if (code < 0x800) bytes += 1;
    else if (code >= 0xd800 && code < 0xdc00 && index + 1 < text.length) {
      bytes += 2;
      index += 1;
    } else bytes += 2;
  }
  return bytes;
}
