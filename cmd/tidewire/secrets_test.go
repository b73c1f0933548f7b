package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/tidewire/tidewire/cmd/internal/node"
	"github.com/tidewire/tidewire/internal/freeport"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// TestMain lets this binary be `tidewire` itself, in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("TIDEWIRE_TEST_AS_TIDEWIRE") != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// traces are the forms in which a secret is looked for: as it is, as it stands in Go and JSON strings and in
// addresses, in hex, and in base64 wherever it begins in what was encoded.
func traces(secret string) map[string]string {
	quoted, _ := json.Marshal(secret) // a string cannot fail
	out := map[string]string{
		"itself": secret, "quoted by Go": strings.Trim(strconv.Quote(secret), `"`), "in JSON": strings.Trim(string(quoted), `"`),
		"in an address": url.QueryEscape(secret), "in a path": url.PathEscape(secret),
		"in hex": hex.EncodeToString([]byte(secret)), "in HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"as numbers": strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
	}
	for before := range 3 {
		for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			// Without the characters that depend on what stands before and after.
			b := enc.EncodeToString([]byte(strings.Repeat("x", before) + secret))
			out[fmt.Sprintf("in %s after %d", name, before)] = b[(8*before+5)/6 : len(b)-2]
		}
	}
	return out
}

// secretVariables are those that may be given as a file.
func secretVariables() (out []string) {
	var names []string
	for _, v := range node.Variables() {
		names = append(names, v.Name)
	}
	for _, n := range names {
		if slices.Contains(names, n+"_FILE") {
			out = append(out, n)
		}
	}
	return out
}

// said is all that a process let out, by where.
type said map[string]string

func (s said) has(t *testing.T, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		for form, trace := range traces(secret) {
			for where, text := range s {
				if i := strings.Index(text, trace); i >= 0 {
					t.Errorf("%s holds a secret (%s): …%s…", where, form, text[max(0, i-100):min(len(text), i+len(trace)+20)])
				}
			}
		}
	}
}

// output is what a running process prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// command is a `tidewire` with this environment and nothing of ours.
func command(t *testing.T, env map[string]string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = []string{"TIDEWIRE_TEST_AS_TIDEWIRE=1", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "AWS_EC2_METADATA_DISABLED=true"}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// What protects the other ports of every node that is run, what it shows to the service that decides, and what its clients
// and operators show.
var (
	adminToken    = "pl4nted adm1n/+s3cret"
	wrongAdmin    = "pl4nted adm1n/+s3cret of somebody else"
	webhookToken  = "pl4nted w3bhook/+s3cret"
	clusterSecret = strings.Repeat("pl4nted clust3r/+s3cret ", 2)
	tokenSecret   = strings.Repeat("pl4nted jwt/+s3cret ", 2)
	goodToken     = signed(tokenSecret)
	wrongToken    = signed("pl4nted other/+s3cret of somebody else")
)

// signed is a client's token, good for an hour.
func signed(secret string) string {
	t, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": "pl4nted", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "tidewire": map[string]any{"sub": []string{"/x/*"}},
	}).SignedString([]byte(secret))
	if err != nil {
		panic(err)
	}
	return t
}

// ask returns what is answered, headers included, unpacked.
func ask(t *testing.T, address, token string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	answer, _ := do(t, req)
	return answer
}

func do(t *testing.T, req *http.Request) (answer string, status int) {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if packed, err := gzip.NewReader(bytes.NewReader(b)); err == nil { // a profile
		if b, err = io.ReadAll(packed); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprint(res.Status, res.Header) + string(b), res.StatusCode
}

// clients has clients show tokens, good and bad ones, over HTTP and over WebSocket.
func (s said) clients(t *testing.T, addr string) {
	t.Helper()
	// A node that has just started looks at no token before it knows which were revoked.
	for deadline := time.Now().Add(time.Minute); strings.HasPrefix(ask(t, "http://"+addr+"/history/x/k", goodToken), "503"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no token is looked at")
		}
	}
	for name, token := range map[string]string{"a good token": goodToken, "a wrong one": wrongToken, "none": strings.ReplaceAll(wrongToken, ".", "-")} {
		answer := ask(t, "http://"+addr+"/history/x/k", token)
		if good := name == "a good token"; good == strings.HasPrefix(answer, "401") {
			t.Errorf("%s over HTTP: %s", name, answer)
		}
		s[name+" over HTTP"] = answer
		c, _, err := websocket.Dial(t.Context(), "ws://"+addr+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Write(t.Context(), websocket.MessageText, []byte(`{"op":"auth","id":1,"token":"`+token+`"}`)); err != nil {
			t.Fatal(err)
		}
		for !strings.Contains(s[name+" over WebSocket"], `"id":1`) {
			_, b, err := c.Read(t.Context())
			s[name+" over WebSocket"] += string(b) + fmt.Sprint(err)
			if err != nil {
				break
			}
		}
		_ = c.CloseNow()
	}
}

// operators asks every path of the admin port with its token, and some with a wrong one and with none; at the console's
// login too.
func (s said) operators(t *testing.T, addr string) {
	t.Helper()
	for _, path := range paths {
		s["admin port"+path] = ask(t, "http://"+addr+path, adminToken)
		if strings.HasPrefix(s["admin port"+path], "401") {
			t.Errorf("%s with the token: %s", path, s["admin port"+path])
		}
	}
	for _, path := range []string{"/", "/readyz", "/status", "/metrics", "/debug/pprof/heap"} {
		s["admin port, a wrong token"+path] = ask(t, "http://"+addr+path, wrongAdmin)
		s["admin port, no token"+path] = ask(t, "http://"+addr+path, "")
	}
	for token, want := range map[string]int{adminToken: http.StatusNoContent, wrongAdmin: http.StatusUnauthorized} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/console/login", strings.NewReader(fmt.Sprintf(`{"token":%q}`, token)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", "http://"+addr)
		answer, status := do(t, req)
		if status != want {
			t.Errorf("the login: %s", answer)
		}
		s[fmt.Sprint("login answered with ", want)] = answer
	}
}

// paths are those of the admin port, and some that are none.
var paths = []string{"/", "/healthz", "/readyz", "/status", "/status?cluster=true", "/sessions", "/members", "/metrics", "/console/", "/admin/revocations",
	"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap", "/debug/pprof/allocs", "/debug/pprof/goroutine", "/debug/pprof/goroutine?debug=2",
	"/debug/pprof/mutex", "/debug/pprof/block", "/debug/pprof/threadcreate", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace?seconds=1",
	"/debug/vars", "/config"}

// startDecider starts the service that decides. It lets everybody, but for the first question, and repeats in its answers
// what it is shown.
func startDecider(t *testing.T) (address string, asked func() bool) {
	var questions atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown := r.Header.Get("Authorization")
		if shown != "Bearer "+webhookToken {
			t.Errorf("the service that decides was shown %q", shown)
		}
		w.Header().Set("X-Shown", shown)
		if questions.Add(1) == 1 {
			http.Error(w, "not now, "+shown, http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"allow":true,"shown":%q}`, shown)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() bool { return questions.Load() > 1 }
}

// ofEveryNode are the secret variables of every node that is run; those for Kafka come with each.
var ofEveryNode = map[string]string{
	"TIDEWIRE_ADMIN_TOKEN": adminToken, "TIDEWIRE_CLUSTER_SECRET": clusterSecret, "TIDEWIRE_AUTH": "jwt", "TIDEWIRE_AUTH_JWT_SECRET": tokenSecret,
	"TIDEWIRE_AUTH_WEBHOOK_TOKEN": webhookToken,
}

// taken is in the log of a node that Kafka lets in.
const taken = "joined the consumer group"

// runUntil starts a node, waits until its log holds all of want, asks it whatever it answers, and stops it.
func runUntil(t *testing.T, env map[string]string, want ...string) said {
	t.Helper()
	env["TIDEWIRE_LOG_LEVEL"], env["TIDEWIRE_DATA_DIR"] = "trace", t.TempDir()
	maps.Copy(env, ofEveryNode)
	var asked func() bool
	env["TIDEWIRE_AUTH_WEBHOOK"], asked = startDecider(t)
	ports, err := freeport.Take(3)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"TIDEWIRE_LISTEN", "TIDEWIRE_ADMIN_LISTEN", "TIDEWIRE_CLUSTER_LISTEN"} {
		env[name] = fmt.Sprintf("127.0.0.1:%d", ports[i])
	}
	cmd := command(t, env)
	var stdout, stderr output
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	out := said{}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if log := stderr.String(); !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(log, w) }) {
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			<-exited
			t.Fatalf("the log does not hold %q:\n%s", want, stderr.String())
		}
		select {
		case err := <-exited:
			t.Fatalf("it ended (%v), and the log does not hold %q:\n%s", err, want, stderr.String())
		default:
		}
	}
	if slices.Contains(want, taken) { // a node without Kafka keeps who asks for records waiting
		out.clients(t, env["TIDEWIRE_LISTEN"])
		if !asked() {
			t.Error("the service that decides was not asked")
		}
	}
	out.operators(t, env["TIDEWIRE_ADMIN_LISTEN"])
	for _, path := range paths {
		out["client port"+path] = ask(t, "http://"+env["TIDEWIRE_LISTEN"]+path, "")
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid)); err == nil {
		out["the command line"] = string(b)
	}
	// All goroutines with their arguments, as a crash prints them.
	_ = cmd.Process.Signal(syscall.SIGQUIT)
	<-exited
	out["stdout"], out["stderr"] = stdout.String(), stderr.String()
	if !strings.Contains(out["stderr"], "goroutine ") {
		t.Error("the process printed no goroutines")
	}
	return out
}

// A secret is nowhere in what `tidewire` says before it runs: in the values in force, and in what is wrong with
// the configuration, from the environment as from a file.
func TestSecretsOfTheConfiguration(t *testing.T) {
	all := secretVariables()
	if len(all) < 3 {
		t.Fatalf("the secret variables are %v", all)
	}
	for _, name := range all {
		t.Run(name, func(t *testing.T) {
			secret := "pl4nted s3cret/+ of " + name
			file := filepath.Join(t.TempDir(), "s")
			if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, given := range []map[string]string{{name: secret}, {name + "_FILE": file}, {name: secret, name + "_FILE": file}} {
				for _, mechanism := range []string{"", "PLAIN", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM", "wrong"} {
					env := map[string]string{"TIDEWIRE_NODE_ID": "n1", "TIDEWIRE_KAFKA_BROKERS": "127.0.0.1:1", "TIDEWIRE_KAFKA_TOPICS": "x",
						"TIDEWIRE_KAFKA_SASL_MECHANISM": mechanism, "TIDEWIRE_KAFKA_SASL_USERNAME": "u", "TIDEWIRE_GROUPS": "x"}
					for k, v := range given {
						env[k] = v
					}
					for _, groups := range []string{"x", "8"} { // with another problem, and without
						if groups == "x" && mechanism != "PLAIN" {
							continue
						}
						env["TIDEWIRE_GROUPS"] = groups
						b, err := command(t, env, "config").CombinedOutput()
						if err == nil && !strings.Contains(string(b), name) || len(b) == 0 {
							t.Errorf("said %q, %v", b, err)
						}
						said{"tidewire config": string(b)}.has(t, secret)
					}
				}
			}
		})
	}
}

// A secret is nowhere in what a node says or answers, whether it is taken or refused, and by whom.
func TestSecretsOfARunningNode(t *testing.T) {
	k := kafkatest.Start(t, kafkatest.Options{SASL: true})
	k.CreateTopic("x", 1, nil)
	const clientSecret, wrong = "pl4nted cl1ent/+s3cret", "pl4nted wr0ng/+s3cret"
	token := kafkatest.UnsignedToken("pl4nted", time.Hour)
	expired := kafkatest.UnsignedToken("pl4nted", -time.Second)
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		w.Header().Set("Content-Type", "application/json")
		if p, _ := url.QueryUnescape(password); p != clientSecret {
			w.WriteHeader(http.StatusUnauthorized)
			_ = r.ParseForm() // the client tries both ways to give its secret
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":%q}`, "not "+p+r.PostForm.Get("client_secret")+" "+r.Header.Get("Authorization"))
			return
		}
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer","expires_in":3600}`, token)
	}))
	t.Cleanup(endpoint.Close)
	file := func(secret string) string {
		f := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(f, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	type set = map[string]string
	password := func(mechanism, name, value string) set {
		return set{"SASL_MECHANISM": mechanism, "SASL_USERNAME": k.Username, name: value}
	}
	client := func(name, value string) set {
		return set{"SASL_MECHANISM": "OAUTHBEARER", "OAUTH_TOKEN_URL": endpoint.URL, "OAUTH_CLIENT_ID": "id", name: value}
	}
	bearer := func(name, value string) set { return set{"SASL_MECHANISM": "OAUTHBEARER", name: value} }
	secrets := []string{k.Password, clientSecret, wrong, clusterSecret, tokenSecret, adminToken, wrongAdmin, webhookToken}
	for _, t := range []string{token, expired, goodToken, wrongToken} {
		secrets = append(secrets, t, strings.Split(t, ".")[1])
	}
	for _, t := range []string{goodToken, wrongToken} {
		secrets = append(secrets, strings.Split(t, ".")[2])
	}
	cases := map[string]struct {
		env  set // without TIDEWIRE_KAFKA_
		want string
	}{
		"PLAIN":                   {password("PLAIN", "SASL_PASSWORD", k.Password), taken},
		"PLAIN, from a file":      {password("PLAIN", "SASL_PASSWORD_FILE", file(k.Password)), taken},
		"PLAIN, wrong":            {password("PLAIN", "SASL_PASSWORD", wrong), "SASL Authentication Failed"},
		"SCRAM":                   {password("SCRAM-SHA-512", "SASL_PASSWORD_FILE", file(k.Password)), taken},
		"SCRAM, wrong":            {password("SCRAM-SHA-256", "SASL_PASSWORD_FILE", file(wrong)), "SASL Authentication Failed"},
		"client secret":           {client("OAUTH_CLIENT_SECRET_FILE", file(clientSecret)), taken},
		"client secret, wrong":    {client("OAUTH_CLIENT_SECRET", wrong), "invalid_client"},
		"token":                   {bearer("OAUTH_TOKEN_FILE", file(token)), taken},
		"token, expired":          {bearer("OAUTH_TOKEN", expired), "invalid_token"},
		"token, none that is one": {bearer("OAUTH_TOKEN", wrong), "RFC 6750"},
	}
	for _, name := range secretVariables() {
		_, planted := ofEveryNode[name]
		for _, tc := range cases {
			kafka := strings.TrimPrefix(name, "TIDEWIRE_KAFKA_")
			planted = planted || tc.env[kafka] != "" || tc.env[kafka+"_FILE"] != ""
		}
		if !planted {
			t.Errorf("no node is run with %s", name)
		}
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			env := set{"TIDEWIRE_NODE_ID": "n1", "TIDEWIRE_KAFKA_BROKERS": strings.Join(k.SASLBrokers(), ","), "TIDEWIRE_KAFKA_TOPICS": "x",
				"TIDEWIRE_KAFKA_TLS": "on", "TIDEWIRE_KAFKA_TLS_CA": k.CAFile, "TIDEWIRE_KAFKA_GROUP_ID": kafkatest.Topic(t), "TIDEWIRE_GROUPS": "1"}
			for name, value := range tc.env {
				env["TIDEWIRE_KAFKA_"+name] = value
			}
			t.Parallel()
			runUntil(t, env, tc.want).has(t, secrets...)
		})
	}
}

// The search finds a secret that is there in one of its forms.
func TestTracesAreFound(t *testing.T) {
	const secret = `pl4nted "s3cret"/+`
	for _, text := range []string{secret, fmt.Sprintf("%q", secret), fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret)),
		url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte("user:" + secret)), base64.URLEncoding.EncodeToString([]byte("n" + secret + "more")),
		base64.RawStdEncoding.EncodeToString([]byte("\x00u\x00" + secret))} {
		found := false
		for _, trace := range traces(secret) {
			found = found || strings.Contains(text, trace)
		}
		if !found {
			t.Errorf("not found in %s", text)
		}
	}
	clean := regexp.MustCompile(`^[ -~]+$`)
	for form, trace := range traces(secret) {
		if len(trace) < 10 || !clean.MatchString(trace) {
			t.Errorf("%s is %q", form, trace)
		}
	}
}
