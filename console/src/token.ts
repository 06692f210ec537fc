// The bearer token: where it comes from and where it is kept.

const KEY = "runlane.token";

/** The token's form: three parts of URL-safe base64. Whether it is valid is for the server to say. */
export const looksLikeToken = (text: string): boolean => /^[\w-]+\.[\w-]+\.[\w-]+$/.test(text);

/** Accepts what people paste: with or without `Bearer`, with white space around. */
export const clean = (text: string): string => text.trim().replace(/^bearer\s+/i, "");

/**
 * Takes `#token=…` from the address, if there is one, and removes it from the address bar and the history entry at once;
 * otherwise the token that this tab had before.
 */
export function initialToken(): string {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const given = fragment.get("token");
  if (given !== null) {
    history.replaceState(null, "", location.pathname + location.search);
    saveToken(clean(given));
  }
  return sessionStorage.getItem(KEY) ?? "";
}

/** Keeps the token for this tab until it is closed. */
export function saveToken(token: string): void {
  if (token === "") sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, token);
}
