package wsedge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"testing"
)

func TestForwarded(t *testing.T) {
	l := Limits{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{nil, "invalid IP"}, {[]string{""}, "invalid IP"}, {[]string{"1.2.3.4"}, "1.2.3.4"},
		// What the client says itself stands on the left and is not believed.
		{[]string{"9.9.9.9, 1.2.3.4"}, "1.2.3.4"}, {[]string{"9.9.9.9, 1.2.3.4, 10.1.1.1"}, "1.2.3.4"}, {[]string{"9.9.9.9", "1.2.3.4 ,10.1.1.1", "fd00::7"}, "1.2.3.4"},
		{[]string{"evil, 10.1.1.1"}, "10.1.1.1"}, {[]string{"10.2.2.2,10.1.1.1"}, "10.2.2.2"}, {[]string{"1.2.3.4, "}, "invalid IP"},
		{[]string{"1.2.3.4:5678"}, "1.2.3.4"}, {[]string{"[2001:db8::1]:5678"}, "2001:db8::1"}, {[]string{"2001:db8::1"}, "2001:db8::1"}, {[]string{"[2001:db8::1]"}, "2001:db8::1"},
		{[]string{"::ffff:1.2.3.4"}, "1.2.3.4"}, {[]string{"fe80::1%eth0"}, "fe80::1"},
	} {
		h := http.Header{"X-Forwarded-For": c.lines}
		if got := l.forwarded(h).String(); got != c.want {
			t.Errorf("%q: %s, want %s", c.lines, got, c.want)
		}
	}
}

func TestAddressKey(t *testing.T) {
	for a, want := range map[string]string{
		"1.2.3.4": "1.2.3.4", "::ffff:1.2.3.4": "1.2.3.4", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "2001:db8:1:2::9": "2001:db8:1:2::", "2001:db8:1:3::9": "2001:db8:1:3::",
		"fe80::1%eth0": "fe80::",
	} {
		if got := addressKey(netip.MustParseAddr(a)).String(); got != want {
			t.Errorf("%s: %s, want %s", a, got, want)
		}
	}
}

// proxyHeader is a header of the PROXY protocol, version 2.
func proxyHeader(verCmd, family byte, body ...byte) []byte {
	h := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), verCmd, family)
	h = binary.BigEndian.AppendUint16(h, uint16(len(body)))
	return append(h, body...)
}

// proxied is one for a client at an IPv4 address.
func proxied(a string, port uint16) []byte {
	src := netip.MustParseAddr(a).As4()
	body := append(src[:], 127, 0, 0, 1)
	body = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(body, port), 443)
	return proxyHeader(0x21, 0x11, body...)
}

func TestProxyHeader(t *testing.T) {
	six := netip.MustParseAddr("2001:db8::7").As16()
	sixes := append(append(append([]byte{}, six[:]...), six[:]...), 0x12, 0x34, 0x01, 0xbb)
	long := make([]byte, maxProxyHeader+1)
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"v4":              {proxied("1.2.3.4", 5678), "1.2.3.4:5678"},
		"v4 with more":    {proxyHeader(0x21, 0x11, append(append([]byte{}, proxied("1.2.3.4", 5678)[16:]...), 0x03, 0, 1, 9)...), "1.2.3.4:5678"},
		"v6":              {proxyHeader(0x21, 0x21, sixes...), "[2001:db8::7]:4660"},
		"local":           {proxyHeader(0x20, 0x00), "invalid AddrPort"},
		"local with more": {proxyHeader(0x20, 0x11, make([]byte, 12)...), "invalid AddrPort"},
		"unix":            {proxyHeader(0x21, 0x31, make([]byte, 216)...), "invalid AddrPort"},
		"short v4":        {proxyHeader(0x21, 0x11, make([]byte, 11)...), ""},
		"short v6":        {proxyHeader(0x21, 0x21, make([]byte, 35)...), ""},
		"version 1":       {[]byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), ""},
		"version 3":       {proxyHeader(0x31, 0x11, make([]byte, 12)...), ""},
		"command 2":       {proxyHeader(0x22, 0x11, make([]byte, 12)...), ""},
		"too long":        {proxyHeader(0x21, 0x11, long...), ""},
		"HTTP":            {[]byte("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n"), ""},
	} {
		r := bytes.NewReader(append(c.in, "rest"...))
		got, err := readProxyHeader(r)
		if (err != nil) != (c.want == "") || err == nil && got.String() != c.want {
			t.Errorf("%s: %v, %v, want %s", name, got, err, c.want)
			continue
		}
		if rest, _ := io.ReadAll(r); err == nil && string(rest) != "rest" {
			t.Errorf("%s: %q is left", name, rest)
		}
		for cut := range len(c.in) {
			if _, err := readProxyHeader(bytes.NewReader(c.in[:cut])); err == nil {
				t.Errorf("%s, cut at %d, was taken", name, cut)
			} else if c.want != "" && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s, cut at %d: %v", name, cut, err)
			}
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add(proxied("1.2.3.4", 5678))
	f.Add(proxyHeader(0x20, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		from, err := readProxyHeader(r)
		if read := len(b) - r.Len(); read > 16+maxProxyHeader {
			t.Errorf("%d bytes were read", read)
		}
		if err != nil && from.IsValid() {
			t.Errorf("%v with %v", from, err)
		}
	})
}
