// Names that nobody else makes.

/** A fresh one, of hexadecimal digits. `crypto.randomUUID` is there only where the page came by TLS or from this machine. */
export function freshId(bytes = 16): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
