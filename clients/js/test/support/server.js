// A node that says what it is told to say, and notes what it hears.
import { once } from 'node:events';
import { WebSocketServer } from 'ws';
import { Queue } from './queue.js';

class Conn {
  ops = new Queue();
  closed = new Queue();
  spoke = 0; // when the last frame was sent
  pings = 0; // that were answered

  constructor(ws) {
    this.ws = ws;
    ws.on('message', (frame, binary) => {
      for (const line of String(frame).split('\n')) {
        let op = { op: 'not JSON', binary, text: line };
        try {
          op = JSON.parse(line);
        } catch {
          // It is told as it is.
        }
        if (op.op === 'ping') {
          this.pings++;
          this.send(JSON.stringify({ op: 'pong', id: op.id }));
        } else this.ops.push({ op, at: Date.now() });
      }
    });
    ws.on('error', () => {});
    ws.on('close', () => this.closed.push(Date.now()));
  }

  send(frame) {
    this.spoke = Date.now();
    this.ws.send(frame);
  }
}

export class Node {
  accepted = new Queue();
  conn = null;

  constructor(name) {
    this.name = name;
  }

  async start(port = 0) {
    this.server = new WebSocketServer({
      host: '127.0.0.1', port, path: '/ws', handleProtocols: (names) => (names.has('tidewire.v1.json') ? 'tidewire.v1.json' : false),
    });
    this.server.on('connection', (ws) => this.accepted.push({ conn: new Conn(ws), at: Date.now() }));
    await once(this.server, 'listening');
    this.port = this.server.address().port;
    this.url = `ws://127.0.0.1:${this.port}/ws`;
  }

  async stop() {
    for (const ws of this.server.clients) ws.terminate();
    this.server.close();
    await once(this.server, 'close');
  }
}
