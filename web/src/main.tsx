// Finds out who comes and where to, and draws that.

import { render, type JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import "./styles/base.css";
import "./styles/notebook.css";
import "./styles/widgets.css";
import { Api } from "./api.ts";
import * as token from "./token.ts";
import { Boundary, Broken } from "./view/broken.tsx";
import { Home, Login } from "./view/home.tsx";
import { followKeyboard } from "./view/keyboard.ts";
import { SessionPage } from "./view/page.tsx";

function sessionOfAddress(): string | null {
  const match = /^#\/s\/([^/]+)$/.exec(location.hash);
  if (match === null) return null;
  try {
    return decodeURIComponent(match[1] ?? "");
  } catch {
    return null;
  }
}

function App({ first }: { first: string | null }): JSX.Element {
  const [secret, setSecret] = useState(first);
  const [why, setWhy] = useState("");
  const [session, setSession] = useState(sessionOfAddress);
  useEffect(() => {
    const listen = (): void => {
      // The address of a ready line, put into a tab that is open already.
      const given = token.takeFromAddress();
      if (given !== null) setSecret(given);
      setSession(sessionOfAddress());
    };
    addEventListener("hashchange", listen);
    return () => removeEventListener("hashchange", listen);
  }, []);
  const api = useMemo(() => new Api(secret ?? ""), [secret]);
  const refuse = (reason: string): void => {
    token.forget();
    setWhy(secret === null || secret === "" ? "" : reason);
    setSecret(null);
  };
  if (secret === null) {
    return <Login why={why} onToken={(given) => { token.keep(given); setWhy(""); setSecret(given); }} />;
  }
  if (session !== null) return <SessionPage key={session} api={api} id={session} onLogin={() => refuse("")} />;
  return <Home api={api} onUnauthorized={refuse} />;
}

async function start(): Promise<void> {
  const root = document.getElementById("root");
  if (root === null) return;
  // A server that asks for no token is found out by asking it: an empty one is tried first.
  const secret = token.takeFromAddress() ?? token.kept() ?? (await token.askOthers()) ?? "";
  token.share();
  followKeyboard();
  render(<Boundary><App first={secret} /></Boundary>, root);
}

start().catch((error: unknown) => {
  const root = document.getElementById("root");
  if (root !== null) render(<Broken error={error} />, root);
});
