// node run.mjs SCENARIO, with its arguments as JSON in TIDEWIRE_BROWSER_ARGS. Ends with 1 if anything was not as
// it should be.
import { It } from './lib.mjs';

const it = new It(JSON.parse(process.env.TIDEWIRE_BROWSER_ARGS));
try {
  await (await import(`./${process.argv[2]}.mjs`)).run(it);
} catch (err) {
  it.problem(err.stack ?? String(err));
} finally {
  await it.close();
}
process.exitCode = it.problems.length ? 1 : 0;
