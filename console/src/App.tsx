import { createGraphiQLFetcher, type Fetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import { useMemo, useState } from "react";
import { DEFAULT_QUERY } from "./defaultQuery";
import { clean, initialToken, looksLikeToken, saveToken } from "./token";

const ENDPOINT = "/graphql";

/** A fetcher that sends `token`, unless the headers editor sets an Authorization of its own. */
function fetcherWith(token: string): Fetcher {
  const fetcher = createGraphiQLFetcher({ url: ENDPOINT });
  return (params, options) => {
    const own = options?.headers ?? {};
    const hasOwn = Object.keys(own).some((name) => name.toLowerCase() === "authorization");
    const headers = hasOwn || token === "" ? own : { ...own, Authorization: `Bearer ${token}` };
    return fetcher(params, { ...options, headers });
  };
}

function hint(token: string): string {
  if (token === "") return "No token yet: every request will be refused. Print one with `runlane token`.";
  if (!looksLikeToken(token))
    return "This does not look like a token: paste all that `runlane token` printed.";
  return "Sent with every request, kept until this tab is closed.";
}

export function App() {
  const [token, setToken] = useState(initialToken);
  const fetcher = useMemo(() => fetcherWith(token), [token]);
  const change = (text: string) => {
    const next = clean(text);
    saveToken(next);
    setToken(next);
  };
  return (
    <>
      <form className="token-bar" autoComplete="off" onSubmit={(event) => event.preventDefault()}>
        <strong>Runlane</strong>
        <label htmlFor="token">Bearer token</label>
        <input
          id="token"
          name="token"
          type="password"
          spellCheck={false}
          autoComplete="off"
          placeholder="eyJ…"
          value={token}
          onChange={(event) => change(event.target.value)}
        />
        <button type="button" disabled={token === ""} onClick={() => change("")}>
          Forget
        </button>
        <span role="status" className={looksLikeToken(token) ? "" : "warning"}>
          {hint(token)}
        </span>
      </form>
      <main>
        {/* A new token means a new schema request: GraphiQL asks again when it is mounted anew. */}
        <GraphiQL
          key={looksLikeToken(token) ? token : "no token"}
          fetcher={fetcher}
          defaultQuery={DEFAULT_QUERY}
          defaultEditorToolsVisibility="variables"
        />
      </main>
    </>
  );
}
