// Takes from a frame what no content security policy forbids, before anything hostile runs in it: WebRTC, which sends to wherever it is told, and hints
// to look up or connect to a server, whose name can carry something out.
//
// There is no way round it within the frame: it has no frames, and if it had, they would be of yet another origin and run no scripts, since none has the hash that it would need; and all markup that
// becomes elements comes through one gate, the default policy of trusted types, where the browser has them.

/** Elements that reach out by themselves. None of them could show anything under the policy of a frame, but browsers connect before they ask it. */
const REACHING = /^(?:.*:)?(?:link|meta|base|iframe|frame|fencedframe|object|embed)$/i;

/** A tag begins with `<` and its name, with nothing between, wherever a parser may be. `metadata` of SVG does no harm. */
const TAG = /<(?=link|meta(?!data)|base|iframe|frame|fencedframe|object|embed)/gi;

/** Markup without elements that reach out. */
export function tame(html: string): string {
  return html.replace(TAG, "<x-");
}

interface TrustedTypes {
  createPolicy(name: string, rules: { createHTML: (text: string) => string; createScript: (text: string) => string }): unknown;
}

export function disarm(): void {
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    // XSLT makes elements of names that stand nowhere as markup.
    if (/^(webkit)?RTC|^XSLTProcessor$/.test(name)) Object.defineProperty(globalThis, name, { value: undefined, writable: false, configurable: false });
  }
  const { trustedTypes } = globalThis as { trustedTypes?: TrustedTypes };
  trustedTypes?.createPolicy("default", { createHTML: tame, createScript: (text) => text });
  guard(Document.prototype, "createElement", 0);
  guard(Document.prototype, "createElementNS", 1);
  const define = customElements.define.bind(customElements);
  Object.defineProperty(CustomElementRegistry.prototype, "define", {
    writable: false,
    configurable: false,
    // Elements that extend those of HTML are not to be had here: `link` could be one of them.
    value: (name: string, constructor: CustomElementConstructor) => { define(name, constructor); },
  });
  for (const [owner, name] of [[Element.prototype, "setHTML"], [ShadowRoot.prototype, "setHTML"], [Document, "parseHTML"]] as const) {
    if (name in owner) Object.defineProperty(owner, name, { value: undefined, writable: false, configurable: false });
  }
  for (const element of document.querySelectorAll("meta, script")) element.remove();
}

/** Has a method that makes elements make harmless ones instead of those that reach out. */
function guard(owner: Document, method: "createElement" | "createElementNS", index: number): void {
  // eslint-disable-next-line @typescript-eslint/unbound-method -- it is called with the document that it was called with
  const make = owner[method] as (...parts: unknown[]) => Element;
  Object.defineProperty(owner, method, {
    writable: false,
    configurable: false,
    value(this: Document, ...parts: unknown[]): Element {
      // Asked once: what is asked twice could answer differently.
      const name = String(parts[index]);
      return make.call(this, ...parts.slice(0, index), REACHING.test(name) ? "x-element" : name);
    },
  });
}
