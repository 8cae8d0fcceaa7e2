// Builds the frame that outputs are drawn in: one file with all in it, since what runs in the frame may load nothing.
import { defineConfig, type Plugin } from "vite";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";

/** Puts the frame's script into its document. */
function oneFile(): Plugin {
  return {
    name: "frame-in-one-file",
    enforce: "post",
    async generateBundle(_, bundle) {
      const html = await readFile("src/frame/frame.html", "utf8");
      const script = Object.values(bundle).find((part) => part.type === "chunk");
      if (script === undefined || script.type !== "chunk") throw new Error("the frame has no script");
      delete bundle[script.fileName];
      const code = script.code.trim().replaceAll("</script", "<\\/script");
      // Whatever else stands in the frame as a script is none: what an output brings is run by this one.
      const hash = `sha256-${createHash("sha256").update(code).digest("base64")}`;
      // A function, since `$` has a meaning in replacement texts.
      const source = html.replace("<!-- script -->", () => `<script>${code}</script>`).replace("__HASH__", hash);
      this.emitFile({ type: "asset", fileName: "frame.html", source });
    },
  };
}

export default defineConfig({
  plugins: [oneFile()],
  build: {
    target: "es2022",
    outDir: "dist",
    emptyOutDir: false,
    lib: { entry: "src/frame/frame.ts", formats: ["iife"], name: "frame", fileName: "frame" },
  },
});
