package kafkatest

import (
	"encoding/base64"
	"encoding/json"
	"time"
)

// UnsignedToken returns a bearer token, an unsigned JWT, that the listener of
// [Cluster.SASLBrokers] takes from now until life has passed. Nobody has issued
// it: the brokers believe whoever shows one.
func UnsignedToken(subject string, life time.Duration) string {
	now := time.Now()
	claims, _ := json.Marshal(map[string]any{ // cannot fail
		"sub": subject,
		"iat": float64(now.Add(-time.Minute).UnixMilli()) / 1000, // clocks of containers differ
		"exp": float64(now.Add(life).UnixMilli()) / 1000,
	})
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(`{"alg":"none"}`)) + "." + enc.EncodeToString(claims) + "."
}
