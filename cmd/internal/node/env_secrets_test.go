package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// Every secret variable may come from a file, and from one of the two alone.
func TestSecretsFromFiles(t *testing.T) {
	const planted = "pl4nted-s3cret"
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(planted+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range fields() {
		if !f.secret {
			continue
		}
		seen++
		t.Run(f.Name, func(t *testing.T) {
			read := func(set map[string]string) (env, error) {
				setEnv(t, set)
				e, err := readEnv()
				if err != nil {
					t.Fatal(err)
				}
				var p problems
				e.readSecrets(&p)
				return e, p.err()
			}
			e, err := read(map[string]string{f.Name + fileSuffix: file})
			if err != nil || e.secret(f.Name).Value() != planted {
				t.Errorf("from the file: %q, %v", e.secret(f.Name).Value(), err)
			}
			if e, err = read(map[string]string{f.Name: planted}); err != nil || e.secret(f.Name).Value() != planted {
				t.Errorf("from the environment: %q, %v", e.secret(f.Name).Value(), err)
			}
			if e, err = read(nil); err != nil || e.secret(f.Name).IsSet() {
				t.Errorf("from nowhere: %q, %v", e.secret(f.Name).Value(), err)
			}
			for want, set := range map[string]map[string]string{
				"want one of them": {f.Name: planted, f.Name + fileSuffix: file},
				"no such file":     {f.Name + fileSuffix: file + ".none"},
			} {
				_, err := read(set)
				if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), f.Name+fileSuffix) ||
					strings.Contains(err.Error(), planted) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want one line with %q", err, want)
				}
			}
		})
	}
	if seen == 0 {
		t.Error("no variable is a secret")
	}
}

// `tidewire config` shows where a secret comes from, and nothing of it.
func TestSecretFileInConfig(t *testing.T) {
	const planted = "pl4nted-s3cret"
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(planted), 0o600); err != nil {
		t.Fatal(err)
	}
	setEnv(t, map[string]string{
		"TIDEWIRE_KAFKA_SASL_MECHANISM": "PLAIN", "TIDEWIRE_KAFKA_SASL_USERNAME": "u", "TIDEWIRE_KAFKA_SASL_PASSWORD_FILE": file,
	})
	var b bytes.Buffer
	if err := Print(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "TIDEWIRE_KAFKA_SASL_PASSWORD_FILE="+file+"\n") || strings.Contains(b.String(), planted) {
		t.Errorf("config prints:\n%s", b.String())
	}
	if u := Unknown(); len(u) != 0 {
		t.Errorf("unknown: %v", u)
	}
	c, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(c.Security)
	if err != nil {
		t.Fatal(err)
	}
	if out := fmt.Sprintf("%v %+v %#v %s", c, c, c, j); strings.Contains(out, planted) || c.Security.Password.Value() != planted {
		t.Errorf("printed: %s", out)
	}
}

// A secret's file that goes and comes back is told of in the log, by its variable.
func TestSecretFileIsToldOf(t *testing.T) {
	setEnv(t, nil)
	e, err := readEnv()
	if err != nil {
		t.Fatal(err)
	}
	var p problems
	e.readSecrets(&p)
	report := e.secrets.report("TIDEWIRE_X_FILE")
	report(os.ErrNotExist) // nobody to tell yet
	var b bytes.Buffer
	log := zerolog.New(&b)
	e.secrets.log.Store(&log)
	report(os.ErrNotExist)
	report(nil)
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"warn"`) || !strings.Contains(lines[0], "TIDEWIRE_X_FILE") ||
		!strings.Contains(lines[0], "does not exist") || !strings.Contains(lines[1], `"info"`) {
		t.Errorf("logged %v", lines)
	}
}

// A field whose name sounds like a secret is one: it was forgotten otherwise.
func TestSecretsAreTagged(t *testing.T) {
	tt := reflect.TypeFor[env]()
	for i := range tt.NumField() {
		name := tt.Field(i).Tag.Get("envconfig")
		for _, word := range []string{"PASSWORD", "SECRET", "_TOKEN"} {
			if strings.HasSuffix(name, word) && tt.Field(i).Tag.Get("secret") == "" {
				t.Errorf(`%s is not tagged secret:"true"`, name)
			}
		}
	}
}
