// Serves the examples for browsers: http://127.0.0.1:3000/
//
//   npm ci && npm run build                                   here, in clients/js
//   ../../bin/tidewire-demo -origin http://127.0.0.1:3000     nodes to connect to (make build, at the root)
//   node examples/serve.js
import { build } from 'esbuild';
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

async function react() {
  const out = await build({
    entryPoints: [here('react/app.jsx')], bundle: true, format: 'esm', jsx: 'automatic', write: false, logLevel: 'silent',
    define: { 'process.env.NODE_ENV': '"production"' },
  });
  return out.outputFiles[0].text;
}

// Only these paths are served.
const routes = {
  '/': ['text/html', async () => '<!doctype html><title>Tidewire examples</title><ul><li><a href="/page/">a plain page</a><li><a href="/react/">React</a></ul>'],
  '/page/': ['text/html', () => readFile(here('page/index.html'))],
  '/react/': ['text/html', () => readFile(here('react/index.html'))],
  '/react/app.js': ['text/javascript', react],
  '/tidewire.js': ['text/javascript', () => readFile(here('../dist/index.js'))],
};

const server = createServer(async (request, response) => {
  const [type, make] = routes[new URL(request.url, 'http://localhost').pathname] ?? [];
  try {
    if (!make) return void response.writeHead(404).end('not found');
    const body = await make();
    response.writeHead(200, { 'content-type': `${type}; charset=utf-8` }).end(body);
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
});
server.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}/`));
