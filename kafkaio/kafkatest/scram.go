package kafkatest

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The one user of the SASL listener. The password has the two characters that
// SCRAM's messages use as separators, so that a client that mixes them up fails.
const (
	saslUser     = "tidewire"
	saslPassword = "s=cret,word"

	scramIterations = 4096 // the least Kafka accepts
)

// createSCRAM stores the user's SCRAM credentials in the cluster, as
// kafka-configs does. (PLAIN's are in server.properties.)
func (k *cluster) createSCRAM(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.addresses(func(n *node) int { return n.plain })...))
	if err != nil {
		return err
	}
	defer cl.Close()
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	salted256, err := pbkdf2.Key(sha256.New, saslPassword, salt, scramIterations, sha256.Size)
	if err != nil {
		return err
	}
	salted512, err := pbkdf2.Key(sha512.New, saslPassword, salt, scramIterations, sha512.Size)
	if err != nil {
		return err
	}
	// One request a mechanism: Kafka refuses one that names a user twice.
	for mechanism, salted := range map[int8][]byte{1: salted256, 2: salted512} { // Kafka's codes for SHA-256 and SHA-512
		u := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
		u.Name, u.Mechanism, u.Iterations = saslUser, mechanism, scramIterations
		u.Salt, u.SaltedPassword = salt, salted
		req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
		req.Upsertions = append(req.Upsertions, u)
		err := pollOn(ctx, func(err error) bool { return brokersAway(err) || kerr.IsRetriable(err) }, func() error {
			resp, err := req.RequestWith(ctx, cl)
			if err != nil {
				return err
			}
			for _, r := range resp.Results {
				if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("store SCRAM credentials: %w", err)
		}
	}
	return nil
}
