import { StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { Tidewire } from 'tidewire';
import { useSubscription } from './useSubscription.js';

const nodes = new URLSearchParams(location.search).getAll('node'); // ?node=host:port&node=…
const client = new Tidewire({ nodes: nodes.length ? nodes : ['127.0.0.1:8080', '127.0.0.1:8180', '127.0.0.1:8280'] });

function Chat() {
  const { messages, state, gap, error } = useSubscription(client, '/chat', { history: 20 });
  const [text, setText] = useState('');
  const [failed, setFailed] = useState('');
  const send = (event) => {
    event.preventDefault();
    setText('');
    client.publish('/chat', { from: 'react', text }).then(() => setFailed(''), (e) => setFailed(e.message));
  };
  return (
    <main>
      <h1>Chat</h1>
      <p role="status">{error ? error.message : state}{gap && `; messages are missing: ${gap.reason}`}</p>
      <ol>{messages.map((m) => <li key={m.position.join()}>{m.value?.text ?? JSON.stringify(m.value)}</li>)}</ol>
      <form onSubmit={send}>
        <input aria-label="message" value={text} onChange={(e) => setText(e.target.value)} required maxLength={200} /> <button>send</button>
      </form>
      <p role="alert">{failed}</p>
    </main>
  );
}

createRoot(document.getElementById('root')).render(<StrictMode><Chat /></StrictMode>);
