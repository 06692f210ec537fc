// Runs the server audits of graphql-http against a server and prints each result.
// Usage: AUDIT_TOKEN=<token> node audit.mjs <url>   (or: node audit.mjs <url> <token>)
// Ends with 1 unless every audit passes, those of the MAY level included.
import { serverAudits } from "graphql-http";

const [url, token = process.env.AUDIT_TOKEN] = process.argv.slice(2);
if (!url || !token) {
  console.error("usage: node audit.mjs URL TOKEN");
  process.exit(2);
}

const fetchFn = (target, init = {}) =>
  fetch(target, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } });

const audits = serverAudits({ url, fetchFn });
let failed = 0;
for (const audit of audits) {
  const result = await audit.fn();
  if (result.status !== "ok") failed += 1;
  console.log(`${result.status.padEnd(6)} ${audit.id} ${audit.name}${result.reason ? `: ${result.reason}` : ""}`);
}
console.log(`${failed} of ${audits.length} audits failed`);
process.exit(failed === 0 && audits.length > 0 ? 0 : 1);
