// Package deploytest holds the tests of what stands at the root of the tree for those who run Tidewire:
// docker-compose.yml, the Dockerfile and the README's table are checked against the code they describe.
package deploytest
