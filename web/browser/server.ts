// A real server for a test: the program as it was built, on a data directory of its own.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const root = resolve(import.meta.dirname, "../..");

export const TOKEN = "a-token-for-tests";
export const PROGRAM = process.env["EVERCELL_PROGRAM"] ?? join(root, "target/debug/evercell");
export const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

export class Server {
  private constructor(private child: ChildProcess, readonly address: string, private readonly directory: string, private readonly options: readonly string[]) {}

  static async start(...options: string[]): Promise<Server> {
    if (!existsSync(PROGRAM)) throw new Error(`there is no program at ${PROGRAM}; \`cargo build\` makes it`);
    const directory = mkdtempSync(join(tmpdir(), "evercell-web-"));
    const { child, address } = await run(directory, "127.0.0.1:0", options);
    return new Server(child, address, directory, options);
  }

  get url(): string {
    return `http://${this.address}`;
  }

  /** Kills it as a crash does; its sandboxes live on. */
  async kill(): Promise<void> {
    const gone = once(this.child, "exit");
    this.child.kill("SIGKILL");
    await gone;
  }

  /** Stops it, which ends its sessions, and starts it again. */
  async restart(): Promise<void> {
    const gone = once(this.child, "exit");
    this.child.kill("SIGTERM");
    await gone;
    await this.startAgain();
  }

  /** Starts another one on the same data, at the same address. */
  async startAgain(token = TOKEN): Promise<void> {
    this.child = (await run(this.directory, this.address, this.options, token)).child;
  }

  async stop(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const gone = once(this.child, "exit");
      this.child.kill("SIGTERM");
      await gone;
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function run(directory: string, listen: string, options: readonly string[], token = TOKEN): Promise<{ child: ChildProcess; address: string }> {
  const child = spawn(
    PROGRAM,
    ["serve", "--listen", listen, "--token", token, "--data-dir", join(directory, "data"), "--python-env", join(root, ".venv"), "--kernel-lib", join(root, "kernel-image"),
      "--pool", "2", "--grace", "100ms", ...options],
    { stdio: ["ignore", "pipe", process.env["EVERCELL_LOG"] === undefined ? "ignore" : "inherit"], env: { ...process.env, EVERCELL_ORPHAN_LIMIT: "60s" } },
  );
  for await (const line of createInterface({ input: child.stdout })) {
    const match = /http:\/\/([^/]+)\//.exec(line);
    if (match?.[1] !== undefined) return { child, address: match[1] };
  }
  throw new Error("the server ended before it was ready");
}

/** Asks a server as a program does. */
export async function ask(url: string, method: string, path: string, body?: unknown): Promise<unknown> {
  const response = await fetch(url + path, { method, headers: { Authorization: `Bearer ${TOKEN}` }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response.status === 204 ? null : response.json();
}
