// The admin port may want a token. It is sent once and kept by nobody: what comes back is a cookie that scripts cannot read,
// good for twelve hours.
import { $, put } from './dom.js';

let done = () => {};

export function login(after) {
  done = after;
  if ($('login').open) return;
  put($('login-why'), '');
  $('login').showModal();
}

$('login-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const token = $('login-token').value;
  $('login-token').value = '';
  try {
    const answer = await fetch('/console/login', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ token }) });
    if (!answer.ok) throw new Error((await answer.text()).slice(0, 300));
    $('login').close();
    done();
  } catch (err) {
    put($('login-why'), err.message);
    $('login-token').focus();
  }
});
