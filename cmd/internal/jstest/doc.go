// Package jstest holds the tests of clients/js against real nodes: the packed client, installed as an
// application installs it, in a Node.js process of its own. It has no code besides.
package jstest
