package deploytest

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/tidewire/tidewire/cmd/internal/node"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/replication/peertls"
)

const root = "../../../"

func load(t *testing.T) *types.Project {
	t.Helper()
	// Only the file decides: neither this process's environment nor a .env file.
	options, err := cli.NewProjectOptions([]string{root + "docker-compose.yml"}, cli.WithResolvedPaths(false))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestComposeNodes(t *testing.T) {
	project := load(t)
	var known []string
	for _, v := range node.Variables() {
		known = append(known, v.Name)
	}
	var peers []string
	for i := range 3 {
		peers = append(peers, fmt.Sprintf("n%d=n%d:7070", i+1, i+1))
	}
	published := map[string]string{}
	for i, name := range []string{"n1", "n2", "n3"} {
		s, ok := project.Services[name]
		if !ok {
			t.Fatalf("there is no service %s", name)
		}
		if s.Build == nil || s.Build.Context == "" {
			t.Errorf("%s is not built from this tree", name)
		}
		if s.Privileged || !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || s.User == "root" || s.User == "0" || s.NetworkMode == "host" {
			t.Errorf("%s has more rights than it needs", name)
		}
		if s.HealthCheck == nil || !slices.Equal(s.HealthCheck.Test, []string{"CMD", "tidewire", "healthcheck"}) {
			t.Errorf("%s: health check %+v", name, s.HealthCheck)
		}
		if s.DependsOn["topics"].Condition != types.ServiceConditionCompletedSuccessfully {
			t.Errorf("%s does not wait for the topics", name)
		}
		for variable := range s.Environment {
			if !slices.Contains(known, variable) {
				t.Errorf("%s: %s is not a variable of tidewire", name, variable)
			}
		}
		env := func(n string) string {
			v := s.Environment["TIDEWIRE_"+n]
			if v == nil {
				t.Errorf("%s: TIDEWIRE_%s is missing", name, n)
				return ""
			}
			return *v
		}
		if got := env("NODE_ID"); got != name {
			t.Errorf("%s calls itself %s", name, got)
		}
		if got := env("CLUSTER_PEERS"); got != strings.Join(peers, ",") {
			t.Errorf("%s: peers %s", name, got)
		}
		if got := env("CLUSTER_ADVERTISE"); got != name+":7070" {
			t.Errorf("%s: advertises %s", name, got)
		}
		// The nodes reach each other through a network that is not theirs alone; whoever sets a secret gets it.
		if got := env("CLUSTER_SECRET"); peertls.CheckSecret(secret.Of(got)) != nil || !strings.Contains(got, "trying-it-out") {
			t.Errorf("%s: secret %q", name, got)
		}
		if env("CLUSTER_SECRET") != *project.Services["n1"].Environment["TIDEWIRE_CLUSTER_SECRET"] {
			t.Errorf("%s has another secret than n1", name)
		}
		if got := env("KAFKA_BROKERS"); got != "kafka:19092" {
			t.Errorf("%s: brokers %s", name, got)
		}
		dir, mounted := env("DATA_DIR"), false
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeVolume && v.Target == dir && v.Source == name+"-data" {
				_, mounted = project.Volumes[v.Source]
			}
		}
		if !mounted {
			t.Errorf("%s: %s is not on a volume of its own", name, dir)
		}
		want := map[uint32]string{8080: fmt.Sprintf(":%d", 8080+100*i), 8081: fmt.Sprintf("127.0.0.1:%d", 8081+100*i)}
		got := map[uint32]string{}
		for _, p := range s.Ports {
			got[p.Target] = p.HostIP + ":" + p.Published
			if other, taken := published[p.Published]; taken {
				t.Errorf("%s and %s both publish %s", name, other, p.Published)
			}
			published[p.Published] = name
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: ports %v, want %v", name, got, want)
		}
		// The node itself must take the values.
		t.Run(name, func(t *testing.T) {
			for _, kv := range os.Environ() {
				if n, _, _ := strings.Cut(kv, "="); strings.HasPrefix(n, "TIDEWIRE_") {
					t.Setenv(n, "")
					os.Unsetenv(n)
				}
			}
			for variable, value := range s.Environment {
				t.Setenv(variable, *value)
			}
			if _, err := node.FromEnv(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestComposeKafka(t *testing.T) {
	project := load(t)
	kafka := project.Services["kafka"]
	if !regexp.MustCompile(`^apache/kafka:4\.\d+\.\d+$`).MatchString(kafka.Image) {
		t.Errorf("image %s", kafka.Image)
	}
	if kafka.HealthCheck == nil || len(kafka.HealthCheck.Test) < 2 || kafka.HealthCheck.Test[0] != "CMD" {
		t.Errorf("health check %+v", kafka.HealthCheck)
	}
	if kafka.Privileged || len(kafka.Ports) != 1 || kafka.Ports[0].HostIP != "127.0.0.1" || kafka.Ports[0].Published != "9092" {
		t.Errorf("ports %+v", kafka.Ports)
	}
	env := func(n string) string {
		if v := kafka.Environment[n]; v != nil {
			return *v
		}
		return ""
	}
	// Every listener needs a protocol, and those that others dial an address that they can reach.
	for l := range strings.SplitSeq(env("KAFKA_LISTENERS"), ",") {
		name, _, _ := strings.Cut(l, "://")
		if !strings.Contains(env("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"), name+":PLAINTEXT") {
			t.Errorf("listener %s has no protocol", name)
		}
	}
	if got := env("KAFKA_ADVERTISED_LISTENERS"); got != "INTERNAL://kafka:19092,HOST://127.0.0.1:9092" {
		t.Errorf("advertised %s", got)
	}
	if len(kafka.Volumes) != 1 || kafka.Volumes[0].Target != env("KAFKA_LOG_DIRS") {
		t.Errorf("the log is not on a volume: %+v", kafka.Volumes)
	}

	topics := project.Services["topics"]
	if topics.Image != kafka.Image || topics.DependsOn["kafka"].Condition != types.ServiceConditionHealthy || topics.Restart != "no" {
		t.Errorf("topics: %+v", topics)
	}
	script := topics.Command[len(topics.Command)-1]
	for name, partitions := range map[string]int{"prices": 4, "chat": 2} {
		want := fmt.Sprintf("kafka-topics.sh --bootstrap-server kafka:19092 --create --if-not-exists --topic %s --partitions %d --replication-factor 1\n", name, partitions)
		if !strings.Contains(script, want) {
			t.Errorf("no line %q in\n%s", want, script)
		}
	}
	if len(project.Services) != 5 {
		t.Errorf("%d services", len(project.Services))
	}
}

// A broker that answers may not count yet: what creates the topics tries again for a while, and then says that it failed.
func TestComposeTopicsAreCreatedPatiently(t *testing.T) {
	command := load(t).Services["topics"].Command
	script := strings.NewReplacer("$$", "$", "/opt/kafka/bin/kafka-topics.sh", "kafka").Replace(command[len(command)-1])
	for failures, want := range map[string]string{"3": "kafka.kafka.kafka.kafka.kafka.", "99": strings.Repeat("kafka.", 10)} {
		stubs := "sleep() { :; }; left=" + failures + "; kafka() { printf kafka.; left=$((left-1)); [ $left -lt 0 ]; }\n"
		out, err := exec.Command(command[0], "-ec", stubs+script).CombinedOutput()
		if string(out) != want || (err == nil) != (failures == "3") {
			t.Errorf("after %s failures: %q, %v", failures, out, err)
		}
	}
}

// The image must run what the health checks call, without root, on the volume it declares.
func TestDockerfile(t *testing.T) {
	b, err := os.ReadFile(root + "Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"CGO_ENABLED=0 ", "\nFROM scratch\nCOPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/\n", "\nUSER 65532:65532\n", "\nVOLUME /data\n", "\nENTRYPOINT [\"tidewire\"]\n", "CMD [\"tidewire\", \"healthcheck\"]\n",
		"\nEXPOSE 8080 8081 7070\n", "--chown=65532:65532 /out/data /data",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("Dockerfile has no %q", want)
		}
	}
	if n := strings.Count(string(b), "\nFROM "); n != 2 {
		t.Errorf("%d stages: what is left of the last one but one is in the image", n)
	}
	// `make reproducible` is about the image's binaries if it builds them alike.
	makefile, err := os.ReadFile(root + "Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, flags := range []string{"-trimpath -buildvcs=false ", "-s -w -X github.com/tidewire/tidewire/cmd/internal/node.version="} {
		if !strings.Contains(string(b), flags) || !strings.Contains(string(makefile), flags) {
			t.Errorf("Dockerfile and Makefile do not both build with %q", flags)
		}
	}
}
