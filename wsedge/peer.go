package wsedge

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// This file finds out whose a connection or a request is, as far as limits are concerned. What a peer says of others is
// believed of trusted proxies alone.

// addressOf is the IP address of a net.Addr; not valid where it has none.
func addressOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// addressIn is the IP address of a host and port as text.
func addressIn(hostPort string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

func (l *Limits) trusted(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range l.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwarded is for whom a trusted proxy sends a request: of X-Forwarded-For the last address that is no trusted proxy's, for
// whatever stands before it was said by somebody who is not trusted. Where the list cannot be read further, or is all
// of proxies, it is the last address that could be; not valid where there is none.
func (l *Limits) forwarded(h http.Header) (found netip.Addr) {
	values := h.Values("X-Forwarded-For")
	for i := len(values) - 1; i >= 0; i-- {
		rest := values[i]
		for more := true; more; {
			var entry string
			if cut := strings.LastIndexByte(rest, ','); cut >= 0 {
				rest, entry = rest[:cut], rest[cut+1:]
			} else {
				entry, more = rest, false
			}
			a, ok := forwardedEntry(strings.TrimSpace(entry))
			if !ok {
				return found
			}
			if found = a; !l.trusted(a) {
				return found
			}
		}
	}
	return found
}

// forwardedEntry reads an address with or without a port, IPv6 with or without brackets.
func forwardedEntry(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a.Unmap().WithZone(""), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	return netip.Addr{}, false
}

// requestRate says whether an address asks too often.
func (srv *Server) requestRate(addr netip.Addr) *OpError {
	if !addr.IsValid() {
		return nil
	}
	wait := srv.asking.take(addressKey(addr), time.Now().UnixNano(), 1, srv.cfg.Limits.Frames)
	if wait == 0 {
		return nil
	}
	srv.limited(limitRequests)
	return &OpError{Code: codeRateLimited, Message: "your address sends more requests a second than it may", Retry: max(wait, time.Millisecond)}
}

// enterRequest finds out for whom a request is and, where a proxy sends it for somebody else, counts it as a connection
// of theirs. counted says that gate.leaveAddress must follow.
func (srv *Server) enterRequest(r *http.Request) (addr netip.Addr, counted bool, oe *OpError) {
	l := &srv.cfg.Limits
	addr = addressIn(r.RemoteAddr)
	if len(l.TrustedProxies) == 0 || !addr.IsValid() || !l.trusted(addr) {
		return addr, false, nil
	}
	client := l.forwarded(r.Header)
	if !client.IsValid() || l.trusted(client) {
		return netip.Addr{}, false, nil // the proxy does not say: its own address is all of its clients'
	}
	if !srv.gate.enterAddress(client) {
		srv.limited(limitAddress)
		return client, false, refusalFor(limitAddress)
	}
	return client, true, nil
}
