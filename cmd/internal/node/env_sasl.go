package node

import (
	"cmp"
	"os"
	"slices"
	"strings"

	"github.com/tidewire/tidewire/kafkaio"
)

// saslVariable is a variable that belongs to one kind of mechanism.
type saslVariable struct {
	name       string
	given      string // its value, masked
	mechanisms []string
	required   bool
}

// sasl reads how to authenticate to Kafka into s.
func (e *env) sasl(s *kafkaio.Security, p *problems) {
	s.OAuth = kafkaio.OAuth{
		Token: e.secret("TIDEWIRE_KAFKA_OAUTH_TOKEN"), TokenURL: e.KafkaOAuthTokenURL, ClientID: e.KafkaOAuthClientID,
		ClientSecret: e.secret("TIDEWIRE_KAFKA_OAUTH_CLIENT_SECRET"), Scope: e.KafkaOAuthScope,
	}
	for _, item := range list(e.KafkaOAuthExtra) {
		name, value, ok := strings.Cut(item, "=")
		if !ok {
			p.add("TIDEWIRE_KAFKA_OAUTH_EXTENSIONS", item, "want name=value")
			continue
		}
		if s.OAuth.Extensions == nil {
			s.OAuth.Extensions = map[string]string{}
		}
		s.OAuth.Extensions[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	if s.Mechanism != "" && !slices.Contains(kafkaio.Mechanisms, s.Mechanism) {
		p.add("TIDEWIRE_KAFKA_SASL_MECHANISM", s.Mechanism, "want %s", or(kafkaio.Mechanisms))
		return
	}
	if s.Mechanism == kafkaio.MechanismAWSMSKIAM {
		s.AWSRegion = cmp.Or(e.KafkaAWSRegion, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	}
	for _, v := range e.saslVariables(s) {
		belongs := slices.Contains(v.mechanisms, s.Mechanism)
		switch {
		case v.given != "" && s.Mechanism == "":
			p.add(v.name, v.given, "given without TIDEWIRE_KAFKA_SASL_MECHANISM: want %s there", or(v.mechanisms))
			return // one line for the mechanism that was forgotten, not one for each variable
		case v.given != "" && !belongs:
			p.add(v.name, v.given, "is for TIDEWIRE_KAFKA_SASL_MECHANISM=%s, which is %s", strings.Join(v.mechanisms, " or "), s.Mechanism)
		case v.given == "" && belongs && v.required:
			p.add(v.name, "", "required with TIDEWIRE_KAFKA_SASL_MECHANISM=%s", s.Mechanism)
		}
	}
}

func (e *env) saslVariables(s *kafkaio.Security) []saslVariable {
	login := []string{kafkaio.MechanismPlain, kafkaio.MechanismScramSHA256, kafkaio.MechanismScramSHA512}
	oauth := []string{kafkaio.MechanismOAuthBearer}
	endpoint := !s.OAuth.Token.IsSet() // the token comes from one
	return []saslVariable{
		{"TIDEWIRE_KAFKA_SASL_USERNAME", s.Username, login, true},
		{"TIDEWIRE_KAFKA_SASL_PASSWORD", s.Password.String(), login, true},
		{"TIDEWIRE_KAFKA_OAUTH_TOKEN", s.OAuth.Token.String(), oauth, false},
		{"TIDEWIRE_KAFKA_OAUTH_TOKEN_URL", s.OAuth.TokenURL, oauth, endpoint},
		{"TIDEWIRE_KAFKA_OAUTH_CLIENT_ID", s.OAuth.ClientID, oauth, endpoint},
		{"TIDEWIRE_KAFKA_OAUTH_CLIENT_SECRET", s.OAuth.ClientSecret.String(), oauth, endpoint},
		{"TIDEWIRE_KAFKA_OAUTH_SCOPE", s.OAuth.Scope, oauth, false},
		{"TIDEWIRE_KAFKA_OAUTH_EXTENSIONS", e.KafkaOAuthExtra, oauth, false},
		{"TIDEWIRE_KAFKA_AWS_REGION", cmp.Or(e.KafkaAWSRegion, s.AWSRegion), []string{kafkaio.MechanismAWSMSKIAM}, true},
	}
}

// or joins alternatives.
func or(all []string) string {
	last := len(all) - 1
	if last <= 0 {
		return strings.Join(all, "")
	}
	return strings.Join(all[:last], ", ") + " or " + all[last]
}
