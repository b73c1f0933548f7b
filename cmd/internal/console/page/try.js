// A client of this node, to try a subscription or a publish: the protocol of docs/protocol.md over the admin
// port's own WebSocket. It is for looking, so it does not come back by itself when the connection ends.
import { $, element, data, put, clock } from './dom.js';

const LINES = 200, SHOWN = 2000; // lines of the list, characters of a value
let socket = null, welcome = null, id = 0, heard = 0;
const waiting = new Map(); // id of an op -> what was asked
const subs = new Map(); // subject -> its chip
let lines = []; // to be added with the next frame of the screen

function state(text, on) {
  put($('wire'), text);
  $('wire').classList.toggle('off', !on);
}

// line adds to the list. Far more may come than anybody can read: only what fits is kept.
function line(kind, subject, text, meta) {
  if (lines.length === 0) requestAnimationFrame(draw);
  lines.push({ kind, subject, text: text.length > SHOWN ? `${text.slice(0, SHOWN)}… (${text.length} characters)` : text, meta, at: clock() });
  if (lines.length > LINES) lines.splice(0, lines.length - LINES);
}

function draw() {
  put($('heard'), `${heard} message${heard === 1 ? '' : 's'} came`);
  if (!$('hold').checked) {
    for (const l of lines) {
      const li = element('li', undefined, l.kind);
      li.append(element('time', l.at));
      if (l.subject) li.append(data(l.subject, 'subject'));
      if (l.meta) li.append(element('span', l.meta, 'dim'));
      li.append(data(l.text, 'value'));
      $('log').prepend(li);
    }
    while ($('log').childElementCount > LINES) $('log').lastChild.remove();
  }
  lines = [];
}

// connected resolves with the open socket.
function connected() {
  if (socket && welcome) return welcome;
  state('connecting…', false);
  const ws = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/console/ws`, 'tidewire.v1.json');
  socket = ws;
  welcome = new Promise((resolve, reject) => {
    ws.onmessage = (event) => {
      const m = JSON.parse(event.data);
      if (m.op === 'welcome') {
        state(`connected to ${m.node}`, true);
        resolve(ws);
      }
      take(m);
    };
    ws.onclose = (event) => {
      reject(new Error('the node took no connection'));
      state('not connected', false);
      line('error', '', `the connection ended${event.code === 1006 ? '' : ` with ${event.code} ${event.reason}`}; subscribe again to go on`);
      for (const chip of subs.values()) chip.remove();
      subs.clear();
      waiting.clear();
      socket = welcome = null;
    };
  });
  welcome.catch(() => {}); // the list says it
  return welcome;
}

async function send(op) {
  try {
    const ws = await connected();
    op.id = ++id;
    waiting.set(op.id, op);
    ws.send(JSON.stringify(op));
  } catch (err) {
    line('error', '', err.message);
  }
}

const valueOf = (m) => ('data' in m ? JSON.stringify(m.data) : m.text ?? (m.b64 !== undefined ? `bytes, base64: ${m.b64}` : m.null ? '(null: a tombstone)' : ''));

function take(m) {
  const asked = waiting.get(m.id);
  waiting.delete(m.id);
  switch (m.op) {
    case 'msg':
      heard++;
      line('msg', m.subject, valueOf(m) + (m.headers ? `  ${JSON.stringify(m.headers)}` : ''), `[${m.pos.join(', ')}]`);
      break;
    case 'subbed':
      chip(m.subject);
      line('note', m.subject, 'subscribed');
      break;
    case 'live': line('note', m.subject, 'live: what was cached has been sent'); break;
    case 'gap': line('error', m.subject, `records are lost: ${m.reason}`); break;
    case 'unsubbed':
      subs.get(m.subject)?.remove();
      subs.delete(m.subject);
      line('note', m.subject, `unsubscribed (${m.reason})`);
      break;
    case 'acked': line('note', asked?.subject ?? '', `published${m.duplicate ? ', a duplicate' : ''}: partition ${m.partition}, offset ${m.offset}`, m.pos ? `[${m.pos.join(', ')}]` : ''); break;
    case 'error': line('error', asked?.subject ?? '', `${m.code}: ${m.message}`); break;
    case 'bye': line('error', '', `the node says goodbye: ${m.reason}`); break;
  }
}

function chip(subject) {
  if (subs.has(subject)) return;
  const li = element('li');
  const button = element('button', 'Unsubscribe');
  button.type = 'button';
  button.setAttribute('aria-label', `Unsubscribe ${subject}`);
  button.addEventListener('click', () => send({ op: 'unsub', subject }));
  li.append(data(subject), button);
  subs.set(subject, li);
  $('subs').append(li);
}

$('sub').addEventListener('submit', (event) => {
  event.preventDefault();
  send({ op: 'sub', subject: $('sub-subject').value, history: Number($('sub-history').value) || 0 });
});

// headersOf reads "name: value" lines.
function headersOf(text) {
  const headers = {};
  for (const l of text.split('\n')) {
    if (!l.trim()) continue;
    const i = l.indexOf(':');
    if (i < 1) throw new Error(`a header is "name: value", not ${JSON.stringify(l)}`);
    headers[l.slice(0, i).trim()] = l.slice(i + 1).trim();
  }
  return headers;
}

$('pub').addEventListener('submit', (event) => {
  event.preventDefault();
  const form = $('pub-form').value, value = $('pub-value').value;
  const op = { op: 'pub', subject: $('pub-subject').value, ack: 'replicated' };
  try {
    if (form === 'data') op.data = JSON.parse(value);
    else if (form !== 'null') op[form] = value;
    const headers = headersOf($('pub-headers').value);
    if (Object.keys(headers).length) op.headers = headers;
  } catch (err) {
    line('error', op.subject, `not sent: ${form === 'data' && err instanceof SyntaxError ? `the value is not JSON (${err.message}); choose text to send it as it is` : err.message}`);
    return;
  }
  op.mid = [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('');
  send(op);
});

$('pub-form').addEventListener('input', () => { $('pub-value').disabled = $('pub-form').value === 'null'; });
$('empty').addEventListener('click', () => { $('log').replaceChildren(); lines = []; });
