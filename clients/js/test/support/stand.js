// A client and one scripted node, for tests that need more than a scenario can say.
import WebSocket from 'ws';
import { Tidewire } from 'tidewire';
import { Node } from './server.js';
import { eventually } from './queue.js';

export { eventually };

export async function stand(t, options = {}, nodes = 1) {
  const all = [];
  for (let i = 1; i <= nodes; i++) {
    const n = new Node(`n${i}`);
    await n.start();
    all.push(n);
  }
  const k = new Tidewire({ nodes: all.map((n) => n.url), inOrder: true, WebSocket, backoffBaseMs: 1, backoffCapMs: 20, ...options });
  t.after(async () => {
    await k.close();
    for (const n of all) await n.stop();
  });
  return { k, nodes: all, accept: (i = 0, welcome) => accept(all[i], welcome) };
}

// accept takes the next connection of a node and welcomes it.
export async function accept(node, welcome = {}) {
  const { conn } = await node.accepted.next(`a connection to ${node.name}`);
  const say = (o) => conn.send(JSON.stringify(o));
  say({ op: 'welcome', version: 1, node: node.name, session: 's', heartbeat_ms: 25000, max_frame_bytes: 1048576, auth: 'none', ...welcome });
  return {
    conn, say,
    hear: async (op) => {
      const { op: got } = await conn.ops.next(op);
      if (got.op !== op) throw new Error(`heard ${JSON.stringify(got)}, not ${op}`);
      return got;
    },
    // subbed answers a sub and returns it.
    async subbed(at = [[0, 1, 0]], more = {}) {
      const sub = await this.hear('sub');
      say({ op: 'subbed', id: sub.id, subject: sub.subject, at, ...(sub.resume ? { recovered: true } : {}), ...more });
      return sub;
    },
    msg: (subject, seqno, data = seqno, more = {}) => say({ op: 'msg', subject, pos: [0, 1, seqno], ts: 1, data, ...more }),
  };
}

export const once = (emitter, event) => new Promise((resolve) => {
  const off = emitter.on(event, (v) => {
    off();
    resolve(v);
  });
});
