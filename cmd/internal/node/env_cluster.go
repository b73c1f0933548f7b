package node

import (
	"fmt"
	"net"
	"os"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/replication"
	"github.com/tidewire/tidewire/replication/peertls"
)

// Where the cluster port is when TIDEWIRE_CLUSTER_LISTEN does not say: for all to reach if it is protected or is
// to be open, else for this machine alone.
const (
	clusterListenAll  = ":7070"
	clusterListenSelf = "127.0.0.1:7070"
)

// protect reads how the cluster port is protected.
func (e *env) protect(c *Config, p *problems) {
	var ok bool
	if c.ClusterInsecure, ok = onOff(e.ClusterInsecure); !ok {
		p.add("TIDEWIRE_CLUSTER_INSECURE", e.ClusterInsecure, "want true or false")
	}
	c.ClusterSecret = e.secret("TIDEWIRE_CLUSTER_SECRET")
	var given, missing []string
	for _, f := range [][2]string{
		{"TIDEWIRE_CLUSTER_TLS_CA", e.ClusterTLSCA}, {"TIDEWIRE_CLUSTER_TLS_CERT", e.ClusterTLSCert}, {"TIDEWIRE_CLUSTER_TLS_KEY", e.ClusterTLSKey},
	} {
		if f[1] == "" {
			missing = append(missing, f[0])
		} else {
			given = append(given, f[0])
		}
	}
	switch {
	case c.ClusterSecret.IsSet() && len(given) > 0:
		p.add("TIDEWIRE_CLUSTER_SECRET", mask, "given together with %s: want the secret or certificates, not both", given[0])
	case c.ClusterSecret.IsSet():
		if err := peertls.CheckSecret(c.ClusterSecret); err != nil {
			p.add("TIDEWIRE_CLUSTER_SECRET", mask, "%v", err)
		}
	case len(given) > 0 && len(missing) > 0:
		p.add(missing[0], "", "required with %s: want TIDEWIRE_CLUSTER_TLS_CA, _TLS_CERT and _TLS_KEY", given[0])
	case len(given) > 0:
		c.ClusterTLS = peertls.Files{CA: e.ClusterTLSCA, Cert: e.ClusterTLSCert, Key: e.ClusterTLSKey, Names: list(e.ClusterTLSNames), Self: c.names()}
		if _, err := peertls.FromFiles(c.ClusterTLS, zerolog.Nop()); err != nil {
			*p = append(*p, fmt.Errorf("TIDEWIRE_CLUSTER_TLS_CA, _TLS_CERT, _TLS_KEY: %w", err))
		}
	}
	if e.ClusterTLSNames != "" && len(given) == 0 {
		p.add("TIDEWIRE_CLUSTER_TLS_NAMES", e.ClusterTLSNames, "these are names in certificates: set TIDEWIRE_CLUSTER_TLS_CA, TIDEWIRE_CLUSTER_TLS_CERT and TIDEWIRE_CLUSTER_TLS_KEY too, or leave this out")
	}
}

// names are those by which other nodes look for this one.
func (c *Config) names() []string {
	out := []string{string(c.NodeID)}
	for _, addr := range append([]string{c.ClusterAdvertise}, c.listed()...) {
		if host, _, err := net.SplitHostPort(addr); err == nil && host != "" {
			out = append(out, host)
		}
	}
	return out
}

// listed is where the list of peers says that this node is, at most one address.
func (c *Config) listed() []string {
	for _, p := range c.Peers {
		if p.ID == c.NodeID {
			return []string{p.Addr}
		}
	}
	return nil
}

// place says where the cluster port is. One that others reach is protected, or said to be open.
func (e *env) place(c *Config, p *problems) {
	// A secret's file that cannot be read has been told.
	open := !c.ClusterSecret.IsSet() && os.Getenv("TIDEWIRE_CLUSTER_SECRET"+fileSuffix) == "" && c.ClusterTLS.CA == "" && !c.ClusterInsecure
	switch {
	case e.ClusterListen != "":
		if open && !replication.OnLoopback(e.ClusterListen) {
			p.add("TIDEWIRE_CLUSTER_LISTEN", e.ClusterListen, unprotected)
		}
	case open:
		c.ClusterListen = clusterListenSelf
		for _, peer := range c.Peers {
			if !replication.OnLoopback(peer.Addr) { // it would wait there for this node for ever
				p.add("TIDEWIRE_CLUSTER_PEERS", e.ClusterPeers, unprotected)
				return
			}
		}
	default:
		c.ClusterListen = clusterListenAll
	}
}

// unprotected says what is wrong with a cluster port that others reach, and the three ways to mend it.
const unprotected = "nothing protects the cluster port, so it may be on loopback only: set TIDEWIRE_CLUSTER_SECRET (the same on all nodes), " +
	"or TIDEWIRE_CLUSTER_TLS_CA, _TLS_CERT and _TLS_KEY, or TIDEWIRE_CLUSTER_INSECURE=true on a network where everybody may do everything"

// clusterSecurity makes what the configuration says; nil if nothing protects the port.
func (c Config) clusterSecurity() (peertls.Security, error) {
	log := c.Log.With().Str("component", "replication").Logger()
	switch {
	case c.ClusterSecret.IsSet():
		return peertls.FromSecret(c.ClusterSecret, log)
	case c.ClusterTLS.CA != "":
		return peertls.FromFiles(c.ClusterTLS, log)
	case !c.ClusterInsecure && !replication.OnLoopback(c.ClusterListen):
		return nil, fmt.Errorf("TIDEWIRE_CLUSTER_LISTEN=%q: %s", c.ClusterListen, unprotected)
	}
	return nil, nil
}
