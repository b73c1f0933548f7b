package kafkaio

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/aws/aws-msk-iam-sasl-signer-go/signer"
)

// Amazon MSK takes, in OAUTHBEARER, an address that was signed with IAM credentials: a token that says who we are
// and needs no endpoint to issue it. The credentials are those of AWS's SDK, from where that looks for them: the
// environment, a web identity (IRSA), the shared files, the container's or the machine's role.

var awsRegion = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

func mskMechanism(region string) *oauthMechanism {
	cache := newTokenCache(func(ctx context.Context) (token, error) {
		value, expiry, err := signer.GenerateAuthToken(ctx, region)
		if err != nil {
			return token{}, fmt.Errorf("no credentials from AWS: %w", err)
		}
		return token{value: value, expiry: time.UnixMilli(expiry)}, nil
	})
	return &oauthMechanism{token: cache.get, closeFunc: cache.close}
}
