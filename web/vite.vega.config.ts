// Builds what draws Vega figures in a frame: one script, whose text the page hands over.
import { defineConfig } from "vite";

export default defineConfig({
  build: {
    target: "es2022",
    outDir: "dist",
    emptyOutDir: false,
    lib: { entry: "src/frame/vega.ts", formats: ["iife"], name: "evercellVega", fileName: () => "libraries/vega.js" },
  },
});
