// Text with the escape sequences of a terminal, as pieces of one look each. Pure; what it returns is drawn as text, never as markup.

export interface Look {
  /** 0 to 15 of the palette, or a colour as `rgb(…)`. */
  readonly ink: number | string | null;
  readonly paper: number | string | null;
  readonly isBold: boolean;
  readonly isDim: boolean;
  readonly isItalic: boolean;
  readonly isUnderlined: boolean;
  readonly isStruck: boolean;
  readonly isInverse: boolean;
}

export interface Piece {
  readonly text: string;
  readonly look: Look | null;
}

const PLAIN: Look = {
  ink: null, paper: null, isBold: false, isDim: false, isItalic: false, isUnderlined: false, isStruck: false, isInverse: false,
};

/** The widest line that is drawn as a terminal would; beyond it text goes on without being overwritten. */
const WIDEST = 4096;

/** Reads a text that begins with a plain look. */
export function pieces(text: string): Piece[] {
  if (!/[\x00-\x08\x0b-\x1f\x7f]/.test(text)) return text === "" ? [] : [{ text, look: null }];
  return (/\r(?!\n)|\x08|\x1b\[[0-9;]*[A-HJKf]/.test(text) ? drawn(text) : null) ?? coloured(text);
}

/** The text alone, as it would stand on a terminal. */
export function plain(text: string): string {
  return pieces(text).map((piece) => piece.text).join("");
}

// OSC with its end, CSI, other escapes of two characters, and control characters but tab and newline.
const SEQUENCE = /\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[([0-9;:?<=>]*)[ -/]*([@-~])|\x1b[^[\]]|[\x00-\x08\x0b-\x1f\x7f]/g;

/** Only colours: no need to know where anything stands. */
function coloured(text: string): Piece[] {
  const result: Piece[] = [];
  let look = PLAIN;
  let from = 0;
  for (const match of text.matchAll(SEQUENCE)) {
    if (match.index > from) result.push({ text: text.slice(from, match.index), look: look === PLAIN ? null : look });
    from = match.index + match[0].length;
    if (match[2] === "m") look = dressed(look, match[1] ?? "");
  }
  if (from < text.length) result.push({ text: text.slice(from), look: look === PLAIN ? null : look });
  return result;
}

/** Lines that overwrite themselves and each other; null where a text asks for far more cells than it has characters. */
function drawn(text: string): Piece[] | null {
  // Cells that are filled or erased without being written.
  let budget = 4 * text.length + 64 * 1024;
  const lines: { chars: string[]; looks: Look[] }[] = [{ chars: [], looks: [] }];
  let row = 0;
  let column = 0;
  let look = PLAIN;
  const put = (run: string): void => {
    for (const char of run) {
      if (char === "\n") {
        row += 1;
        column = 0;
        if (row === lines.length) lines.push({ chars: [], looks: [] });
        continue;
      }
      const line = lines[row];
      if (line === undefined) return;
      budget -= Math.max(0, column - line.chars.length);
      if (budget < 0) return;
      while (line.chars.length < column) {
        line.chars.push(" ");
        line.looks.push(PLAIN);
      }
      line.chars[column] = char;
      line.looks[column] = look;
      column += 1;
    }
  };
  let from = 0;
  for (const match of text.matchAll(SEQUENCE)) {
    put(text.slice(from, match.index));
    from = match.index + match[0].length;
    if (match[0] === "\r") column = 0;
    else if (match[0] === "\b") column = Math.max(0, column - 1);
    else if (match[2] === "m") look = dressed(look, match[1] ?? "");
    else if (match[2] !== undefined) {
      const count = Math.min(Math.max(Number.parseInt(match[1] ?? "", 10) || 0, 0), WIDEST);
      const line = lines[row];
      switch (match[2]) {
        case "A":
          row = Math.max(0, row - Math.max(count, 1));
          break;
        case "B":
          row = Math.min(lines.length - 1, row + Math.max(count, 1));
          break;
        case "C":
          column = Math.min(WIDEST, column + Math.max(count, 1));
          break;
        case "D":
          column = Math.max(0, column - Math.max(count, 1));
          break;
        case "G":
          column = Math.max(0, count - 1);
          break;
        case "K":
          if (line !== undefined) budget -= erase(line, count, column);
          break;
      }
    }
    if (budget < 0) return null;
  }
  put(text.slice(from));
  return budget < 0 ? null : joined(lines);
}

/** Erases in a line; returns how many cells that took. */
function erase(line: { chars: string[]; looks: Look[] }, how: number, column: number): number {
  if (how === 0) {
    line.chars.length = Math.min(line.chars.length, column);
    line.looks.length = line.chars.length;
    return 0;
  }
  const end = how === 2 ? line.chars.length : Math.min(column + 1, line.chars.length);
  line.chars.fill(" ", 0, end);
  line.looks.fill(PLAIN, 0, end);
  return end;
}

function joined(lines: readonly { chars: string[]; looks: Look[] }[]): Piece[] {
  const result: Piece[] = [];
  let text = "";
  let look = PLAIN;
  const flush = (): void => {
    if (text !== "") result.push({ text, look: look === PLAIN ? null : look });
    text = "";
  };
  lines.forEach((line, row) => {
    line.chars.forEach((char, column) => {
      const own = line.looks[column] ?? PLAIN;
      if (own !== look) {
        flush();
        look = own;
      }
      text += char;
    });
    if (row < lines.length - 1) text += "\n";
  });
  flush();
  return result;
}

/** A look after a `CSI … m`. */
function dressed(look: Look, parameters: string): Look {
  const codes = parameters.split(/[;:]/).map((code) => Number.parseInt(code, 10) || 0);
  let next: Look = look;
  for (let index = 0; index < codes.length; index += 1) {
    const code = codes[index] ?? 0;
    if (code === 0) next = PLAIN;
    else if (code === 1) next = { ...next, isBold: true };
    else if (code === 2) next = { ...next, isDim: true };
    else if (code === 3) next = { ...next, isItalic: true };
    else if (code === 4) next = { ...next, isUnderlined: true };
    else if (code === 7) next = { ...next, isInverse: true };
    else if (code === 9) next = { ...next, isStruck: true };
    else if (code === 22) next = { ...next, isBold: false, isDim: false };
    else if (code === 23) next = { ...next, isItalic: false };
    else if (code === 24) next = { ...next, isUnderlined: false };
    else if (code === 27) next = { ...next, isInverse: false };
    else if (code === 29) next = { ...next, isStruck: false };
    else if (code >= 30 && code <= 37) next = { ...next, ink: code - 30 };
    else if (code >= 90 && code <= 97) next = { ...next, ink: code - 82 };
    else if (code === 39) next = { ...next, ink: null };
    else if (code >= 40 && code <= 47) next = { ...next, paper: code - 40 };
    else if (code >= 100 && code <= 107) next = { ...next, paper: code - 92 };
    else if (code === 49) next = { ...next, paper: null };
    else if (code === 38 || code === 48) {
      const [colour, used] = extended(codes, index + 1);
      index += used;
      if (colour !== null) next = code === 38 ? { ...next, ink: colour } : { ...next, paper: colour };
    }
  }
  return isPlain(next) ? PLAIN : next;
}

/** A colour of 256 or of all, and how many parameters it took. */
function extended(codes: readonly number[], at: number): [number | string | null, number] {
  if (codes[at] === 5) {
    const n = codes[at + 1] ?? 0;
    if (n < 16) return [n, 2];
    if (n >= 232) {
      const grey = 8 + (Math.min(n, 255) - 232) * 10;
      return [`rgb(${grey},${grey},${grey})`, 2];
    }
    const level = (value: number): number => (value === 0 ? 0 : 55 + value * 40);
    const index = n - 16;
    return [`rgb(${level(Math.floor(index / 36))},${level(Math.floor(index / 6) % 6)},${level(index % 6)})`, 2];
  }
  if (codes[at] === 2) {
    const [red, green, blue] = codes.slice(at + 1, at + 4).map((value) => Math.min(value, 255));
    return [`rgb(${red ?? 0},${green ?? 0},${blue ?? 0})`, 4];
  }
  return [null, 0];
}

function isPlain(look: Look): boolean {
  return (
    look.ink === null && look.paper === null && !look.isBold && !look.isDim && !look.isItalic && !look.isUnderlined && !look.isStruck && !look.isInverse
  );
}
