package node

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/replication/peertls/peertlstest"
)

const clusterSecret = "pl4nted0123456789abcdef0123456789"

// Where the cluster port is: for others to reach if it is protected or said to be open, else on loopback.
func TestWhereTheClusterPortIs(t *testing.T) {
	type set = map[string]string
	const away, near = "n1=10.0.0.1:7070,n2=10.0.0.2:7070", "n1=127.0.0.1:7071,n2=localhost:7072"
	files := peertlstest.NewCA(t).Files(t.TempDir(), []string{"n1"})
	for _, tc := range []struct {
		set  set // without TIDEWIRE_CLUSTER_
		want string
	}{
		{set{}, "127.0.0.1:7070"},
		{set{"PEERS": near}, "127.0.0.1:7070"},
		{set{"PEERS": near, "LISTEN": "localhost:7071"}, "localhost:7071"},
		{set{"PEERS": away, "LISTEN": "127.0.0.1:7071"}, "127.0.0.1:7071"}, // something before it protects it
		{set{"PEERS": away, "SECRET": clusterSecret}, ":7070"},
		{set{"PEERS": away, "SECRET": clusterSecret, "LISTEN": "10.0.0.1:7070"}, "10.0.0.1:7070"},
		{set{"PEERS": away, "TLS_CA": files.CA, "TLS_CERT": files.Cert, "TLS_KEY": files.Key}, ":7070"},
		{set{"PEERS": away, "INSECURE": "true"}, ":7070"},
		{set{"INSECURE": "true", "LISTEN": "0.0.0.0:7070"}, "0.0.0.0:7070"},
	} {
		t.Run(fmt.Sprint(tc.set), func(t *testing.T) {
			all := set{"TIDEWIRE_NODE_ID": "n1"}
			for name, v := range tc.set {
				all["TIDEWIRE_CLUSTER_"+name] = v
			}
			setEnv(t, all)
			c, err := FromEnv()
			if err != nil {
				t.Fatal(err)
			}
			if c.ClusterListen != tc.want {
				t.Errorf("on %s, want %s", c.ClusterListen, tc.want)
			}
			if _, err := c.clusterSecurity(); err != nil {
				t.Error(err)
			}
			var b bytes.Buffer
			if err := Print(&b); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(b.String(), "TIDEWIRE_CLUSTER_LISTEN="+tc.want+"\n") || strings.Contains(b.String(), clusterSecret) {
				t.Errorf("config prints:\n%s", b.String())
			}
			if s := fmt.Sprintf("%v %+v %#v", c, c, c.ClusterSecret); strings.Contains(s, clusterSecret) {
				t.Error("the secret is in what is printed of the configuration")
			}
		})
	}
}

// What does not go together is told in one line that names the variables.
func TestWrongClusterProtectionIsNamed(t *testing.T) {
	type set = map[string]string
	ca := peertlstest.NewCA(t)
	files, foreign := ca.Files(t.TempDir(), []string{"n7"}), peertlstest.NewCA(t).Files(t.TempDir(), []string{"n1"})
	allRefused(t, "TIDEWIRE_CLUSTER_", clusterSecret[:31], []refused{
		{set{"SECRET": clusterSecret, "TLS_CA": files.CA}, []string{"TIDEWIRE_CLUSTER_SECRET", "TIDEWIRE_CLUSTER_TLS_CA"}},
		{set{"SECRET": clusterSecret[:31]}, []string{"TIDEWIRE_CLUSTER_SECRET", "32 characters"}},
		{set{"LISTEN": ":7070", "SECRET_FILE": files.CA + ".none"}, []string{"TIDEWIRE_CLUSTER_SECRET_FILE", "ca.pem.none"}},
		{set{"TLS_CA": files.CA, "TLS_KEY": files.Key}, []string{"TIDEWIRE_CLUSTER_TLS_CERT", "required with TIDEWIRE_CLUSTER_TLS_CA"}},
		{set{"TLS_CERT": files.Cert}, []string{"TIDEWIRE_CLUSTER_TLS_CA", "required with TIDEWIRE_CLUSTER_TLS_CERT"}},
		{set{"TLS_CA": files.CA + ".none", "TLS_CERT": files.Cert, "TLS_KEY": files.Key}, []string{"TIDEWIRE_CLUSTER_TLS_CA", "ca.pem.none"}},
		{set{"TLS_CA": files.CA, "TLS_CERT": files.Cert, "TLS_KEY": files.Key}, []string{"TIDEWIRE_CLUSTER_TLS_CA", "n7", "n1"}},
		{set{"TLS_CA": files.CA, "TLS_CERT": foreign.Cert, "TLS_KEY": foreign.Key}, []string{"TIDEWIRE_CLUSTER_TLS_CA", "unknown authority"}},
		// Three ways out, in one line.
		{set{"LISTEN": ":7070"}, []string{"TIDEWIRE_CLUSTER_SECRET", "TIDEWIRE_CLUSTER_TLS_CA", "TIDEWIRE_CLUSTER_INSECURE=true"}},
	})
}

// A configuration that is not made from the environment is held to the same.
func TestNodeRefusesAnOpenClusterPort(t *testing.T) {
	c := Defaults()
	c.Listen, c.AdminListen, c.ClusterListen = "127.0.0.1:0", "127.0.0.1:0", "0.0.0.0:0"
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "TIDEWIRE_CLUSTER_INSECURE=true") {
		t.Error(err)
	}
}
