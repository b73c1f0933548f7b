package kafkaio

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/internal/secret"
)

func TestSecurityErrors(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]Security{
		"but TLS is off":                       {CA: empty},
		"certificate is given without its key": {TLS: true, Cert: empty},
		"key is given without its certificate": {TLS: true, Key: empty},
		"holds no PEM certificate":             {TLS: true, CA: empty},
		"no such file":                         {TLS: true, CA: filepath.Join(dir, "none")},
		"load the client certificate":          {TLS: true, Cert: empty, Key: empty},
		"given without a SASL mechanism":       {Username: "u"},
		"needs a user name":                    {Mechanism: "PLAIN", Password: secret.Of("p")},
		"needs a password":                     {Mechanism: "SCRAM-SHA-256", Username: "u"},
		`"GSSAPI" is none of`:                  {Mechanism: "GSSAPI", Username: "u", Password: secret.Of("p")},
		"SASLprep":                             {Mechanism: "SCRAM-SHA-512", Username: "u", Password: secret.Of("hidden\u0007")},
	} {
		_, _, err := s.Build()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
}

func TestSecurityBuild(t *testing.T) {
	tc, mech, err := Security{}.Build()
	if tc != nil || mech != nil || err != nil {
		t.Errorf("%v %v %v", tc, mech, err)
	}
	tc, mech, err = Security{TLS: true, Mechanism: "PLAIN", Username: "u", Password: secret.Of("p")}.Build()
	if err != nil || tc.MinVersion < tls.VersionTLS12 || tc.InsecureSkipVerify || mech.Name() != "PLAIN" {
		t.Errorf("%v %v %v", tc, mech, err)
	}
}

// A password is not printed, whichever way somebody prints what holds it.
func TestSecretStaysSecret(t *testing.T) {
	s := Security{Mechanism: "PLAIN", Username: "u", Password: secret.Of("hidden")}
	_, mech, err := s.Build()
	if err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{SASL: mech}
	for _, out := range []string{
		string(j), fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), fmt.Sprintf("%s|%q", s.Password, s.Password),
		fmt.Sprintf("%v %+v %#v", mech, mech, mech), fmt.Sprintf("%v %+v", cfg, cfg),
	} {
		if strings.Contains(out, "hidden") {
			t.Errorf("printed: %s", out)
		}
	}
}
