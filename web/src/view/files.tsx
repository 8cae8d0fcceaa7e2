// The files of the session: a tree, upload by dropping, download, and a look into them.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { readTable, type Table } from "../csv.ts";
import { bytes } from "../format.ts";
import { save } from "../save.ts";
import type { Session, View } from "../session.ts";
import type { FileEntry } from "../wire.ts";
import { Button, Icon } from "./icons.tsx";

interface Upload {
  name: string;
  sent: number;
  total: number;
  stop: AbortController;
}

/** Directories that are ours. */
const HIDDEN = new Set([".evercell"]);

export function FilesPanel({ session, view, onClose }: { session: Session; view: View; onClose: () => void }): JSX.Element {
  const [uploads, setUploads] = useState<Upload[]>([]);
  const [isOver, setOver] = useState(false);
  const [version, setVersion] = useState(0);
  const [shown, setShown] = useState<string | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const isLive = view.link.state === "live";
  const upload = async (file: File): Promise<void> => {
    const entry: Upload = { name: file.name, sent: 0, total: file.size, stop: new AbortController() };
    const update = (sent: number): void => setUploads((all) => all.map((other) => (other.stop === entry.stop ? { ...other, sent } : other)));
    setUploads((all) => [...all, entry]);
    try {
      await session.api.upload(session.id, file.name, file, update, entry.stop.signal);
      session.toast(`${file.name} is there`);
    } catch (error) {
      if (!(error instanceof DOMException)) session.complain(new Error(`\`${file.name}\` was not uploaded: ${error instanceof Error ? error.message : String(error)}`));
    }
    setUploads((all) => all.filter((other) => other.stop !== entry.stop));
    setVersion((count) => count + 1);
  };
  const uploadEach = async (files: readonly File[]): Promise<void> => {
    // One after the other: the slowest part is the network.
    for (const file of files) await upload(file);
  };
  const uploadAll = async (files: FileList | null): Promise<void> => {
    const all = [...(files ?? [])];
    const taken = await namesIn(session);
    const others = all.filter((file) => taken.has(file.name));
    if (others.length > 0) {
      session.show({
        kind: "confirm", title: others.length === 1 ? `Replace ${others[0]?.name ?? ""}?` : `Replace ${others.length} files?`,
        text: `${others.length === 1 ? "There is a file of this name" : `There are files of these names: ${others.map((file) => file.name).join(", ")}`}. What is in the workspace now is gone then.`,
        yes: "Replace", isDangerous: true, run: () => void uploadEach(others),
      });
    }
    await uploadEach(all.filter((file) => !taken.has(file.name)));
  };
  return (
    <>
      <header>
        <h2>Files</h2>
        <Button icon="upload" label="Upload" isNamed isDisabled={!isLive} onClick={() => input.current?.click()} />
        <Button icon="close" label="Close" onClick={onClose} />
        <input ref={input} type="file" multiple hidden aria-label="Files to upload" onChange={(event) => {
          // A list that is emptied with its field is copied before.
          const files = new DataTransfer();
          for (const file of event.currentTarget.files ?? []) files.items.add(file);
          event.currentTarget.value = "";
          void uploadAll(files.files);
        }} />
      </header>
      <div class={`panel-body files ${isOver ? "over" : ""}`}
        onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)}
        onDrop={(event) => { event.preventDefault(); setOver(false); void uploadAll(event.dataTransfer?.files ?? null); }}>
        {uploads.map((upload) => (
          <div key={upload.name} class="upload">
            <span>{upload.name}</span>
            <progress value={upload.sent} max={Math.max(1, upload.total)} aria-label={`Upload of ${upload.name}`} />
            <Button icon="close" label={`Stop the upload of ${upload.name}`} onClick={() => upload.stop.abort()} />
          </div>
        ))}
        {isLive ? (
          <Directory session={session} path="" version={`${version}-${view.notebook.finishedCount}`} shown={shown} onShow={setShown} onChange={() => setVersion((count) => count + 1)} />
        ) : (
          <p class="quiet-note">{view.link.state === "ended" ? "Files are there again when the session is opened." : "Not connected."}</p>
        )}
        <p class="quiet-note">Drop files here to put them beside your code.</p>
      </div>
      {shown !== null && isLive && <Preview key={shown} session={session} path={shown} onClose={() => setShown(null)} />}
    </>
  );
}

/** What would be replaced by an upload. Where that cannot be asked the upload says what is wrong. */
async function namesIn(session: Session): Promise<ReadonlySet<string>> {
  try {
    return new Set((await session.api.files(session.id, "")).map(nameOf));
  } catch {
    return new Set();
  }
}

interface DirectoryProps {
  session: Session;
  path: string;
  version: string;
  shown: string | null;
  onShow: (path: string) => void;
  onChange: () => void;
}

function Directory({ session, path, version, shown, onShow, onChange }: DirectoryProps): JSX.Element | null {
  const [entries, setEntries] = useState<FileEntry[] | null>(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    let isGone = false;
    session.api.files(session.id, path).then(
      (list) => {
        if (isGone) return;
        setEntries(list);
        setProblem("");
      },
      (error: unknown) => { if (!isGone) setProblem(error instanceof Error ? error.message : String(error)); },
    );
    return () => { isGone = true; };
  }, [session, path, version]);
  if (problem !== "") return <p class="quiet-note">{problem}</p>;
  if (entries === null) return null;
  const visible = entries.filter((entry) => path !== "" || !HIDDEN.has(nameOf(entry)));
  if (visible.length === 0) return <p class="quiet-note">{path === "" ? "No files yet." : "Empty."}</p>;
  return (
    <ul class="tree">
      {visible.map((entry) => {
        const name = nameOf(entry);
        const full = path === "" ? name : `${path}/${name}`;
        return entry.kind === "directory" ? (
          <Folder key={name} name={name} session={session} path={full} version={version} shown={shown} onShow={onShow} onChange={onChange} />
        ) : (
          <li key={name} class={shown === full ? "shown" : ""}>
            <button type="button" class="entry" disabled={entry.kind !== "file"} onClick={() => onShow(full)}><Icon name="file" /><span class="name">{name}</span><span class="size">{bytes(entry.bytes)}</span></button>
            {entry.kind === "file" && <Button icon="download" label={`Download ${name}`} onClick={() => void download(session, full, name)} />}
            <Button icon="trash" label={`Delete ${name}`} onClick={() => session.show({
              kind: "confirm", title: `Delete ${name}?`, text: "It is gone then; there is no way back.", yes: "Delete", isDangerous: true,
              run: () => void session.api.file(session.id, full, { method: "DELETE" }).then(onChange, (error: unknown) => session.complain(error)),
            })} />
          </li>
        );
      })}
    </ul>
  );
}

function Folder({ name, ...rest }: DirectoryProps & { name: string }): JSX.Element {
  const [isOpen, setOpen] = useState(false);
  return (
    <li>
      <button type="button" class="entry" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}><Icon name="folder" /><span class="name">{name}</span></button>
      {isOpen && <Directory {...rest} />}
    </li>
  );
}

function nameOf(entry: FileEntry): string {
  return entry.name ?? entry.path?.split("/").at(-1) ?? "";
}

async function download(session: Session, path: string, name: string): Promise<void> {
  try {
    const response = await session.api.file(session.id, path);
    save(await response.blob(), name);
  } catch (error) {
    session.complain(error);
  }
}

const LOOK = 64 * 1024;
const PICTURES: Record<string, string> = { png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", gif: "image/gif", webp: "image/webp" };

type Look = { kind: "table"; table: Table; isWhole: boolean } | { kind: "text"; text: string; isWhole: boolean } | { kind: "picture"; address: string } | { kind: "none"; why: string };

function Preview({ session, path, onClose }: { session: Session; path: string; onClose: () => void }): JSX.Element {
  const [look, setLook] = useState<Look | null>(null);
  const name = path.split("/").at(-1) ?? path;
  useEffect(() => {
    let isGone = false;
    let address = "";
    lookInto(session, path).then(
      (made) => {
        if (made.kind === "picture") address = made.address;
        if (isGone) URL.revokeObjectURL(address);
        else setLook(made);
      },
      (error: unknown) => { if (!isGone) setLook({ kind: "none", why: error instanceof Error ? error.message : String(error) }); },
    );
    return () => {
      isGone = true;
      if (address !== "") URL.revokeObjectURL(address);
    };
  }, [session, path]);
  return (
    <section class="preview" aria-label={`A look into ${name}`}>
      <header><h3>{name}</h3><Button icon="close" label="Close preview" onClick={onClose} /></header>
      <div class="preview-body" tabIndex={0} role="region" aria-label={name}>
        {look === null && <p class="quiet-note">Reading…</p>}
        {look?.kind === "none" && <p class="quiet-note">{look.why}</p>}
        {look?.kind === "picture" && <img src={look.address} alt={name} />}
        {look?.kind === "text" && <pre class="text whole">{look.text}{look.isWhole ? "" : "\n…"}</pre>}
        {look?.kind === "table" && (
          <table>
            <thead><tr>{look.table.header.map((title, index) => <th key={index} scope="col">{title}<span class="type">{look.table.types[index]}</span></th>)}</tr></thead>
            <tbody>{look.table.rows.map((row, index) => <tr key={index}>{row.map((value, column) => <td key={column}>{value}</td>)}</tr>)}</tbody>
          </table>
        )}
      </div>
    </section>
  );
}

async function lookInto(session: Session, path: string): Promise<Look> {
  const extension = path.split(".").at(-1)?.toLowerCase() ?? "";
  const picture = PICTURES[extension];
  if (picture !== undefined) {
    const content = await (await session.api.file(session.id, path)).arrayBuffer();
    return { kind: "picture", address: URL.createObjectURL(new Blob([content], { type: picture })) };
  }
  let response: Response;
  try {
    response = await session.api.file(session.id, path, { headers: { Range: `bytes=0-${LOOK - 1}` } });
  } catch (error) {
    if (error instanceof Error && "status" in error && error.status === 416) return { kind: "text", text: "", isWhole: true };
    throw error;
  }
  const content = new Uint8Array(await response.arrayBuffer());
  const total = Number(response.headers.get("Content-Range")?.split("/")[1] ?? content.length);
  if (content.includes(0)) return { kind: "none", why: "It is no text. Download it to look into it." };
  const isWhole = content.length >= total;
  const text = new TextDecoder().decode(content, { stream: !isWhole });
  const table = ["csv", "tsv", "txt"].includes(extension) ? readTable(text, isWhole) : null;
  return table === null || extension === "txt" ? { kind: "text", text, isWhole } : { kind: "table", table, isWhole };
}
