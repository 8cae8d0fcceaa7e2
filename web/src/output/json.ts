// A JSON value as a tree that opens and closes, as markup for a frame. Pure.

const MOST_NODES = 3000;

export function jsonMarkup(value: unknown): string {
  const budget = { nodes: MOST_NODES };
  return `<div class="json">${node(value, null, budget, true)}</div>`;
}

function node(value: unknown, key: string | null, budget: { nodes: number }, isOpen: boolean): string {
  budget.nodes -= 1;
  const name = key === null ? "" : `<span class="json-key">${escape(key)}</span>: `;
  if (typeof value !== "object" || value === null) return `<div class="json-leaf">${name}${escape(leaf(value))}</div>`;
  const entries = Object.entries(value);
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  if (entries.length === 0) return `<div class="json-leaf">${name}${open}${close}</div>`;
  const parts: string[] = [];
  for (const [childKey, child] of entries) {
    if (budget.nodes <= 0) {
      parts.push(`<div class="json-leaf json-more">… ${entries.length - parts.length} more</div>`);
      break;
    }
    parts.push(node(child, childKey, budget, false));
  }
  const count = `<span class="json-more">${open}${entries.length}${close}</span>`;
  return `<details class="json"${isOpen ? " open" : ""}><summary>${name}${count}</summary>${parts.join("")}</details>`;
}

const LONGEST_LEAF = 10_000;

function leaf(value: unknown): string {
  if (typeof value === "string" && value.length > LONGEST_LEAF) return `${JSON.stringify(value.slice(0, LONGEST_LEAF))} … ${value.length - LONGEST_LEAF} more`;
  return JSON.stringify(value) ?? "undefined";
}

/** A text that is text in any markup. */
export function escape(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
