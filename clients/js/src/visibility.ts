/** What the environment tells of sleep and network. @internal */
export interface Watcher {
  _hidden(): void;
  _visible(): void;
  /** The page may be gone in a moment. */
  _leaving(): void;
}

/** Listens where there is a page; elsewhere (Node, React Native) does nothing. Returns what ends it. @internal */
export function watch(w: Watcher): () => void {
  const page = globalThis.document;
  if (!page?.addEventListener) return () => {};
  const visibility = (): void => (page.visibilityState === 'hidden' ? w._hidden() : w._visible());
  const visible = (): void => {
    if (page.visibilityState !== 'hidden') w._visible();
  };
  const leaving = (): void => w._leaving();
  const on: [EventTarget, string, () => void][] = [
    [page, 'visibilitychange', visibility], [globalThis as unknown as EventTarget, 'pageshow', visible],
    [globalThis as unknown as EventTarget, 'online', visible], [globalThis as unknown as EventTarget, 'pagehide', leaving],
  ];
  for (const [target, event, f] of on) target.addEventListener(event, f);
  return () => {
    for (const [target, event, f] of on) target.removeEventListener(event, f);
  };
}
