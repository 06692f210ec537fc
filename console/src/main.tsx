import "graphiql/setup-workers/vite";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import "graphiql/style.css";
import "./page.css";

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");
createRoot(root).render(<App />);
