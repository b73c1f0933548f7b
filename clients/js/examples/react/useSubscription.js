import { useMemo, useSyncExternalStore } from 'react';

// feed makes what useSyncExternalStore wants of a subscription: the last `keep` messages, and how it stands.
// The subscription lives as long as somebody looks at it. When it comes back, it resumes from its vector.
export function feed(client, subject, { keep = 50, ...options } = {}) {
  let snapshot = { messages: [], state: 'connecting', gap: null, error: null };
  let resume;
  return {
    snapshot: () => snapshot,
    subscribe(changed) {
      const s = client.subscribe(subject, resume ? { ...options, resume } : options);
      const set = (change) => {
        snapshot = { ...snapshot, state: s.state, ...change };
        changed();
      };
      s.on('message', (m) => set({ messages: [...snapshot.messages, m].slice(-keep) }));
      s.on('gap', (gap) => set({ gap }));
      s.on('denied', (error) => set({ error }));
      s.on('live', () => set({}));
      s.on('connecting', () => set({}));
      return () => {
        resume = s.vector;
        void s.close();
      };
    },
  };
}

// useSubscription returns { messages, state, gap, error } of a subject and renders again when it changes.
export function useSubscription(client, subject, options) {
  const f = useMemo(() => feed(client, subject, options), [client, subject, options?.history, options?.keep]);
  return useSyncExternalStore(f.subscribe, f.snapshot);
}
