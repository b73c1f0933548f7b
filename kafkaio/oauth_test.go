package kafkaio

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/tidewire/tidewire/internal/secret"
)

// tokenEndpoint is a token endpoint that knows one client, with the name and password "id" and "planted s3cret/+".
// form is the last question that it answered.
type tokenEndpoint struct {
	*httptest.Server
	asked atomic.Int64
	form  atomic.Pointer[url.Values]
}

const clientPassword = "planted s3cret/+"

// newTokenEndpoint answers as the RFC says, with the tokens that issue returns, and their lives in seconds.
func newTokenEndpoint(t *testing.T, issue func() (token string, seconds int)) *tokenEndpoint {
	e := &tokenEndpoint{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.asked.Add(1)
		user, password, ok := r.BasicAuth()
		user, _ = url.QueryUnescape(user)
		password, _ = url.QueryUnescape(password)
		if err := r.ParseForm(); err != nil || !ok {
			user, password = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
		}
		w.Header().Set("Content-Type", "application/json")
		if user != "id" || password != clientPassword {
			w.WriteHeader(http.StatusUnauthorized)
			// Some say what they were sent.
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":"no client %s with %s (%s)"}`, user, password, r.Header.Get("Authorization"))
			return
		}
		e.form.Store(&r.PostForm)
		token, seconds := issue()
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "token_type": "bearer", "expires_in": seconds})
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *tokenEndpoint) oauth(password string) OAuth {
	return OAuth{TokenURL: e.URL + "/token", ClientID: "id", ClientSecret: secret.Of(password), Scope: "kafka read"}
}

// started is the mechanism's first message.
func started(t *testing.T, o OAuth) (string, error) {
	t.Helper()
	_, mech, err := Security{Mechanism: MechanismOAuthBearer, OAuth: o}.Build()
	if err != nil {
		return "", err
	}
	m := mech.(*oauthMechanism)
	defer m.close()
	_, msg, err := m.Start(t.Context())
	return string(msg), err
}

func TestOAuthToken(t *testing.T) {
	e := newTokenEndpoint(t, func() (string, int) { return "abc.def-_~+/==", 60 })
	o := e.oauth(clientPassword)
	o.Extensions = map[string]string{"logicalCluster": "lkc-1", "identityPoolId": "pool 1"}
	const want = "n,,\x01auth=Bearer abc.def-_~+/==\x01identityPoolId=pool 1\x01logicalCluster=lkc-1\x01\x01"
	if got, err := started(t, o); got != want || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if f := *e.form.Load(); f.Get("grant_type") != "client_credentials" || f.Get("scope") != "kafka read" {
		t.Errorf("asked with %v", f)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inFile, err := secret.FromFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := started(t, OAuth{Token: inFile}); got != "n,,\x01auth=Bearer one\x01\x01" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// What an endpoint or a file gives instead of a token is an error that says so, without the client's secret or
// the token in it.
func TestOAuthWithoutToken(t *testing.T) {
	e := newTokenEndpoint(t, func() (string, int) { return "planted\x01auth=Bearer other", 60 })
	elsewhere := newTokenEndpoint(t, func() (string, int) { return "elsewhere", 60 })
	plain := http.NewServeMux()
	plain.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	plain.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		fmt.Fprintf(w, "planted %s %s", r.Form, r.Header)
	})
	plain.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	plain.HandleFunc("/expired", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"t","token_type":"bearer","expires_in":-1}`)
	})
	srv := httptest.NewServer(plain)
	t.Cleanup(srv.Close)
	closed := httptest.NewServer(plain)
	closed.Close()
	at := func(u string) OAuth {
		return OAuth{TokenURL: u, ClientID: "id", ClientSecret: secret.Of("planted wrong")}
	}
	for name, tc := range map[string]struct {
		o    OAuth
		want []string
	}{
		"wrong secret":    {e.oauth("planted wrong"), []string{e.URL + "/token", `"id"`, "401", "invalid_client"}},
		"no bearer token": {e.oauth(clientPassword), []string{"RFC 6750"}},
		"redirected":      {at(srv.URL + "/moved"), []string{"307"}},
		"not OAuth":       {at(srv.URL + "/echo"), []string{"RFC 6749"}},
		"endless":         {at(srv.URL + "/endless"), []string{"RFC 6749"}},
		"not found":       {at(srv.URL + "/none?planted=1"), []string{"404", srv.URL + "/none"}},
		"expired":         {at(srv.URL + "/expired"), []string{"expired"}},
		"nobody there":    {at(closed.URL), []string{"refused", closed.URL}},
		"bad file":        {OAuth{Token: secret.Of("planted token")}, []string{"RFC 6750"}},
	} {
		_, err := started(t, tc.o)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s in it", name, err, want)
			}
		}
		for _, p := range []string{"planted", url.QueryEscape("planted wrong"), base64.StdEncoding.EncodeToString([]byte("id:planted"))[:12]} {
			if strings.Contains(err.Error(), p) {
				t.Errorf("%s: a secret is in %v", name, err)
			}
		}
	}
	if elsewhere.asked.Load() != 0 {
		t.Error("the client secret went where a redirect led")
	}
}

func TestOAuthConfig(t *testing.T) {
	s, token := secret.Of("planted"), secret.Of("planted")
	for want, o := range map[string]OAuth{
		"needs a token or":           {},
		"both a token and":           {Token: token, TokenURL: "https://a/b"},
		"a client id and a client s": {TokenURL: "https://a/b", ClientID: "id"},
		"want https":                 {TokenURL: "http://a/b", ClientID: "id", ClientSecret: s},
		"an address such as":         {TokenURL: "https://u:planted@a/b", ClientID: "id", ClientSecret: s},
		"extension \"auth\"":         {Token: token, Extensions: map[string]string{"auth": "x"}},
		"extension \"a\"":            {Token: token, Extensions: map[string]string{"a": "x\x01auth=y"}},
	} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, u := range []string{"https://a/b", "http://127.0.0.1:1/b", "http://[::1]/b", "http://localhost/b"} {
		if err := (OAuth{TokenURL: u, ClientID: "id", ClientSecret: s}).Validate(); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
}

// A broker that refuses a token says why in a challenge, which a single byte 1 answers; then it says no.
func TestOAuthChallenge(t *testing.T) {
	s := &oauthSession{token: "planted"}
	done, answer, err := s.Next(t.Context(), []byte(`{"status":"invalid_token","scope":"planted"}`))
	if done || string(answer) != "\x01" || err != nil {
		t.Fatalf("%v %q %v", done, answer, err)
	}
	err = s.explain(kafka.SASLAuthenticationFailed)
	if !strings.Contains(err.Error(), "invalid_token") || strings.Contains(err.Error(), "planted") {
		t.Errorf("%v", err)
	}
	if done, _, err := s.Next(t.Context(), []byte("more")); done || err == nil {
		t.Errorf("a broker that goes on asking: %v, %v", done, err)
	}
	if done, _, err := s.Next(t.Context(), nil); done || err == nil {
		t.Errorf("a broker that refuses and then accepts: %v, %v", done, err)
	}
}

// The token for Amazon MSK is an address that was signed with the credentials of the environment.
func TestMSKToken(t *testing.T) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	start := func() (string, error) {
		_, mech, err := Security{Mechanism: MechanismAWSMSKIAM, AWSRegion: "eu-central-1"}.Build()
		if err != nil {
			t.Fatal(err)
		}
		m := mech.(*oauthMechanism)
		defer m.close()
		if m.Name() != "OAUTHBEARER" {
			t.Errorf("the protocol's name is %s", m.Name())
		}
		_, msg, err := m.Start(t.Context())
		return string(msg), err
	}
	if _, err := start(); err == nil || !strings.Contains(err.Error(), "AWS") {
		t.Errorf("without credentials: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "planted")
	msg, err := start()
	if err != nil {
		t.Fatal(err)
	}
	value := strings.TrimSuffix(strings.TrimPrefix(msg, "n,,\x01auth=Bearer "), "\x01\x01")
	signed, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(string(signed))
	if err != nil || u.Host != "kafka.eu-central-1.amazonaws.com" || u.Query().Get("Action") != "kafka-cluster:Connect" ||
		!strings.HasPrefix(u.Query().Get("X-Amz-Credential"), "AKIDEXAMPLE/") || u.Query().Get("X-Amz-Signature") == "" {
		t.Errorf("%s, %v", signed, err)
	}
	if strings.Contains(string(signed), "planted") {
		t.Error("the secret key is in the token")
	}
	if _, _, err := (Security{Mechanism: MechanismAWSMSKIAM, AWSRegion: "evil.example.com/"}).Build(); err == nil {
		t.Error("a region that is none")
	}
}
