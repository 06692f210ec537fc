import { defineConfig } from "vite";

// The names of the assets carry a hash of their content: the server lets browsers keep them for ever.
export default defineConfig({
  base: "/",
  build: { outDir: "dist", emptyOutDir: true, assetsDir: "assets", chunkSizeWarningLimit: 5000 },
  worker: { format: "es" },
});
