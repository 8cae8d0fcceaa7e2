// Builds the page. Names of files change with their content, so the server lets browsers keep them for ever.
import { defineConfig } from "vite";

export default defineConfig({
  base: "/",
  // The server puts a nonce in its place each time it sends the page.
  html: { cspNonce: "__NONCE__" },
  build: {
    target: "es2022",
    outDir: "dist",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
    reportCompressedSize: true,
  },
  server: { proxy: { "/v1": { target: "http://127.0.0.1:8888", ws: true }, "/version": "http://127.0.0.1:8888" } },
});
