// Package browsertest drives the demo's page and the console with a real browser. The scenarios are in
// testdata/browser, one a file; the tests here start a demo, put load on it, and run them with Node.js. Pictures
// of what the browser showed are left in testdata/browser/screenshots.
//
// The browser is TIDEWIRE_TEST_BROWSER, or /usr/bin/chromium if it is there. Without one, or without Node.js and
// npm, the tests are skipped and say so; TIDEWIRE_TEST_BROWSER=required makes that a failure, and a browser that
// is named has to be there. TIDEWIRE_TEST_BROWSER=off skips them in any case.
package browsertest
