/** What the environment tells of sleep and network. @internal */
export interface Watcher {
  _hidden(): void;
  /** The page can be seen, or is used all the time and the network has come back. */
  _visible(online: boolean): void;
  /** The page may be gone in a moment. */
  _leaving(): void;
}

/** Listens where there is a page; elsewhere (Node, React Native) does nothing. Returns what ends it. @internal */
export function watch(w: Watcher): () => void {
  const page = globalThis.document;
  if (!page?.addEventListener) return () => {};
  const visible = ({ type }: Event): void => {
    if (page.visibilityState !== 'hidden') w._visible(type === 'online');
    else if (type === 'visibilitychange') w._hidden();
  };
  const leaving = (): void => w._leaving();
  const on: [EventTarget, string, (event: Event) => void][] = [
    [page, 'visibilitychange', visible], [globalThis as unknown as EventTarget, 'pageshow', visible],
    [globalThis as unknown as EventTarget, 'online', visible], [globalThis as unknown as EventTarget, 'pagehide', leaving],
  ];
  for (const [target, event, f] of on) target.addEventListener(event, f);
  return () => {
    for (const [target, event, f] of on) target.removeEventListener(event, f);
  };
}
