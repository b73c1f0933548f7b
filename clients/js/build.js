// Makes dist/index.js: one minified ES module for browsers, Node and React Native, and its source map.
import { build } from 'esbuild';

await build({
  entryPoints: ['src/index.ts'],
  outfile: 'dist/index.js',
  bundle: true,
  format: 'esm',
  platform: 'neutral',
  target: 'es2022',
  minify: true,
  sourcemap: true,
  // Fields that begin with _ are ours alone; their names need no room in a page.
  mangleProps: /^_/,
});
