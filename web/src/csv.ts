// The first rows of a table in a text file, and of what type its columns look. Pure.

export interface Table {
  readonly header: readonly string[];
  readonly types: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** Reads the beginning of a file; `isWhole` says whether its last line is a whole one. */
export function readTable(text: string, isWhole: boolean, most = 100): Table | null {
  const first = text.split("\n", 1)[0] ?? "";
  const separator = [",", ";", "\t", "|"].map((char) => ({ char, count: first.split(char).length })).sort((a, b) => b.count - a.count)[0]?.char ?? ",";
  const rows: string[][] = [];
  let row: string[] = [];
  let field = "";
  let isQuoted = false;
  const text_ = text.replace(/^\ufeff/, "");
  for (let index = 0; index < text_.length && rows.length <= most; index += 1) {
    const char = text_[index] ?? "";
    if (isQuoted) {
      if (char === '"' && text_[index + 1] === '"') {
        field += '"';
        index += 1;
      } else if (char === '"') isQuoted = false;
      else field += char;
    } else if (char === '"' && field === "") isQuoted = true;
    else if (char === separator) {
      row.push(field);
      field = "";
    } else if (char === "\n") {
      row.push(field.replace(/\r$/, ""));
      rows.push(row);
      row = [];
      field = "";
    } else field += char;
  }
  if (isWhole && rows.length <= most && (field !== "" || row.length > 0)) rows.push([...row, field]);
  const [header, ...rest] = rows;
  if (header === undefined || header.length < 2) return null;
  return { header, types: header.map((_, column) => typeOf(rest.map((cells) => cells[column] ?? ""))), rows: rest };
}

function typeOf(values: readonly string[]): string {
  const present = values.map((value) => value.trim()).filter((value) => value !== "" && !/^(na|nan|null|none)$/i.test(value));
  if (present.length === 0) return "empty";
  if (present.every((value) => /^[+-]?\d+$/.test(value))) return "whole number";
  if (present.every((value) => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value))) return "number";
  if (present.every((value) => /^(true|false|yes|no)$/i.test(value))) return "yes or no";
  if (present.every((value) => /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$/.test(value))) return "date";
  return "text";
}
