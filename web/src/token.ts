// The token: it comes behind the `#` of the address or from a form, is kept for this tab, and goes nowhere but into headers. A tab that is opened
// beside asks the others for it.

const KEY = "evercell:token";
const CHANNEL = "evercell:token";

/** The token of the address, if it has one; takes it out of there. */
export function takeFromAddress(): string | null {
  const inFragment = new URLSearchParams(location.hash.slice(1)).get("token");
  const inQuery = new URLSearchParams(location.search).get("token");
  const token = inFragment ?? inQuery;
  if (token === null) return null;
  const query = new URLSearchParams(location.search);
  query.delete("token");
  const rest = query.size === 0 ? "" : `?${query.toString()}`;
  history.replaceState(null, "", location.pathname + rest + (inFragment === null ? location.hash : ""));
  keep(token);
  return token;
}

export function kept(): string | null {
  return sessionStorage.getItem(KEY);
}

export function keep(token: string): void {
  sessionStorage.setItem(KEY, token);
}

export function forget(): void {
  sessionStorage.removeItem(KEY);
}

/** Answers other tabs of this origin that have no token. Frames of outputs have an origin of their own and hear nothing of it. */
export function share(): void {
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = ({ data }) => {
    const token = kept();
    if (data === "who?" && token !== null) channel.postMessage({ token });
  };
}

/** Asks other tabs for the token, for a moment. */
export function askOthers(): Promise<string | null> {
  const channel = new BroadcastChannel(CHANNEL);
  return new Promise((resolve) => {
    const done = (token: string | null): void => {
      channel.close();
      if (token !== null) keep(token);
      resolve(token);
    };
    channel.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (typeof data === "object" && data !== null && "token" in data && typeof data.token === "string") done(data.token);
    };
    channel.postMessage("who?");
    setTimeout(() => done(null), 150);
  });
}
