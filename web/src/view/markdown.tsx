// A Markdown cell, drawn in the page: elements are made one by one from the tokens, so nothing in the text can become markup.

import { createElement, Fragment, type ComponentChildren, type JSX } from "preact";
import { memo } from "preact/compat";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Token } from "markdown-it";
import { isWebAddress } from "../frame/messages.ts";
import type { Attachments } from "../imported.ts";
import { bytesOf, pictureOf } from "../output/mime.ts";
import type * as RichModule from "../output/rich.ts";

type Rich = typeof RichModule;

let rich: Rich | null = null;

export const Markdown = memo(function Markdown({ text, attachments }: { text: string; attachments: Attachments | undefined }): JSX.Element {
  const [library, setLibrary] = useState<Rich | null>(rich);
  useEffect(() => {
    if (library !== null) return;
    let isGone = false;
    void import("../output/rich.ts").then((loaded) => {
      rich = loaded;
      if (!isGone) setLibrary(loaded);
    });
    return () => { isGone = true; };
  }, [library]);
  if (library === null) return <div class="markdown plain">{text}</div>;
  return <div class="markdown">{build(library.tokens(text), { library, attachments })}</div>;
});

/** Elements that tokens may become. Whatever else a token wants to be, its text is shown. */
const ELEMENTS = new Set([
  "h1", "h2", "h3", "h4", "h5", "h6", "p", "ul", "ol", "li", "blockquote", "em", "strong", "s", "table", "thead", "tbody", "tr", "th", "td", "a",
]);

interface With {
  library: Rich;
  attachments: Attachments | undefined;
}

function build(tokens: readonly Token[], has: With): ComponentChildren {
  const root: ComponentChildren[] = [];
  const stack: { tag: string; props: Record<string, unknown>; children: ComponentChildren[] }[] = [];
  const add = (child: ComponentChildren): void => {
    (stack.at(-1)?.children ?? root).push(child);
  };
  for (const token of tokens) {
    if (token.nesting === 1) {
      stack.push({ tag: token.hidden ? "" : token.tag, props: propsOf(token), children: [] });
    } else if (token.nesting === -1) {
      const done = stack.pop();
      if (done === undefined) continue;
      if (ELEMENTS.has(done.tag)) add(createElement(done.tag, done.props, done.children));
      else add(createElement(Fragment, null, done.children));
    } else {
      add(leaf(token, has));
    }
  }
  return root;
}

function propsOf(token: Token): Record<string, unknown> {
  if (token.type === "link_open") {
    const address = String(token.attrGet("href") ?? "");
    return isWebAddress(address) ? { href: address, target: "_blank", rel: "noopener noreferrer" } : {};
  }
  const start = token.type === "ordered_list_open" ? token.attrGet("start") : null;
  return start === null ? {} : { start: Number(start) };
}

function leaf(token: Token, has: With): ComponentChildren {
  switch (token.type) {
    case "inline": return build(token.children ?? [], has);
    case "text": return token.content;
    case "softbreak": return "\n";
    case "hardbreak": return <br />;
    case "hr": return <hr />;
    case "code_inline": return <code>{token.content}</code>;
    case "code_block":
    case "fence": return <pre class="text"><code>{token.content}</code></pre>;
    case "image": return <Attached token={token} has={has} />;
    case "math": return <Formula text={token.content} isDisplay={token.markup === "$$"} library={has.library} />;
    default: return token.content;
  }
}

/** A picture that is attached to the cell. Others would be loaded from elsewhere, which the page does not do. */
function Attached({ token, has }: { token: Token; has: With }): JSX.Element {
  const name = /^attachment:(.*)$/.exec(String(token.attrGet("src") ?? ""))?.[1];
  const picture = name === undefined ? null : pictureOf(has.attachments?.[has.library.nameOf(name)]);
  const [address, setAddress] = useState<string | null>(null);
  useEffect(() => {
    const [, type, base64] = /^data:([^;]*);base64,(.*)$/.exec(picture ?? "") ?? [];
    const content = base64 === undefined ? null : bytesOf(base64);
    if (content === null) return setAddress(null);
    const made = URL.createObjectURL(new Blob([content], { type: type ?? "" }));
    setAddress(made);
    return () => URL.revokeObjectURL(made);
  }, [picture]);
  return address === null ? <span class="quiet-note">[picture: {token.content}]</span> : <img src={address} alt={token.content} />;
}

function Formula({ text, isDisplay, library }: { text: string; isDisplay: boolean; library: Rich }): JSX.Element {
  const element = useRef<HTMLSpanElement>(null);
  useLayoutEffect(() => {
    if (element.current !== null) library.drawMath(text, element.current, isDisplay);
  }, [text, isDisplay, library]);
  return <span ref={element} class={isDisplay ? "formula display" : "formula"} />;
}
