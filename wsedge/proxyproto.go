package wsedge

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
)

// The PROXY protocol, version 2 (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt): a proxy that passes a
// connection on without looking into it says first whose it is. Read is exactly the header, so that what follows can be
// anybody's, TLS included. Version 1 is text without a bound on what may stand in it, and is not taken.

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	// maxProxyHeader bounds what follows the first 16 bytes: addresses, and whatever a proxy adds to them.
	maxProxyHeader = 2 << 10
)

var errProxyHeader = errors.New("no header of the PROXY protocol, version 2, from a trusted proxy")

// readProxyHeader reads a header. The address is not valid where the proxy speaks for itself (LOCAL, as in its health
// checks) or for something that is not TCP.
func readProxyHeader(r io.Reader) (from netip.AddrPort, err error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return from, err
	}
	n := int(binary.BigEndian.Uint16(head[14:]))
	if string(head[:12]) != proxySignature || head[12]>>4 != 2 || head[12]&15 > 1 || n > maxProxyHeader {
		return from, errProxyHeader
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return from, err
	}
	if head[12]&15 == 0 {
		return from, nil
	}
	switch head[13] {
	case 0x11: // TCP over IPv4: source, destination, their ports
		if n < 12 {
			return from, errProxyHeader
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(body)), binary.BigEndian.Uint16(body[8:])), nil
	case 0x21: // TCP over IPv6
		if n < 36 {
			return from, errProxyHeader
		}
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(body)).Unmap(), binary.BigEndian.Uint16(body[32:])), nil
	}
	return from, nil
}
