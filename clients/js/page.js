// Copies dist/index.js to the path given, for a page that is served without a build step. `make page` does so
// for the demo's.
import { readFileSync, writeFileSync } from 'node:fs';

const code = readFileSync(new URL('dist/index.js', import.meta.url), 'utf8').replace(/^\/\/# sourceMappingURL=.*\n/m, '');
writeFileSync(process.argv[2], `// Generated from clients/js by \`make page\`. Do not edit.\n${code}`);
