package node

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// setEnv clears our variables and sets the given ones, with what is required.
func setEnv(t *testing.T, set map[string]string) {
	t.Helper()
	for _, v := range Variables() {
		t.Setenv(v.Name, "") // restored with the test
		if err := os.Unsetenv(v.Name); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TIDEWIRE_KAFKA_BROKERS", "kafka:9092")
	t.Setenv("TIDEWIRE_KAFKA_TOPICS", "prices")
	for name, value := range set {
		t.Setenv(name, value)
	}
}

func TestDefaultsOfTheEnvironment(t *testing.T) {
	setEnv(t, nil)
	c, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	if string(c.NodeID) != host || c.Listen != ":8080" || c.AdminListen != "127.0.0.1:8081" || c.ClusterListen != "127.0.0.1:7070" ||
		c.ClusterAdvertise != "127.0.0.1:7070" || len(c.Peers) != 0 || c.Groups != 8 || c.DataDir != "./data" || c.KafkaGroupID != "tidewire" ||
		c.Start.String() != "latest" || c.CacheTTL != 10*time.Minute || c.MaxFrameBytes != 1048576 || c.Heartbeat != 25*time.Second ||
		c.IsolationGrace != 10*time.Second || c.AllowedOrigins != nil || !c.PublishTopics.Empty() {
		t.Errorf("defaults differ from CONFIG: %+v", c)
	}
	if c.CacheBytes < 16<<20 {
		t.Errorf("a quarter of memory is %d", c.CacheBytes)
	}
}

// A wrong value stops the start with a line that names the variable, the value and what would be right.
func TestEveryWrongValueIsNamed(t *testing.T) {
	for _, tc := range []struct{ name, value, right string }{
		{"TIDEWIRE_NODE_ID", "a b", "letters"},
		{"TIDEWIRE_LISTEN", "8080", "host:port"},
		{"TIDEWIRE_LISTEN", ":99999", "host:port"},
		{"TIDEWIRE_ADMIN_LISTEN", "localhost", "host:port"},
		{"TIDEWIRE_CLUSTER_LISTEN", "x:y", "host:port"},
		{"TIDEWIRE_CLUSTER_ADVERTISE", ":7070", "dial"},
		{"TIDEWIRE_CLUSTER_PEERS", "n1", "name=host:port"},
		{"TIDEWIRE_CLUSTER_PEERS", "other=h:7070", "missing"},
		{"TIDEWIRE_CLUSTER_LISTEN", ":7070", "TIDEWIRE_CLUSTER_SECRET"},
		{"TIDEWIRE_CLUSTER_LISTEN", "10.0.0.1:7070", "TIDEWIRE_CLUSTER_INSECURE=true"},
		{"TIDEWIRE_CLUSTER_PEERS", "n1=10.0.0.1:7070,n2=10.0.0.2:7070", "TIDEWIRE_CLUSTER_TLS_CA"},
		{"TIDEWIRE_CLUSTER_SECRET", "********", "openssl rand"}, // eight stars are too short
		{"TIDEWIRE_CLUSTER_TLS_NAMES", "n1", "TIDEWIRE_CLUSTER_TLS_CERT"},
		{"TIDEWIRE_CLUSTER_INSECURE", "maybe", "true or false"},
		{"TIDEWIRE_GROUPS", "0", "from 1 to"},
		{"TIDEWIRE_GROUPS", "many", "from 1 to"},
		{"TIDEWIRE_KAFKA_BROKERS", "kafka", "host:port"},
		{"TIDEWIRE_KAFKA_BROKERS", "", "required"},
		{"TIDEWIRE_KAFKA_TOPICS", "", "required"},
		{"TIDEWIRE_KAFKA_TOPICS", "/(/", "regexp"},
		{"TIDEWIRE_KAFKA_PUBLISH_TOPICS", "a b", "topic"},
		{"TIDEWIRE_KAFKA_START", "yesterday", "earliest, latest"},
		{"TIDEWIRE_KAFKA_FORMATS", "prices=xml", "topic=json"},
		{"TIDEWIRE_KAFKA_PARTITIONER", "crc32", "murmur2 or any"},
		{"TIDEWIRE_KAFKA_TLS", "maybe", "on or off"},
		{"TIDEWIRE_CACHE_TTL", "10", "duration"},
		{"TIDEWIRE_CACHE_BYTES", "big", "number of bytes"},
		{"TIDEWIRE_CACHE_BYTES", "100", "at least"},
		{"TIDEWIRE_MAX_FRAME_BYTES", "-1", "from 1024"},
		{"TIDEWIRE_HEARTBEAT", "0s", "duration"},
		{"TIDEWIRE_ISOLATION_GRACE", "soon", "duration"},
		{"TIDEWIRE_ALLOWED_ORIGINS", "example.com", "https://"},
		{"TIDEWIRE_LOG_LEVEL", "loud", "debug"},
		{"TIDEWIRE_LOG_FORMAT", "xml", "json or console"},
	} {
		allRefused(t, "", "", []refused{{map[string]string{tc.name: tc.value}, []string{tc.name, tc.value, tc.right}}})
	}
}

// The variables of TLS and SASL hang together: what is missing or wrong is named all the same.
func TestWrongSecurityIsNamed(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	none := empty + ".none"
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	type set = map[string]string
	allRefused(t, "TIDEWIRE_KAFKA_", "s3cret", []refused{
		{set{"TLS_CA": empty}, []string{"TIDEWIRE_KAFKA_TLS_CA", empty, "TIDEWIRE_KAFKA_TLS=on"}},
		{set{"TLS": "on", "TLS_CA": none}, []string{"TIDEWIRE_KAFKA_TLS_CA", none, "no such file"}},
		{set{"TLS": "on", "TLS_CA": empty}, []string{"TIDEWIRE_KAFKA_TLS_CA", empty, "PEM"}},
		{set{"TLS": "on", "TLS_CERT": empty}, []string{"TIDEWIRE_KAFKA_TLS_KEY", "required with TIDEWIRE_KAFKA_TLS_CERT"}},
		{set{"TLS": "on", "TLS_KEY": empty}, []string{"TIDEWIRE_KAFKA_TLS_CERT", "required with TIDEWIRE_KAFKA_TLS_KEY"}},
		{set{"TLS": "on", "TLS_CERT": empty, "TLS_KEY": empty}, []string{"TIDEWIRE_KAFKA_TLS_CERT", empty, "PEM"}},
		{set{"SASL_USERNAME": "u"}, []string{"TIDEWIRE_KAFKA_SASL_USERNAME", `"u"`, "SCRAM-SHA-256"}},
		{set{"SASL_PASSWORD": "s3cret"}, []string{"TIDEWIRE_KAFKA_SASL_PASSWORD", "SCRAM-SHA-256"}},
		{set{"SASL_MECHANISM": "PLAIN", "SASL_PASSWORD": "s3cret"}, []string{"TIDEWIRE_KAFKA_SASL_USERNAME", "required"}},
		{set{"SASL_MECHANISM": "PLAIN", "SASL_USERNAME": "u"}, []string{"TIDEWIRE_KAFKA_SASL_PASSWORD", "required"}},
		{set{"SASL_MECHANISM": "MD5", "SASL_USERNAME": "u", "SASL_PASSWORD": "s3cret"}, []string{"TIDEWIRE_KAFKA_SASL_MECHANISM", "MD5", "PLAIN"}},
		{set{"OAUTH_CLIENT_SECRET": "s3cret"}, []string{"TIDEWIRE_KAFKA_OAUTH_CLIENT_SECRET", "OAUTHBEARER there"}},
		{set{"SASL_MECHANISM": "PLAIN", "SASL_USERNAME": "u", "SASL_PASSWORD": "s3cret", "OAUTH_TOKEN": "s3cret"}, []string{"TIDEWIRE_KAFKA_OAUTH_TOKEN", "OAUTHBEARER", "PLAIN"}},
		{set{"SASL_MECHANISM": "OAUTHBEARER", "OAUTH_TOKEN": "s3cret", "SASL_PASSWORD": "s3cret"}, []string{"TIDEWIRE_KAFKA_SASL_PASSWORD", "SCRAM-SHA-256"}},
		{set{"SASL_MECHANISM": "OAUTHBEARER", "OAUTH_TOKEN_URL": "https://a/b", "OAUTH_CLIENT_ID": "id"}, []string{"TIDEWIRE_KAFKA_OAUTH_CLIENT_SECRET", "required"}},
		{set{"SASL_MECHANISM": "OAUTHBEARER", "OAUTH_TOKEN_URL": "http://a/b", "OAUTH_CLIENT_ID": "id", "OAUTH_CLIENT_SECRET": "s3cret"}, []string{"TIDEWIRE_KAFKA_SASL_", "want https"}},
		{set{"SASL_MECHANISM": "OAUTHBEARER", "OAUTH_TOKEN": "s3cret", "OAUTH_SCOPE": "x"}, []string{"TIDEWIRE_KAFKA_SASL_", "want one of them"}},
		{set{"SASL_MECHANISM": "OAUTHBEARER", "OAUTH_TOKEN": "s3cret", "OAUTH_EXTENSIONS": "x"}, []string{"TIDEWIRE_KAFKA_OAUTH_EXTENSIONS", `"x"`, "name=value"}},
		{set{"SASL_MECHANISM": "AWS_MSK_IAM"}, []string{"TIDEWIRE_KAFKA_AWS_REGION", "required"}},
		{set{"SASL_MECHANISM": "AWS_MSK_IAM", "AWS_REGION": "a/b"}, []string{"TIDEWIRE_KAFKA_SASL_", "region", "a/b"}},
		{set{"SASL_MECHANISM": "SCRAM-SHA-512", "SASL_USERNAME": "u", "SASL_PASSWORD": "s3cret\u0007"}, []string{"TIDEWIRE_KAFKA_SASL_", "SASLprep"}},
	})
}

// All problems are told at once, and no secret is in any of them or in `tidewire config`.
func TestProblemsAreTogetherAndSecretsStayOut(t *testing.T) {
	const secret = "pl4nted-s3cret"
	setEnv(t, map[string]string{
		"TIDEWIRE_GROUPS": "x", "TIDEWIRE_HEARTBEAT": "x",
		"TIDEWIRE_KAFKA_SASL_MECHANISM": "MD5", "TIDEWIRE_KAFKA_SASL_USERNAME": "u", "TIDEWIRE_KAFKA_SASL_PASSWORD": secret,
	})
	_, err := FromEnv()
	if err == nil {
		t.Fatal("accepted")
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 3 {
		t.Errorf("%d lines for 3 problems:\n%v", n, err)
	}
	t.Setenv("TIDEWIRE_GROUPS", "4")
	t.Setenv("TIDEWIRE_HEARTBEAT", "5s")
	t.Setenv("TIDEWIRE_KAFKA_SASL_MECHANISM", "PLAIN")
	var b bytes.Buffer
	if perr := Print(&b); perr != nil {
		t.Fatal(perr)
	}
	for _, text := range []string{err.Error(), b.String()} {
		if strings.Contains(text, secret) {
			t.Errorf("the password is in:\n%s", text)
		}
	}
	if !strings.Contains(b.String(), "TIDEWIRE_KAFKA_SASL_PASSWORD=********") || !strings.Contains(b.String(), "TIDEWIRE_GROUPS=4") {
		t.Errorf("config prints:\n%s", b.String())
	}
}

// A variable that is nearly one of ours is told with the one that was meant.
func TestUnknownVariables(t *testing.T) {
	setEnv(t, map[string]string{"TIDEWIRE_KAFKA_TOPIC": "x", "TIDEWIRE_SERVICE_HOST": "10.0.0.1"})
	got := strings.Join(Unknown(), "\n")
	if !strings.Contains(got, "TIDEWIRE_KAFKA_TOPIC (did you mean TIDEWIRE_KAFKA_TOPICS?)") || !strings.Contains(got, "TIDEWIRE_SERVICE_HOST") {
		t.Errorf("unknown: %s", got)
	}
}

// The README's table is the one that `tidewire -h` prints.
func TestReadmeHasEveryVariable(t *testing.T) {
	b, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(b), "<!-- config -->")
	table, _, closed := strings.Cut(after, "<!-- /config -->")
	if !ok || !closed {
		t.Fatal("README.md has no table between <!-- config --> and <!-- /config -->")
	}
	rows := map[string][2]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) == 3 {
			rows[strings.Trim(strings.TrimSpace(cells[0]), "`")] = [2]string{strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])}
		}
	}
	plain := regexp.MustCompile("[`*]|\\\\")
	for _, v := range Variables() {
		row, ok := rows[v.Name]
		if !ok {
			t.Errorf("README.md lacks a row for %s: | `%s` | %s | %s |", v.Name, v.Name, v.Default, v.Meaning)
			continue
		}
		if got := plain.ReplaceAllString(row[0], ""); got != plain.ReplaceAllString(v.Default, "") {
			t.Errorf("%s: README.md says the default is %q, the program %q", v.Name, got, v.Default)
		}
		delete(rows, v.Name)
	}
	for name := range rows {
		if strings.HasPrefix(name, prefix) {
			t.Errorf("README.md has %s, the program has not", name)
		}
	}
}
